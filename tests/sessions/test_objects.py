"""Objects of very many kinds, in one another and changed in place: after kill -9 each is equal, or was told before it.

The gate takes the same sample each time; `KERNELREPL_OBJECTS=all` tries every kind several times, and a number is
a seed of one's own. What needs a library that is not here is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import random
import re
import textwrap
import warnings
from typing import Any

import pytest

from kernelrepl.sessions.manager import Origin
from tests.conftest import Sessions
from tests.support.objects import DESCRIBE, KINDS, Kind

pytestmark = pytest.mark.anyio


ASKED = os.environ.get("KERNELREPL_OBJECTS", "")
DEFAULT_SEED = 1
"""The gate is the same each time: what others find is mended, and then told by a test of its own."""
TOGETHER = 8
"""Objects in one session: they hold each other."""
SAMPLE = 5
ROUNDS = 6
"""How often each kind, if all are asked for."""


def is_here(kind: Kind) -> bool:
    """Whether what a kind imports is installed."""
    tops = re.findall(r"^(?:import|from) (\w+)", kind.setup, re.MULTILINE)
    return all(importlib.util.find_spec(top) is not None for top in tops)


class Program:
    """Some objects that are made, changed in place and looked at."""

    def __init__(self, kinds: list[Kind], chance: random.Random) -> None:
        self.names = {f"v{number}": kind for number, kind in enumerate(kinds)}
        self._chance = chance
        setup = "\n".join(dict.fromkeys(kind.setup for kind in kinds if kind.setup))
        made = [f"{name} = {self._filled(kind.make, name)}" for name, kind in self.names.items()]
        changes = [self._filled(kind.change, name) for name, kind in self.names.items()]
        chance.shuffle(changes)
        self.cells = [setup, *made, *changes]

    def _filled(self, template: str, name: str) -> str:
        earlier = [other for other in self.names if int(other[1:]) < int(name[1:])]
        some = [self._chance.choice([*earlier, *earlier, "'t'", "7", "None", "[1]"]) for _ in "ab"]
        return template.format(v=name, a=some[0], b=some[1], n=self._chance.randrange(2, 9))

    def look(self, names: list[str]) -> str:
        """A cell that prints what objects say of themselves."""
        looks = ", ".join(
            f"{name!r}: ({name}, lambda: {self.names[name].look.format(v=name, a=0, b=0, n=0)})" for name in names
        )
        return f"{DESCRIBE}\nimport json\nprint(json.dumps(_describe({{{looks}}})))\ndel _describe, json"

    def plain(self, names: list[str]) -> dict[str, str]:
        """What they say where nothing is killed, in a namespace that is no session."""
        space: dict[str, Any] = {"__name__": "__main__"}
        shown = io.StringIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for cell in self.cells:
                exec(compile(cell, "<cell>", "exec"), space)
            with contextlib.redirect_stdout(shown):
                exec(compile(self.look(names), "<look>", "exec"), space)
        found: dict[str, str] = json.loads(shown.getvalue())
        return found


async def what_is_wrong(sessions: Sessions, session: str, program: Program) -> list[str]:
    """What differs after a kill, of what nobody was told about."""
    unsaved: dict[str, str] = {}
    for cell in program.cells:
        execution = await sessions.run(cell, session)
        if execution.output.error is not None:
            return [f"{cell}: {execution.output.error}"]
        saved = execution.saved
        for name in (*saved.created, *saved.changed, *saved.deleted):
            unsaved.pop(name, None)
        unsaved |= {entry.name: entry.reason for entry in execution.not_saved}
    names = [name for name in program.names if name not in unsaved]
    await sessions.kill(session)
    execution = await sessions.run(program.look(names), session)
    if execution.output.error is not None:
        return [f"{execution.output.error}; told were {unsaved}"]
    there, here = json.loads(execution.output.stdout), program.plain(names)
    wrong = [
        f"{name} ({program.names[name].name}): {here[name]}, then {there[name]}"
        for name in names
        if there[name] != here[name]
    ]
    return wrong


async def test_objects_are_equal_after_a_kill_or_were_told_before_it(sessions: Sessions) -> None:
    """With all that they hold, whichever of them was changed last."""
    seed = int(ASKED) if ASKED.isdigit() else DEFAULT_SEED
    print(f"seed {seed}: KERNELREPL_OBJECTS={seed} is the same again")
    chance = random.Random(seed)
    here = [kind for kind in KINDS if is_here(kind)]
    groups: list[list[Kind]] = []
    for _ in range(ROUNDS if ASKED == "all" else 1):
        chance.shuffle(here)
        groups += [here[start : start + TOGETHER] for start in range(0, len(here), TOGETHER)]
    if ASKED != "all":
        groups = groups[:SAMPLE]
    found = []
    for number, kinds in enumerate(groups):
        program = Program(kinds, chance)
        wrong = await what_is_wrong(sessions, f"o{number}", program)
        await sessions.manager.delete(f"o{number}", Origin())
        if wrong:
            cells = textwrap.indent("\n".join(program.cells), "    ")
            found.append("\n".join([*wrong, cells]))
    assert not found, "\n\n".join(found)
