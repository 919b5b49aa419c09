"""Fails when it is imported."""

raise RuntimeError("broken")
