"""The files of a session as resources: where a host gets what code has written, and of what type it is."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from mcp.server import MCPServer
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import ResourceSecurity
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp_types import ResourceLink

from kernelrepl.errors import (
    InvalidSessionId,
    KernelReplError,
    UnknownSession,
    WorkspaceFileRefused,
    WorkspaceFileTooLarge,
)
from kernelrepl.keeper.keeper import Keeper
from kernelrepl.model import ChangedFile
from kernelrepl.outputs.terminal_text import field
from kernelrepl.sessions import session_files

FILE_BYTES = 8 << 20
"""The largest file that is sent to a host."""
MOST_LINKS = 4
"""So many files of one reply have a link: hosts show each link to the model."""
_URI = "kernelrepl://sessions/{session_id}/files/"
_TEMPLATE = _URI + "{+path}"
_OF_A_FILE = re.compile(r"kernelrepl://sessions/[^/]+/files/(.+)", re.DOTALL)
_NO_TEXTS = ("image", "audio", "video", "font")


class WorkspaceFiles:
    """The files in the working directories of sessions."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def register(self, server: MCPServer[Any]) -> None:
        # The checks of the SDK would also refuse names that are harmless here, like `C:\x`.
        unchecked = ResourceSecurity(exempt_params={"path"})
        about = "a file in the working directory of a session"
        server.resource(_TEMPLATE, name="file", description=about, security=unchecked)(self.read)

    async def read(self, session_id: str, path: str) -> str | bytes:
        """Return a file as it is: as text if it is one, else as bytes."""
        try:
            content = await session_files.read(self._keeper.manager, session_id, path, FILE_BYTES)
        except WorkspaceFileTooLarge as error:
            remedy = "`kernelrepl get` copies it out of the session, or code in the session reads a part of it"
            raise ResourceNotFoundError(f"'{error.path}' {error.why} of a resource; {remedy}") from error
        except (UnknownSession, InvalidSessionId, WorkspaceFileRefused) as error:
            raise ResourceNotFoundError(str(error)) from error
        except KernelReplError as error:
            raise ResourceError(str(error)) from error
        return _as_text(content, mime_of(path) or "")


def _as_text(content: bytes, mime: str) -> str | bytes:
    """Return a text as such, and what is none as it is."""
    if b"\0" in content or (mime.split("/")[0] in _NO_TEXTS and not mime.endswith("+xml")):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def mime_of(path: str) -> str | None:
    """Return the type that the name of a file says."""
    kind, encoding = mimetypes.guess_type("file" + "".join(PurePosixPath(path).suffixes[-2:]))
    return kind if encoding is None else "application/gzip" if encoding == "gzip" else "application/octet-stream"


def typed(uri: str, content: ReadResourceContents) -> ReadResourceContents:
    """Return what was read of a resource; that of a file gets the type that its name says."""
    found = _OF_A_FILE.fullmatch(uri)
    if found is None:
        return content
    other = "application/octet-stream" if isinstance(content.content, bytes) else "text/plain"
    return replace(content, mime_type=mime_of(unquote(found[1])) or other)


def links(session_id: str | None, files: Sequence[ChangedFile]) -> list[ResourceLink]:
    """Return the links to the first of these files. Those of a call without a session are gone."""
    if session_id is None:
        return []
    return [
        ResourceLink(
            type="resource_link",
            name=field(file.path),
            uri=_URI.format(session_id=session_id) + quote(file.path, safe="/"),
            mime_type=mime_of(file.path),
            size=file.size,
        )
        for file in [file for file in files if _is_text(file.path)][:MOST_LINKS]
    ]


def _is_text(path: str) -> bool:
    """Whether a path can be in an address: file systems take any bytes for a name."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
