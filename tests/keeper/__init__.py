"""Tests of the keeper as a process: agents, the command line, the Python API."""
