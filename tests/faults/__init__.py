"""Places in a guest and in a keeper where a test can end the process, and a trial that checks what survives."""
