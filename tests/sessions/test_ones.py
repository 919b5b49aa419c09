"""What a session changed in an object that a library has one of comes back in it, whatever the method was called."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kernelrepl.kernel.process import Launcher
from kernelrepl.kernel.zygote import Zygote
from kernelrepl.sessions.confinement import base_environment
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

LIBRARY = """
import collections, threading, socket

class Shop:
    def __init__(self):
        self.rows, self.at, self.owner, self.guard = [], 0, None, threading.Lock()
        self.key = lambda x: x
    def note(self, row): self.rows.append(row)
    def advance(self): self.at += 1
    def drop(self): del self.at
    def take(self, owner): self.owner = owner

shop = Shop()
shop.self = shop
rows_of_shop = shop.rows

class Slots:
    __slots__ = ("level", "_Slots__hidden", "names")
    def __init__(self): self.level, self.__hidden = 1, 0
    def feed(self, name): self.level += 1; self.__hidden += 1; self.names = [name]
    def show(self): return self.level, self.__hidden, getattr(self, "names", None)

slots = Slots()

class Made:
    def __new__(cls, name): made = super().__new__(cls); made.name = name; made.fed = 0; return made
    def __getnewargs__(self): return (self.name,)
    def feed(self): self.fed += 1

made = Made("one")

class Keyed:
    def __new__(cls, *, name): made = super().__new__(cls); made.name = name; made.fed = 0; return made
    def __getnewargs_ex__(self): return (), {"name": self.name}
    def feed(self): self.fed += 1

keyed = Keyed(name="one")

class Said:
    def __init__(self): self.fed, self.line = 0, (x for x in "ab")
    def __getstate__(self): return {"fed": self.fed}
    def feed(self): self.fed += 1

said = Said()

class Told:
    def __init__(self): self.fed, self.line = 0, (x for x in "ab")
    def __getstate__(self): return self.fed
    def __setstate__(self, fed): self.fed, self.line = fed, None
    def feed(self): self.fed += 1

told = Told()

class Named:
    def __init__(self): self.fed = 0
    def __reduce__(self): return "named"
    def feed(self): self.fed += 1

named = Named()

class Called:
    def __init__(self): self.fed = 0
    def __reduce__(self): return get_called, ()
    def feed(self): self.fed += 1

called = Called()
def get_called(): return called

class Table(dict):
    def __init__(self, *given): super().__init__(*given); self.log = []
    def __setitem__(self, key, value):
        if key in self: raise KeyError("it is there")
        super().__setitem__(key, value)
    def note(self, key, value): self[key] = value; self.log.append(key)
    def drop(self, key): del self[key]

table = Table({"a": 1, "b": 2})

class Row(list):
    def note(self, item): self.insert(0, item)

row = Row(["z"])

class Names(set):
    def note(self, name): self.add(name); self.discard("z")

names = Names({"z"})

class Line(collections.deque):
    def note(self, item): self.appendleft(item)

line = Line("z")

class Order(collections.OrderedDict):
    def advance(self): self.move_to_end("a")

order = Order(a=1, b=2)

class Inner:
    def __init__(self): self.fed = 0

class Outer:
    def __init__(self): self.inner, self.pair = Inner(), {"shop": shop}
    def feed(self): self.inner.fed += 1; self.pair["shop"].note("fed")

outer = Outer()
inner_of_outer = [outer.inner]

class Wire:
    def __init__(self): self.sent, self.plug = [], None
    def feed(self, what): self.sent.append(what)
    def advance(self): self.plug = socket.socket(socket.AF_UNIX)

wire = Wire()
wire.open = (x for x in "ab")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a library that is no file of the session's."""
    place = tmp_path / "installed"
    place.mkdir()
    place.joinpath("stock.py").write_text(LIBRARY)
    return place


@pytest.fixture
async def launcher(place: Path) -> AsyncIterator[Launcher]:
    """Kernels are forked from a process that finds the library, and has not loaded it."""
    environment = {**base_environment(os.environ, Path("/tmp")), "PYTHONPATH": str(place)}
    zygote = await Zygote.start(sys.executable, environment, ())
    yield zygote.fork
    zygote.close()


