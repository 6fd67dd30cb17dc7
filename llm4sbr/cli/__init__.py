"""The command line: thin shells around functions that other rooms hold."""
