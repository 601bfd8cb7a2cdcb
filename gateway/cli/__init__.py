"""The command line: one module for each command, each a thin layer over the packages below."""
