"""Code that runs inside a kernel process.

Nothing here imports the rest of kernelrepl: a kernel may run under another interpreter, and is not
trusted by the keeper. The host imports `kernelrepl.guest.wire` only.
"""
