"""Large data is loaded when a cell could touch it, or when nothing runs; nobody can tell otherwise."""

from __future__ import annotations

import asyncio
import os

import pytest

from kernelrepl.errors import StorageFailed
from kernelrepl.guest import wire
from kernelrepl.model import Limits
from kernelrepl.store.database import Database
from kernelrepl.store.publish import DIGEST_BYTES, put_chunks
from tests.conftest import Sessions, change

pytestmark = pytest.mark.anyio


SETUP = """
import numpy as np
big = np.arange(400_000.0)
part = big[10:20]
rows = [{'n': n, 'text': str(n)} for n in range(60_000)]
small = 7
def total(): return float(big.sum())
class Holder:
    def total(self): return total()
holder = Holder()
text = 'len(rows)'
"""


def waiting(sessions: Sessions) -> int:
    """How many components the kernel has not asked for."""
    kernel = sessions.manager.loaded()["s"].slot.kernel
    assert kernel is not None
    return len(kernel._delivery._later)


async def restarted(sessions: Sessions, setup: str = SETUP, first: str = "small") -> None:
    """A session that has been killed and restored, and has not loaded its two large components."""
    execution = await sessions.run(setup)
    assert execution.status == "ok", execution.output.error
    await sessions.kill()
    execution = await sessions.run(first)
    assert execution.status == "ok", execution.output.error
    assert execution.restored is not None
    assert {"big", "part", "rows", "small"} <= set(execution.restored.names)
    assert not execution.restored.not_restored
    assert waiting(sessions) == 2


@pytest.mark.parametrize(
    ("code", "expected", "left"),
    [
        ("small + 1", "8", 2),
        ("small = 8; small", "8", 2),
        ("np.ones(2).sum().item()", "2.0", 2),
        ("float(big.sum())", "79999800000.0", 1),
        ("float(part[0])", "10.0", 1),
        ("part.base is big", "True", 1),
        ("total()", "79999800000.0", 1),
        ("holder.total()", "79999800000.0", 1),
        ("[f() for f in [total]]", "[79999800000.0]", 1),
        ("rows[3]['text']", "'3'", 1),
        ("eval(text)", "60000", 0),
        ("'rows' in globals(), 'big' in dir()", "(True, True)", 0),
        ("import __main__\n__main__.rows[2]['n']", "2", 0),
        ("import pandas as pd\npd.DataFrame({'n': [1, 5]}).query('n < @part[0] and n > 1').n.tolist()", "[5]", 0),
        ("get_ipython().user_ns['rows'][1]['n']", "1", 0),
        ("try:\n    rows\nexcept NameError:\n    print('lost')\nlen(rows)", "60000", 1),
        ("async def f(): return len(rows)\nawait f()", "60000", 1),
        ("%time len(rows)", "60000", 0),
        ("del rows\n'rows' in globals()", "False", 0),
    ],
)
async def test_a_cell_finds_whatever_it_could_touch(sessions: Sessions, code: str, expected: str, left: int) -> None:
    """And does not wait for the rest."""
    await restarted(sessions)
    assert await sessions.value(code) == expected
    assert waiting(sessions) == left


async def test_what_waits_is_loaded_while_nothing_runs(sessions: Sessions) -> None:
    """And then changes to it are found."""
    await restarted(sessions)
    async with asyncio.timeout(30):
        while waiting(sessions):
            await asyncio.sleep(0.05)
    execution = await sessions.run("part[0] = -1; rows[5]['n'] = None; kept = rows")
    assert set(execution.saved.changed) == {"big", "part", "rows"}
    await sessions.kill()
    assert await sessions.value("big[10].item(), rows[5], kept is rows") == "(-1.0, {'n': None, 'text': '5'}, True)"


