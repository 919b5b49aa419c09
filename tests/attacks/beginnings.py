"""Attempts to have code run in a process that is to become a kernel, before it is confined."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from kernelrepl.errors import AccessRefused, KernelReplError
from kernelrepl.sessions.confinement import base_environment
from kernelrepl.workspaces import removal
from tests.attacks.arena import Arena
from tests.attacks.as_user import ROOT
from tests.attacks.attempt import THROUGH, Attempt

PLANT = """
import os
code = "try:\\n    open({marker!r}, 'w').close()\\nexcept OSError:\\n    pass\\n"
for place in {places!r}:
    for name in ("sitecustomize", "usercustomize", "runpy", "ctypes", "socket", "zmq"):
        open(f"{{place}}/{{name}}.py", "w").write(code)
        os.makedirs(f"{{place}}/{{name}}", exist_ok=True)
        open(f"{{place}}/{{name}}/__init__.py", "w").write(code)
    open(f"{{place}}/bait.pth", "w").write("import sitecustomize")
"""


def led_by(arena: Arena, path: str) -> None:
    """Give the kernels of this keeper such a PYTHONPATH."""
    confinement = arena.manager.confinement
    environment = base_environment({**os.environ, "PYTHONPATH": path}, arena.manager.data_dir.parent / "cache")
    arena.manager.confinement = replace(confinement, environment=environment)


async def began(arena: Arena, places: list[str]) -> str:
    """Plant code in these places; what came of it when the next kernel has started."""
    marker = arena.manager.data_dir.parent / "began"
    planted = await arena.sessions.run(PLANT.format(places=places, marker=str(marker)))
    if planted.status != "ok":
        return f"not planted: {planted.output.error}"
    await arena.sessions.kill()
    with contextlib.suppress(KernelReplError):  # what was planted may keep it from starting
        await arena.sessions.run("1")
    return THROUGH if marker.exists() else "not run"


async def in_the_workspace(arena: Arena) -> str:
    """An entry of PYTHONPATH that is empty, or leads from wherever one is, is none."""
    led_by(arena, f":relative:.:{ROOT}")
    return await began(arena, ["."])


async def in_a_grant(arena: Arena) -> str:
    """A folder that Python looks into is not granted to write to."""
    place = tempfile.mkdtemp(prefix="kr-grant-", dir="/tmp")
    try:
        Path(place).chmod(0o777)
        led_by(arena, f"{place}:{ROOT}")
        try:
            await arena.sessions.run("1", write=(place,))
        except AccessRefused:
            return "refused"
        return await began(arena, [place])
    finally:
        removal.remove(Path(place))


async def in_the_installation(arena: Arena) -> str:
    """Nor is what the keeper itself, or a kernel, has its code from."""
    said: list[str] = []
    for place in (ROOT, ROOT / "kernelrepl" / "guest", Path(os.__file__).parent, Path(os.__file__).parents[2]):
        try:
            await arena.sessions.run("1", f"s-{len(said)}", write=(str(place),))
            said.append(f"{THROUGH}: {place}")
        except AccessRefused:
            said.append("refused")
    return next((one for one in said if one != "refused"), "refused")


BEGINNINGS = (
    Attempt("code that begins with the next kernel", in_the_workspace, "not run"),
    Attempt("code in a grant that Python looks into", in_a_grant, "refused"),
    Attempt("a grant of the installation", in_the_installation, "refused"),
)
GROUPS = {"beginnings": BEGINNINGS}
