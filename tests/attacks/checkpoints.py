"""Attempts by way of what is saved: values that act when somebody looks at them, and rows of others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kernelrepl.errors import SandboxTooWeak
from kernelrepl.model import Limits
from kernelrepl.sandbox import Tier
from tests.attacks.arena import Arena
from tests.attacks.attempt import THROUGH, Attempt
from tests.sandbox.test_sandbox import with_tier

ACT = """
def act(*ignored, **more):
    for path in (host.writable, host.folder + "/made"):
        try:
            with open(path, "a") as file:
                file.write("acted")
        except OSError:
            pass
    with open("acted", "a") as file:
        file.write("x")
    return 1
"""
REDUCE = (
    ACT
    + """
class Bomb:
    def __reduce__(self):
        return act, ()
bomb = Bomb()
"made" """
)
LOOKED_AT = (
    ACT
    + """
class Bomb:
    __repr__ = __str__ = lambda self: str(act())
    __eq__ = __lt__ = __bool__ = __len__ = __del__ = act
    __hash__ = __sizeof__ = act
    def __getattribute__(self, name):
        act()
        return object.__getattribute__(self, name)
bomb, bombs = Bomb(), [Bomb(), {"a": Bomb()}]
"made" """
)
SETSTATE = (
    ACT
    + """
class Bomb:
    def __setstate__(self, state):
        act()
    __getstate__ = lambda self: {"a": 1}
bomb = Bomb()
"made" """
)
FORGE = """
channel = get_ipython().kernel.saving.channel
import json
"""


def kept(code: str) -> Callable[[Arena], Awaitable[str]]:
    """Save it, look at it from outside in every way there is, and let another kernel load it."""

    async def scenario(arena: Arena) -> str:
        said = await arena.outcome(code)
        await arena.manager.list_variables("s")
        await arena.manager.list_sessions()
        await arena.manager.loaded()["s"].hibernate()
        await arena.manager.list_variables("s")
        await arena.outcome("bomb = globals().get('bomb'); 'looked at'")
        return "confined" if said == "made" else said

    return scenario


async def too_large(arena: Arena) -> str:
    """More than a variable may be, and more than a session may be."""
    limits = Limits(variable_bytes=100_000, session_bytes=1_000_000)
    code = "big = b'x' * 30_000_000\nmany = [bytes([n]) * 90_000 for n in range(200)]\n'made'"
    execution = await arena.sessions.run(code, limits=limits)
    stored = sum(info.info.size_bytes for info in await arena.manager.list_sessions())
    return f"{THROUGH}: {stored} bytes are stored" if stored > 1_000_000 or execution.saved.created else "not saved"


async def endless(arena: Arena) -> str:
    """A reducer that never returns costs its deadline, not the session."""
    code = "class Slow:\n    def __reduce__(self):\n        while True: pass\nslow, x = Slow(), 5\n'made'"
    execution = await arena.sessions.run(code, limits=Limits(save_deadline_s=0.3))
    said = [entry.name for entry in execution.not_saved]
    return "not saved" if "slow" in said and await arena.sessions.value("x") == "5" else f"{THROUGH}: {execution}"


async def odd_names(arena: Arena) -> str:
    """Names are data to the keeper, never paths and never SQL."""
    names = ["../../../etc/x", "a\0b", "x'; DROP TABLE names; --", "/abs", "\x1b[2J", "x" * 5000, "\udc80"]
    await arena.outcome(f"globals().update(dict.fromkeys({names!r}, 1)); 'made'")
    await arena.manager.list_variables("s")
    await arena.manager.loaded()["s"].hibernate()
    found = await arena.outcome("y = 1; 'goes on'")
    outside = sorted(path.name for path in arena.manager.data_dir.iterdir())
    known = {"workspaces", "packages", "python_sessions.db", "python_sessions.db-wal", "python_sessions.db-shm"}
    return found if set(outside) <= known else f"{THROUGH}: {outside}"


async def weaker(arena: Arena) -> str:
    """What hostile code left does not load with less in its way."""
    await arena.outcome("x = 1; 'made'")
    await arena.manager.loaded()["s"].hibernate()
    with_tier(arena.sessions, None)
    try:
        await arena.sessions.run("x")
    except SandboxTooWeak:
        return "refused"
    return THROUGH


async def lower_tier(arena: Arena) -> str:
    """The same from tier 1 to tier 2."""
    await arena.outcome("x = 1; 'made'")
    await arena.manager.loaded()["s"].hibernate()
    with_tier(arena.sessions, Tier(2, 7))
    try:
        await arena.sessions.run("x")
    except SandboxTooWeak:
        return "refused"
    return THROUGH


async def forged_rows(arena: Arena) -> str:
    """A kernel writes on its channel as it likes; the rows of another session stay what they are."""
    await arena.sessions.run("x = 'mine'", "other")
    [key] = [info.info.key for info in await arena.manager.list_sessions()]
    before = await arena.sessions.rows("SELECT * FROM names WHERE session_id = ?", key) if await _has(arena) else []
    forged = (
        FORGE
        + f"""
