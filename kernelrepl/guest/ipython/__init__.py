"""IPython as a session needs it: kernel, shell, output. Runs in the kernel."""
