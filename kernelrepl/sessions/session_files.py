"""The files of a session, read for whoever is no part of it."""

from __future__ import annotations

import io
from pathlib import Path

from kernelrepl.outputs import beside
from kernelrepl.sessions.manager import Manager
from kernelrepl.workspaces import files


async def read(manager: Manager, session_id: str, path: str, limit: int) -> bytes:
    """Return a file in the working directory of a session, read beside the event loop.

    Raises UnknownSession, WorkspaceFileRefused, and WorkspaceFileTooLarge if it has more bytes than `limit`.
    """
    workspace = await manager.workspace(session_id)
    return await beside.large(limit, _read, workspace, path, limit)


def _read(workspace: Path, path: str, limit: int) -> bytes:
    out = io.BytesIO()
    files.read_into(workspace, path, out, limit)
    return out.getvalue()
