"""The one place that imports sqlite-utils, and it without pandas and numpy.

sqlite-utils imports both when they are installed, to accept their values. The store never passes one, and
the import would cost every start of a keeper more than half a second and 60 MB.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

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

__all__ = ["Database", "Migrations", "update"]
_LONG = 64 << 10


def update(db: Database, statement: str, values: Sequence[Any]) -> None:
    """Execute an UPDATE whose last value is the id of its row, and hold none of the values after that.

    SQLite keeps a copy of what was bound to a statement until that is used again: outputs have 24 MB.
    """
    db.execute(statement, values)
    if any(len(value) > _LONG for value in values if isinstance(value, str | bytes)):
        db.execute(statement, [None] * len(values))
