"""Python sessions for AI agents that survive kill -9, on Jupyter kernels.

Importing this package loads nothing else: every kernel does it.
"""

from __future__ import annotations

__version__ = "0.1.0"
