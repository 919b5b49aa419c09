"""The people's protocol: Jupyter clients on the kernels of sessions."""
