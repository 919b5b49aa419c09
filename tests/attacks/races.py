"""Attempts to lead the keeper out of a workspace by changing it while the keeper is at work there.

Each of them first leads somebody out who works with paths, as a control: so the race can be won, and the keeper does
not lose it by luck.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from kernelrepl.errors import WorkspaceFileRefused
from kernelrepl.sessions.manager import Origin
from kernelrepl.workspaces import files, removal, usage
from tests.attacks.arena import Arena
from tests.attacks.attempt import THROUGH, Attempt, Scenario

SWAPS = """
import threading
os.makedirs("way/inner"); os.makedirs("kept"); os.mkfifo("pipe")
write("way/secret", "wb", b"own"); write("way/inner/file", "wb", b"own"); write("name", "wb", b"own")
os.symlink(host.place, "link"); os.symlink(host.secret, "file link")
many = [(f"d{n}".encode(), f"l{n}".encode()) for n in range(50)]
for one, other in many:
    os.mkdir(one); os.symlink(host.place, other)
def swap(*pairs):
    while True:
        for one, other in pairs:
            attempt(call, "renameat2", HERE, one, HERE, other, 2)
# Each pair in a thread of its own: a directory and a link out, a file and a link out, a directory and a pipe.
for pairs in ([(b"way", b"link")], [(b"name", b"file link")], [(b"kept", b"pipe"), (b"way/inner", b"kept")], many):
    threading.Thread(target=swap, args=pairs, daemon=True).start()
"made"
"""
TRIES = 400
"""So often an act is tried, or for SPENT_S."""
CONTROL_S = 20.0
"""How long somebody who works with paths may take to be led out."""
SPENT_S = 4.0
MOST_S = 30.0
"""How long one act of the keeper may take: longer is a pipe that it waits for."""
Act = Callable[[Arena, Path], None]


def _led_out(arena: Arena, root: Path) -> bool:
    """The control: whether a path of the workspace leads to the host's secret, by looking and opening."""
    until = time.monotonic() + CONTROL_S
    token = arena.targets.token.encode()
    while time.monotonic() < until:
        for name in ("way/secret", "name"):
            with contextlib.suppress(OSError):
                if stat.S_ISREG((root / name).stat().st_mode) and (root / name).read_bytes() == token:
                    return True
    return False


def _gets(arena: Arena, root: Path) -> None:
    """Copies files out, to a stream and to a file."""
    target = arena.manager.data_dir.parent / "copy"
    for name in ("way/secret", "name", "pipe", "way/inner/file", "kept/file"):
        out = io.BytesIO()
        with contextlib.suppress(WorkspaceFileRefused):
            files.read_into(root, name, out, 1_000_000)
            assert arena.targets.token.encode() not in out.getvalue(), name
        with contextlib.suppress(WorkspaceFileRefused):
            files.fetch(root, name, target, 1_000_000, replace=True)
            assert arena.targets.token.encode() not in target.read_bytes(), name


def _puts(arena: Arena, root: Path) -> None:
    """Copies a file in, also into directories that it makes, and over what is there."""
    for name in ("way/folder/new", "way/new/deep/file", "way/folder/file", "name", "kept/new", "pipe"):
        with contextlib.suppress(WorkspaceFileRefused):
            files.write_from(root, name, io.BytesIO(b"attacked"), replace=True)


def _lists(arena: Arena, root: Path) -> None:
    shown = [entry.path for entry in files.list_files(root).entries]
    assert not [path for path in shown if path.endswith("/writable")], shown


def _counts(arena: Arena, root: Path) -> None:
    found = usage.files(root, None, None)
    assert found.count < 200, found  # the host's directory has more than that


def _hands_over(arena: Arena, root: Path) -> None:
    if os.geteuid() == 0:
        os.chown(root, 0, 0)
        arena.manager.confinement.make_workspace(root)


def races(act: Act) -> Scenario:
    """The keeper does it again and again, while the workspace changes."""

    async def scenario(arena: Arena) -> str:
        for number in range(200):
            (arena.targets.place / "home" / f"entry {number}").write_text("x")
        arena.targets._before = arena.targets._looks()
        said = await arena.outcome(SWAPS)
        if said != "made":
            return said
        root = arena.workspace("s")
        if not await asyncio.to_thread(_led_out, arena, root):
            return "nobody is led out, the control neither"
        until = time.monotonic() + SPENT_S
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(MOST_S):
                    await asyncio.to_thread(act, arena, root)
            except TimeoutError:
                return f"{THROUGH}: the keeper waits"
            except AssertionError as error:
                return f"{THROUGH}: {error}"
            if time.monotonic() > until:
                break
        return "its own only"

    return scenario


async def removed(arena: Arena) -> str:
    """What is removed while it changes is the workspace: by a walk beside it, and with its session."""
    for way in ("removed", "deleted", "expired"):
        if (said := await arena.outcome(SWAPS, way)) != "made":
            return said
        root = arena.workspace(way)
        if not await asyncio.to_thread(_led_out, arena, root):
            return "nobody is led out, the control neither"
        if way == "removed":
            await asyncio.to_thread(removal.remove, root)
        elif way == "deleted":
            await arena.manager.delete(way, Origin("attacks"))
        else:
            [view] = [found for found in await arena.manager.list_sessions() if found.info.session_id == way]
            await arena.manager.expire(way, view.info.last_used_at)
        if way != "expired" and root.exists():
            return f"{THROUGH}: {way}: {os.listdir(root)}"  # noqa: PTH208
    return "its own only"


RACES = (
    Attempt("a swap while a file is copied out", races(_gets), "its own only"),
    Attempt("a swap while a file is copied in", races(_puts), "its own only"),
    Attempt("a swap while files are listed", races(_lists), "its own only"),
    Attempt("a swap while files are counted", races(_counts), "its own only"),
    Attempt("a swap while a workspace changes hands", races(_hands_over), "its own only"),
    Attempt("a swap while a session is removed", removed, "its own only"),
)
GROUPS = {"races": RACES}
