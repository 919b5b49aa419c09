"""Tests of sessions with real kernels in the test's own process."""
