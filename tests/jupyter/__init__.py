"""Tests with Jupyter's own programs on sessions."""
