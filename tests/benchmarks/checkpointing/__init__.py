"""What `tests.benchmarks.checkpoint` is made of."""
