"""How a session is brought back from its components. Runs in the kernel."""
