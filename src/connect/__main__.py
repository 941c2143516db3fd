"""`python -m connect` is `connect`."""

from connect.cli import main

main()
