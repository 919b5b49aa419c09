"""How values are pickled faithfully. Runs in the kernel."""
