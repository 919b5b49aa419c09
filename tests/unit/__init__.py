"""Tests without a kernel and without a keeper: seconds."""
