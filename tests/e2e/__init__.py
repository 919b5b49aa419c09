"""Tests of what a newcomer runs: the README, the examples, the demonstration, the benchmarks."""
