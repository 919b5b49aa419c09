"""The database: sessions, executions, commits, names, components and chunks."""

from kernelrepl.store.store import Store

__all__ = ["Store"]
