"""Tests of confinement, and of hostile kernels."""
