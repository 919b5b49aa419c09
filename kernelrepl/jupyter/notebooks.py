"""Which session a notebook has: by its path, and if it has been moved, by the cells that are in it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

from kernelrepl import bounded_json
from kernelrepl.store import Store

MAX_BYTES = 64 << 20
MAX_VALUES = 2_000_000
MAX_CELLS = 200
"""Of so many cells the ids are remembered: each of them is unlike any other."""


class NotebookFiles:
    """The notebooks that sessions were made for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def session_of(self, path: str) -> str:
        """The id of the session of a notebook; a new one if it has none."""
        known = await self._store.notebooks()
        cells = await asyncio.to_thread(_cells, path)
        session_id = before = None
        if path in known:
            session_id, earlier = known[path]
            cells = cells or earlier
        else:
            before = await asyncio.to_thread(_moved, cells, known)
            session_id = None if before is None else known[before][0]
        if session_id is None:
            session_id = _name_for(path)
            while await self._store.find_session(session_id) is not None:  # of a notebook that has another name now
                session_id = f"{_name_for(path)}-{secrets.token_hex(3)}"
        await self._store.bind_notebook(path, session_id, cells, before)
        return session_id

    async def rename(self, path: str, session_id: str, before: str | None) -> None:
        """The notebook of a session has another path now."""
        cells = await asyncio.to_thread(_cells, path)
        await self._store.bind_notebook(path, session_id, cells, before)

    async def closed(self, session_id: str) -> None:
        """Note what is in the notebooks of a session: a new one has no cells when it is opened."""
        for path, (other, before) in (await self._store.notebooks()).items():
            if other == session_id and (cells := await asyncio.to_thread(_cells, path)) and cells != before:
                await self._store.bind_notebook(path, session_id, cells)


def _cells(path: str) -> list[str]:
    """The ids of the cells of a notebook; none if it cannot be read."""
    try:
        # A session that was granted its folder may have put a pipe there, or go on writing.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return []
            body = file.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            return []
        cells = bounded_json.loads(body, items=MAX_VALUES, depth=100)["cells"]
        return [cell["id"] for cell in cells if isinstance(cell.get("id"), str)][:MAX_CELLS]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _moved(cells: list[str], known: dict[str, tuple[str, list[str]]]) -> str | None:
    """The path that a notebook had before, if it was moved: there it is no more. A copy is another one."""
    alike = {path: len(set(cells) & set(others)) for path, (_, others) in known.items()}
    gone = [path for path, count in alike.items() if count and not Path(path).exists()]
    return max(gone, key=alike.__getitem__, default=None)


def _name_for(notebook: str) -> str:
    """The id of a new session for a notebook."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(notebook).stem)[:60].strip("-.")
    return f"notebook-{stem}-{hashlib.sha256(notebook.encode(errors='replace')).hexdigest()[:8]}"
