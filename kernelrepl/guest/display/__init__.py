"""What a cell shows, as data that is recorded and sent. Runs in the kernel."""
