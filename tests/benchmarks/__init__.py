"""Measurements. They assert nothing about time: they print it, with peers from the same run beside it."""
