"""This package is the Python API: the tools as async functions, which call the keeper."""
