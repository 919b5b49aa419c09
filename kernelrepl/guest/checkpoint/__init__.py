"""What changed in the namespace, and what of it can be saved. Runs in the kernel."""
