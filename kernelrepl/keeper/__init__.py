"""The keeper: the one process of a data directory, with its sockets."""
