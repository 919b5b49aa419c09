"""The one place that imports sqlite-utils, and it without pandas and numpy.

sqlite-utils imports both when they are installed, to accept their values. The store never passes one, and
the import would cost every start of a keeper more than half a second and 60 MB.
"""

from __future__ import annotations

import sys

_UNUSED = ("pandas", "numpy")
_loaded = {name: sys.modules[name] for name in _UNUSED if name in sys.modules}
for _name in _UNUSED:
    sys.modules[_name] = None  # type: ignore[assignment]
try:
    from sqlite_utils import Database, Migrations
finally:
    for _name in _UNUSED:
        del sys.modules[_name]
    sys.modules.update(_loaded)

__all__ = ["Database", "Migrations"]
