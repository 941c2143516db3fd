"""The only SQL. One module a noun; constants in upper case beside the function that runs them."""