@pytest.fixture(autouse=True)
def library(sessions: Sessions, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels find the library."""
    confinement = sessions.manager.confinement
    environment = {**confinement.environment, "PYTHONPATH": str(place)}
    monkeypatch.setattr(sessions.manager, "confinement", dataclasses.replace(confinement, environment=environment))


KINDS = {
    "attributes": ("shop", "shop.note('x'); shop.advance()", "shop.rows, shop.at, shop.self is shop, shop.key(1)"),
    "slots": ("slots", "slots.feed('x')", "slots.show()"),
    "arguments": ("made", "made.feed()", "made.name, made.fed"),
    "named arguments": ("keyed", "keyed.feed()", "keyed.name, keyed.fed"),
    "a state": ("said", "said.feed()", "said.fed, type(said.line).__name__"),
    "a state of its own": ("told", "told.feed()", "told.fed"),
    "a name": ("named", "named.feed()", "named.fed"),
    "a function that returns it": ("called", "called.feed()", "called.fed"),
    "dict": ("table", "table.note(len(table), 'x')", "dict(table), table.log"),
    "list": ("row", "row.note('x')", "list(row)"),
    "set": ("names", "names.note(len(names) + 5)", "sorted(names)"),
    "deque": ("line", "line.note('x')", "list(line)"),
    "order": ("order", "order.advance()", "list(order)"),
    "objects in it": ("outer", "outer.feed()", "outer.inner.fed, outer.pair['shop'] is stock.shop"),
    "parts that cannot be saved": ("wire", "wire.feed('x')", "wire.sent, type(wire.open).__name__"),
}
BINDS = {
    "from import": "from stock import {0}\nimport stock",
    "later": "import stock\n0",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", BINDS)
async def test_what_a_method_changed_comes_back(sessions: Sessions, first: str) -> None:
    """It is killed after the change, and again after another change of what was restored."""
    for name, *_ in KINDS.values():
        await sessions.run(BINDS[first].format(name), name)
        if first == "later":
            await sessions.run(f"from stock import {name}", name)
    wrong = []
    for name, change, check in KINDS.values():
        for step in (1, 2):
            await sessions.run(change, name)
            before = await sessions.value(check, name)
            await sessions.kill(name)
            execution = await sessions.run(f"({check}), {name} is stock.{name}", name)
            if execution.output.result != f"({before}, True)":
                wrong.append(f"{name}, {step}: {before}: {execution.output.result or execution.output.error}")
    assert not wrong, "\n".join(wrong)


async def test_what_is_changed_by_the_code_that_loads_the_library_comes_back(sessions: Sessions) -> None:
    """In one statement with it, and in the same cell, through a module and through a function of the session."""
    await sessions.run("if True:\n    from stock import shop, made\n    shop.note('x')\nmade.feed()")
    await sessions.run("import stock\ndef go(): stock.slots.feed('x')\ngo()\nfrom stock import slots")
    await sessions.kill()
    assert await sessions.value("shop.rows, made.fed, slots.show(), stock.slots is slots") == (
        "(['x'], 1, (2, 1, ['x']), True)"
    )


async def test_what_was_not_changed_stays_the_librarys_own(sessions: Sessions) -> None:
    """Parts that the library holds elsewhere too, what cannot be pickled, and what it holds no more."""
    await sessions.run("import stock\nfrom stock import shop, outer, wire")
    for step in (1, 2):
        await sessions.run("shop.note('x'); outer.feed(); outer.pair['new'] = 'y'")
        await sessions.run("hasattr(shop, 'at') and shop.drop()")
        await sessions.kill()
        assert await sessions.value("shop.rows is stock.rows_of_shop, len(shop.rows), hasattr(shop, 'at')") == (
            f"(True, {2 * step}, False)"
        )
        assert await sessions.value(
            "outer.inner is stock.inner_of_outer[0], outer.inner.fed, outer.pair['new'], next(wire.open)"
        ) == (f"(True, {step}, 'y', 'a')")


async def test_what_a_session_put_in_is_the_same_object(sessions: Sessions) -> None:
    """Under its own name and in what the library has one of: an instance, a list, a function."""
    await sessions.run(
        "from stock import shop, table, slots\nclass Own: pass\ndef f(): return own\nown, mine = Own(), []"
    )
    await sessions.run("shop.note(own); shop.take(mine); table.note('own', own); table.note('f', f); slots.feed(mine)")
    for step in (1, 2):
        await sessions.kill()
        await sessions.run("mine.append(1)")
        assert await sessions.value(
            "shop.rows[0] is own is table['own'], shop.owner is mine is slots.names[0], table['f'] is f, len(mine)"
        ) == (f"(True, True, True, {step})")


async def test_what_cannot_be_saved_is_told(sessions: Sessions) -> None:
    """It is a part that a method has made; the others are saved, and nothing is said of what is as it was."""
    execution = await sessions.run("from stock import wire, shop, told\nimport stock")
    assert not execution.not_saved
    execution = await sessions.run("wire.feed('x')")
    assert not execution.not_saved
    execution = await sessions.run("wire.advance()")
    assert [entry.name for entry in execution.not_saved] == ["wire.plug"]
    assert "connection" in execution.not_saved[0].reason
    await sessions.kill()
    execution = await sessions.run("wire.sent, wire.plug, wire is stock.wire")
    assert execution.output.result == "(['x'], None, True)"
    assert execution.restored is not None
    assert [entry.name for entry in execution.restored.not_restored] == ["wire.plug"]
    execution = await sessions.run("wire.feed('y')")
    assert not execution.not_saved


async def test_what_is_as_the_library_made_it_is_not_copied(sessions: Sessions) -> None:
    """Only its place is stored, also of one that is used, and after a restore."""
    await sessions.run("from stock import shop, made")
    await sessions.run("len(shop.rows), made.fed")
    copied = "SELECT COUNT(*) FROM components WHERE to_commit IS NULL AND instr(data, CAST('one_state' AS BLOB))"
    for _ in range(2):
        assert await sessions.rows(copied) == [(0,)]
        await sessions.kill()
        await sessions.run("len(shop.rows), made.fed")
    await sessions.run("shop.note('x')")
    assert await sessions.rows(copied) == [(1,)]


async def test_real_libraries_keep_what_their_methods_were_given(sessions: Sessions) -> None:
    """Of the standard library and others."""
    await sessions.run(
        "from mimetypes import init\nfrom requests.status_codes import codes\nfrom matplotlib.units import registry\n"
        "from email.headerregistry import HeaderRegistry\nfrom calendar import c as months\nimport calendar, requests"
    )
    await sessions.run("codes.__dict__.update(fine=299); months.setfirstweekday(6); registry.update({int: 'x'})")
    for _ in range(2):
        await sessions.kill()
        assert await sessions.value(
            "requests.codes.fine, requests.codes is codes, calendar.c.firstweekday, registry[int]"
        ) == ("(299, True, 6, 'x')")
        await sessions.run("vars(codes)['other'] = 1")
