"""A candidate ruleset over the stored history: what it would have given, beside what was given."""
