"""The Python API: the tools as async functions, through the keeper."""
