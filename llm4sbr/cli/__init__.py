"""The command line: thin wrappers around the functions of the other packages."""
