"""The `zoo` command line: each command is one short call of the library."""
