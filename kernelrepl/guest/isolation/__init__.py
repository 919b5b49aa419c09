"""How a kernel confines itself before any code of a session runs. Runs in the kernel."""
