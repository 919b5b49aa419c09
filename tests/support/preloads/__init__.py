"""Modules that a zygote is asked to load, and how that can fail."""