for session in ({key}, 1, 2):
    channel.send({{"type": "stage", "component": 0, "session": session, "session_id": "other"}}, [b"x" * 1000])
    channel.send({{"type": "commit", "commit": 99, "cause": "execution", "request": "r", "session": session,
        "session_id": "other", "names": {{"x": [0, "str", 1]}}, "unsaved": {{}}, "deleted": ["x"], "components": [],
        "closed": [0, 1, 2, 3], "magic": "", "python": "3", "saved": {{}}, "outputs": []}})
"made" """
    )
    with_result = asyncio.ensure_future(arena.sessions.run(forged, "s", timeout_s=10.0))
    await with_result
    after = await arena.sessions.rows("SELECT * FROM names WHERE session_id = ?", key) if await _has(arena) else []
    await arena.manager.loaded()["other"].hibernate()
    value = await arena.sessions.value("x", "other")
    return "its own only" if value == "'mine'" and before == after else f"{THROUGH}: {value}"


async def _has(arena: Arena) -> bool:
    return any(row[1] == "session_id" for row in await arena.sessions.rows("PRAGMA table_info(names)"))


async def expanding(arena: Arena) -> str:
    """Pieces ahead of a commit that never comes are forgotten with their kernel, and collected."""
    send = "channel.send({'type': 'stage', 'component': n}, [os.urandom(1 << 20)])"
    await arena.sessions.run(f"import os\n{FORGE}for n in range(64):\n    {send}\n'made'")
    await arena.sessions.kill()
    await arena.outcome("'goes on'")
    await arena.manager.tidy()
    [info] = await arena.manager.list_sessions()
    [(left,)] = await arena.sessions.rows("SELECT coalesce(sum(length(data)), 0) FROM chunks")
    return "not kept" if info.info.size_bytes < 1_000_000 and left < 1_000_000 else f"{THROUGH}: {left} bytes"


CHECKPOINTS = (
    Attempt("a value that acts when it is loaded", kept(REDUCE), "confined"),
    Attempt("a value that acts when it is looked at", kept(LOOKED_AT), "confined"),
    Attempt("a value that acts when it gets its state", kept(SETSTATE), "confined"),
    Attempt("a value that is too large", too_large, "not saved"),
    Attempt("a reducer that never returns", endless, "not saved"),
    Attempt("names like paths and like SQL", odd_names, "goes on"),
    Attempt("load what is saved without a sandbox", weaker, "refused"),
    Attempt("load what is saved in a weaker tier", lower_tier, "refused", tiers=(1,)),
    Attempt("commit for another session", forged_rows, "its own only"),
    Attempt("send what is never committed", expanding, "not kept"),
)
GROUPS = {"checkpoints": CHECKPOINTS}
