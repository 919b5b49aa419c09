"""What a session sets in its process, and how it is found. Runs in the kernel."""
