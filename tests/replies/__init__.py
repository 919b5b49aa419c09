"""What hosts hand to a model of the replies to typical cells: `python -m tests.replies`."""
