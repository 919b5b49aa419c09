"""A database of today, kept for tomorrow: what it holds has to come back with every later version.

`python -m tests.storage` writes `tests/storage/`: the database of sessions with all values of the fidelity tables, the
expressions that are true of them, and the recipes that pickled values name. It is done when the format grows; what is
there already is only ever added to, because people have it on their disks.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import lzma
import sqlite3
import sys
import tempfile
from pathlib import Path
from types import FunctionType

import numpy as np

from kernelrepl.guest import class_recipes, lock_recipes, recipes, table_recipes
from tests.conftest import serving
from tests.sessions.test_fidelity import read_cases
from tests.support.forking import forking

PLACE = Path(__file__).parent / "storage"
DATABASE, CHECKS, RECIPES = PLACE / "sessions.db.xz", PLACE / "checks.json", PLACE / "recipes.txt"
GROUPS = ("aliases", "functions", "classes", "arrays", "library")
_HERE = str(Path(np.__file__).parent.parent).encode()
PYTHON = "/usr/bin/python3"
"""Stands for the interpreter of the kernels that wrote it."""


def signatures() -> list[str]:
    """Each recipe with its parameters, as pickled values rely on it."""
    found = []
    for module in (recipes, class_recipes, lock_recipes, table_recipes):
        for name, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith("_"):
                kinds = [f"{parameter}".partition(":")[0] for parameter in inspect.signature(value).parameters.values()]
                found.append(f"{module.__name__.rpartition('.')[2]}.{name}({', '.join(kinds)})")
            elif isinstance(value, type) and value.__module__ == module.__name__:
                found.append(f"{module.__name__.rpartition('.')[2]}.{name}")
    return sorted(found)


async def _write(directory: Path) -> dict[str, list[list[str]]]:
    """Make the sessions; returns the expressions that are true of each."""
    checks = {}
    data_dir, runtime_dir = directory / "data", directory / "run"
    for place in (data_dir, runtime_dir):
        place.mkdir(mode=0o700)
    async with forking() as launcher, serving(data_dir, runtime_dir, directory / "cache", launcher) as sessions:
        for group in GROUPS:
            kept = []
            for case in read_cases(group):
                execution = await sessions.run(case.make, group)
                assert execution.status == "ok", execution.output.error
                assert not execution.not_saved, execution.not_saved
                kept.append([case.name, *case.check])
            checks[group] = kept
    database = data_dir / "python_sessions.db"
    with sqlite3.connect(database) as db:
        db.execute("UPDATE executions SET outputs = NULL")
        db.execute("UPDATE sessions SET fixed = REPLACE(fixed, ?, ?)", [sys.executable, PYTHON])
        # Where this machine has its libraries is nobody's business.
        of_machine = [row for row, data in db.execute("SELECT id, data FROM components") if _HERE in (data or b"")]
        db.executemany("DELETE FROM components WHERE id = ?", [[row] for row in of_machine])
        db.execute("DELETE FROM names WHERE name = '*environment'")
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    DATABASE.write_bytes(lzma.compress(database.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    return checks


def main() -> None:
    """Write all three."""
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kr-", dir="/tmp") as directory:
        checks = asyncio.run(_write(Path(directory)))
    CHECKS.write_text(json.dumps({"python": list(sys.version_info[:2]), "checks": checks}, indent=1) + "\n")
    RECIPES.write_text("\n".join(signatures()) + "\n")


if __name__ == "__main__":
    main()
