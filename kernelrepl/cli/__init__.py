"""This package is the command line. It starts each of the servers; only it prints for people."""