async def test_what_was_loaded_late_is_stored_as_it_was(sessions: Sessions) -> None:
    """A cell that only reads it writes nothing, and one that changes a little writes little."""
    await restarted(sessions)
    [[before]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    execution = await sessions.run("float(big.sum()), len(rows)")
    assert not execution.saved.changed
    assert not execution.saved.created
    [[after]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    assert after == before
    execution = await sessions.run("big[10] = 5")
    assert set(execution.saved.changed) == {"big", "part"}
    [[after]] = await sessions.rows("SELECT COUNT(*) FROM chunks")
    assert after - before <= 2


async def test_changes_are_kept_while_others_wait(sessions: Sessions) -> None:
    """Through several lives, without ever loading what is not needed."""
    await restarted(sessions, first="small = 1; more = [small]")
    await sessions.kill()
    assert await sessions.value("small = 2; more.append(small); more") == "[1, 2]"
    assert waiting(sessions) == 2
    await sessions.manager.loaded()["s"].hibernate()
    assert await sessions.value("more") == "[1, 2]"
    assert waiting(sessions) == 2
    assert await sessions.value("total(), len(rows)") == "(79999800000.0, 60000)"


async def test_a_name_can_be_bound_anew_or_deleted_before_anybody_has_read_it(sessions: Sessions) -> None:
    """The old value does not come back."""
    await restarted(sessions)
    execution = await sessions.run("rows = 1")
    assert execution.saved.changed == ("rows",)
    execution = await sessions.run("del big")
    assert execution.saved.deleted == ("big",)
    await sessions.kill()
    assert await sessions.value("rows, len(part), 'big' in globals()") == "(1, 10, False)"


async def test_the_last_result_may_be_large_and_wait_as_well(sessions: Sessions) -> None:
    """`_` is overwritten by whatever comes next; the value stays under its other name."""
    await restarted(sessions, SETUP + "\nrows")
    assert await sessions.value("_") == "7"
    await sessions.kill()
    assert await sessions.value("_") == "7"
    assert await sessions.value("len(rows)") == "60000"


async def test_the_last_result_alone_waits_until_it_is_named(sessions: Sessions) -> None:
    """It has no other name."""
    await sessions.run("['x' * 10 + str(n) for n in range(100_000)]")
    await sessions.kill()
    await sessions.run("1; None")
    assert waiting(sessions) == 1
    assert await sessions.value("len(_)") == "100000"


async def test_what_waits_counts_for_the_limit_of_a_session(sessions: Sessions) -> None:
    """It is part of it."""
    limits = Limits(9_000_000, 9_000_000)
    await sessions.run(SETUP, limits=limits)
    await sessions.kill()
    execution = await sessions.run("more = bytes(range(256)) * 20_000", limits=limits)
    assert waiting(sessions) == 2
    assert [entry.name for entry in execution.not_saved] == ["more"]


def begin(db: Database, start: bytes) -> None:
    """Let all that is in chunks begin with other bytes, as if it had been stored so."""
    for row, digests in db.execute("SELECT id, digests FROM components WHERE digests IS NOT NULL").fetchall():
        ((piece,),) = db.execute("SELECT data FROM chunks WHERE digest = ?", [digests[:DIGEST_BYTES]]).fetchall()
        [(digest, _)] = put_chunks(db, [memoryview(start + piece[len(start) :])])
        db.execute("UPDATE components SET digests = ? WHERE id = ?", [digest + digests[DIGEST_BYTES:], row])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (b"\x00", "loading it failed with UnpicklingError"),
        ("UPDATE chunks SET data = zeroblob(length(data))", wire.DAMAGED),
        ("DELETE FROM chunks", "its bytes are missing from the store"),
    ],
)
async def test_what_cannot_be_loaded_late_is_told_and_costs_nothing_else(
    sessions: Sessions, damage: str | bytes, reason: str
) -> None:
    """In the reply of the cell that needed it, and by every later use of its name."""
    await sessions.run("rows = ['x' * 10 + str(n) for n in range(100_000)]; small = 7")
    await sessions.kill()
    await change(sessions.store, lambda db: begin(db, damage) if isinstance(damage, bytes) else db.execute(damage))
    older = "UPDATE components SET packages = json_set(packages, '$.numpy', '1.0.0')"
    await change(sessions.store, lambda db: db.execute(older))
    execution = await sessions.run("small")
    assert execution.output.result == "7"
    execution = await sessions.run("print(small); rows")
    assert execution.output.stdout == "7\n"
    assert execution.output.error is not None
    assert execution.output.error.name == "NameError"
    assert reason in execution.output.error.message
    assert execution.restored is not None
    assert [entry.name for entry in execution.restored.not_restored] == ["rows"]
    assert ("it was saved with numpy 1.0.0, here is " in execution.output.error.message) == ("failed with" in reason)
    [[live]] = await sessions.rows("SELECT COUNT(*) FROM names WHERE name = 'rows' AND to_commit IS NULL")
    assert live == 1
    assert await sessions.value("rows = 2; rows + small") == "9"
    await sessions.kill()
    assert await sessions.value("rows") == "2"


async def test_objects_of_the_session_s_own_classes_do_not_wait(sessions: Sessions) -> None:
    """Loading them may run code of the session."""
    await sessions.run("class Item:\n    def __init__(self, n): self.n = n\nitems = [Item(n) for n in range(60_000)]")
    await sessions.kill()
    await sessions.run("1")
    assert waiting(sessions) == 0
    assert await sessions.value("items[9].n") == "9"


async def test_a_kernel_that_dies_twice_while_it_loads_a_value_late_skips_it_then(sessions: Sessions) -> None:
    """Each time the cell has crashed; after that its name tells why."""
    await sessions.run("rows = ['x' * 10 + str(n) for n in range(100_000)]; small = 7")
    await sessions.kill()
    await change(sessions.store, lambda db: begin(db, b"cos\nabort\n(tR."))
    for _ in range(2):
        assert (await sessions.run("small")).output.result == "7"
        assert (await sessions.run("rows")).status == "crashed"
    execution = await sessions.run("small")
    assert execution.output.result == "7"
    assert execution.restored is not None
    assert [entry.name for entry in execution.restored.not_restored] == ["rows"]
    assert "died while loading it" in execution.restored.not_restored[0].reason


async def test_what_cannot_be_read_now_can_be_read_by_the_next_kernel(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that needs it gets an answer, whatever happens in the keeper."""
    await sessions.run("rows = ['x' * 10 + str(n) for n in range(100_000)]; small = 7")
    await sessions.kill()
    await sessions.run("small")

    def fail(*_: object) -> object:
        raise StorageFailed("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(sessions.store, "missing", fail)
        execution = await sessions.run("len(rows)")
        assert execution.output.error is not None
        assert "could not be read from the store: the disk is gone" in execution.output.error.message
        await sessions.kill()
        with pytest.raises(StorageFailed, match="the disk is gone"):
            await sessions.run("small")
    assert await sessions.value("len(rows) + small") == "100007"


async def test_nothing_is_kept_of_what_has_been_delivered(sessions: Sessions) -> None:
    """The window takes no memory between deliveries."""
    await restarted(sessions)
    kernel = sessions.manager.loaded()["s"].slot.kernel
    assert kernel is not None
    for code in ("small", "total()", "len(rows)"):
        await sessions.run(code)
        async with asyncio.timeout(10):
            while os.fstat(kernel._delivery._window._file).st_blocks:
                await asyncio.sleep(0.01)
