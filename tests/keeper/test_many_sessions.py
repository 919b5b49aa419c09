"""Many more sessions than kernels, in random order, with random cells and kills: every reply is right, nothing is left.

`KERNELREPL_SESSIONS=500 KERNELREPL_LIVE=20 python -m pytest tests/keeper/test_many_sessions.py` is the long run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from dataclasses import dataclass, field

import psutil
import pytest
from mcp import Client

from kernelrepl.client import connection as client
from tests.conftest import assert_nothing_left, end_keeper
from tests.support.mcp_hosts import Place, call, host, refusal

pytestmark = pytest.mark.anyio

SESSIONS = int(os.environ.get("KERNELREPL_SESSIONS", "40"))
LIVE = int(os.environ.get("KERNELREPL_LIVE", "5"))
CLIENTS = 4
CALLS_EACH = 4


@dataclass
class Model:
    """What a session must have."""

    x: int = 0
    items: list[int] = field(default_factory=list)
    added: int | None = None
    exists: bool = False
    free: asyncio.Lock = field(default_factory=asyncio.Lock)

    def forget(self) -> None:
        self.x, self.items, self.added = 0, [], None


class Player:
    """One client that does this and that."""

    def __init__(self, client: Client, operator: Client, rng: random.Random) -> None:
        self._client = client
        self._operator = operator
        self._rng = rng

    async def play(self, name: str, model: Model) -> None:
        acts = [self._count, self._collect, self._define, self._use, self._fail, self._look, self._kill, self._once]
        if model.exists:
            acts += [self._use, self._look, self._clear, self._delete]
        await self._rng.choice(acts)(name, model)

    async def _run(self, name: str, model: Model, code: str, result: object = None, status: str = "ok") -> None:
        reply = await call(self._client, "python_repl", code=code, session_id=name)
        shown = None if result is None else repr(result)
        assert (reply["status"], reply["result"]) == (status, shown), (name, code, reply)
        assert reply["committed"]
        assert not reply["not_saved"]
        model.exists = True

    async def _count(self, name: str, model: Model) -> None:
        before = f"x = {model.x}\n" if not model.x else ""
        model.x += 1
        await self._run(name, model, f"{before}x += 1\nx", model.x)

    async def _collect(self, name: str, model: Model) -> None:
        number = self._rng.randrange(1000)
        before = "" if model.items else "items = []\nalias = items\n"
        model.items.append(number)
        await self._run(name, model, f"{before}alias.append({number})\nitems", model.items)

    async def _define(self, name: str, model: Model) -> None:
        model.added = self._rng.randrange(1000)
        await self._run(name, model, f"def f(y):\n    return y + {model.added} + globals().get('x', 0)")

    async def _use(self, name: str, model: Model) -> None:
        if model.added is None:
            await self._run(name, model, "'f' in globals()", False)
        else:
            await self._run(name, model, "f(1)", 1 + model.added + model.x)

    async def _fail(self, name: str, model: Model) -> None:
        """What was changed before the error is kept."""
        before = "" if model.items else "items = []\nalias = items\n"
        model.items.append(-1)
        await self._run(name, model, f"{before}items.append(-1)\n1/0", status="error")

    async def _look(self, name: str, model: Model) -> None:
        if not model.exists:
            assert name in await refusal(self._client, "python_list_variables", session_id=name)
            return
        listed = await call(self._client, "python_list_variables", session_id=name)
        expected = {"x": model.x, "items": model.items, "alias": model.items, "f": model.added is not None}
        assert {v["name"] for v in listed["variables"]} == {key for key, there in expected.items() if there}
        assert all(variable["saved"] for variable in listed["variables"])

    async def _kill(self, name: str, model: Model) -> None:
        """The kernel, if it has one right now, at rest: nobody is to notice."""
        kernels = await self.kernels()
        if name in kernels:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(kernels[name]).kill()
        await self._run(name, model, "globals().get('x', 0)", model.x)

    async def kernels(self) -> dict[str, int]:
        found: dict[str, int] = (await call(self._operator, "keeper_status"))["kernels"]
        return found

    async def _once(self, name: str, model: Model) -> None:
        number = self._rng.randrange(1000)
        reply = await call(self._client, "python_repl", code=f"'x' in globals(), {number}")
        assert reply["result"] == repr((False, number))

    async def _clear(self, name: str, model: Model) -> None:
        await call(self._client, "python_clear_session", session_id=name)
        model.forget()

    async def _delete(self, name: str, model: Model) -> None:
        await call(self._client, "python_delete_session", session_id=name)
        model.forget()
        model.exists = False


async def test_many_sessions_over_few_kernels(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client picks sessions at random; a session has one call at a time, or nobody could say what is right."""
    place = Place(environ)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # shown when it fails
    rng = random.Random(seed)
    models = {f"s{number}": Model() for number in range(SESSIONS)}
    todo = [name for name in models for _ in range(CALLS_EACH)]
    rng.shuffle(todo)
    environ |= {"KERNELREPL_MAX_LIVE": str(LIVE), "KERNELREPL_STANDBY": "2", "KERNELREPL_WARM_START": "on"}
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)

    async def play(seed: int) -> None:
        async with host(environ) as connected, client.connect(operator=True) as operator:
            player = Player(connected, operator, random.Random(seed))
            while todo:
                name = todo.pop()
                async with models[name].free:
                    await player.play(name, models[name])
                assert len(await player.kernels()) <= LIVE

    await asyncio.gather(*(play(rng.randrange(1 << 30)) for _ in range(CLIENTS)))
    async with host(environ) as connected, client.connect(operator=True) as operator:
        player = Player(connected, operator, rng)
        for name, model in models.items():
            await player._look(name, model)
            if model.exists:
                await player._use(name, model)
        tree = [place.keeper, *place.keeper.children(recursive=True)]
    await asyncio.to_thread(end_keeper, place.data_dir)
    _, alive = await asyncio.to_thread(psutil.wait_procs, tree, 10)
    assert not alive
    assert_nothing_left(place.data_dir)
    assert {path.name for path in place.runtime_dir.iterdir()} <= {"sandbox.json", "ipython"}
    kept = {name for (name,) in place.rows("SELECT workspace FROM sessions")}
    assert {path.name for path in (place.data_dir / "workspaces").iterdir()} == kept
    assert len(kept) == sum(model.exists for model in models.values())
