"""What people have on their disks comes back with this version: recipes keep their names, and an old database opens."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import pytest

from kernelrepl.kernel.process import Launcher
from kernelrepl.store.database import Database
from tests import storage
from tests.conftest import Sessions, change, serving

_KEPT = json.loads(storage.CHECKS.read_text())
_SAME_PYTHON = list(sys.version_info[:2]) == _KEPT["python"]


def test_no_recipe_is_renamed_moved_or_given_other_parameters() -> None:
    """Values on disks name them; those that are new are noted with `python -m tests.storage`, for later versions."""
    kept, now = set(storage.RECIPES.read_text().splitlines()), set(storage.signatures())
    assert not kept - now, "values that people have stored rely on these"
    assert not now - kept, "new ones: run `python -m tests.storage`"


@pytest.mark.anyio
@pytest.mark.parametrize("group", storage.GROUPS)
async def test_a_database_of_an_earlier_version_opens(
    data_dir: Path, runtime_dir: Path, tmp_path: Path, launcher: Launcher, group: str
) -> None:
    """All of it is restored, and all that was true of its values is true."""
    if not _SAME_PYTHON:
        pytest.skip(f"its functions are for Python {'.'.join(map(str, _KEPT['python']))}")
    database = data_dir / "python_sessions.db"
    database.write_bytes(lzma.decompress(storage.DATABASE.read_bytes()))
    database.chmod(0o600)

    def here(db: Database) -> None:
        db.execute("UPDATE sessions SET fixed = REPLACE(fixed, ?, ?)", [storage.PYTHON, sys.executable])

    async with serving(data_dir, runtime_dir, tmp_path / "cache", launcher) as sessions:
        await change(sessions.store, here)
        wrong = await _wrong(sessions, group)
    assert not wrong, "\n" + "\n".join(wrong)


async def _wrong(sessions: Sessions, group: str) -> list[str]:
    first = await sessions.run("0", group)
    assert first.restored is not None
    wrong = [f"not restored: {entry.name}: {entry.reason}" for entry in first.restored.not_restored]
    for name, *expressions in _KEPT["checks"][group]:
        for expression in expressions:
            execution = await sessions.run(f"bool({expression})", group)
            if execution.output.result != "True":
                wrong.append(f"{name}: {expression}: {execution.output.error or execution.output.result}")
    return wrong
