"""Values whose own code raises whatever it is asked: the kernel lives, and nothing else is lost with them."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


ENDS = ("SystemExit", "KeyboardInterrupt", "Ends")
KINDS = {
    "an instance": "class Hostile:\n{body}\nvalue = Hostile()",
    "a class": "class Meta(type):\n{body}\nclass Hostile(metaclass=Meta): pass\nvalue = Hostile",
    "an instance of a class": "class Meta(type):\n{body}\nclass Hostile(metaclass=Meta): pass\nvalue = [Hostile()]",
    "a module": "import types\nclass Hostile(types.ModuleType):\n{body}\nvalue = Hostile('m')",
    "an exception": "class Hostile(Exception):\n{body}\nvalue = Hostile()",
    "a list": "class Hostile(list):\n{body}\nvalue = Hostile([1])",
    "what a generator holds": "class Hostile:\n{body}\ndef make():\n    held = Hostile()\n    yield held\n"
    "value = make(); next(value);",
    "a handler of a signal": "import _signal\nclass Hostile:\n    def __call__(self, *args): pass\n{body}\n"
    "value = Hostile(); _signal.signal(_signal.SIGUSR1, value);",
    "a handler of a log": "import logging\nclass Hostile(logging.Handler):\n{body}\nvalue = Hostile.__new__(Hostile)\n"
    "logging.getLogger('hostile').handlers.append(value)",
    "an attribute of a module": "import math\nclass Hostile:\n{body}\nvalue = Hostile(); math.hostile = value",
    "a stream": "import sys\nclass Hostile:\n{body}\nvalue = sys.stdout = Hostile()",
}
PROPERTIES = ("__module__", "__dict__", "__name__", "__class__", "__mro__", "__bases__", "__flags__", "__file__")
METHODS = ("__getattribute__", "__eq__", "__hash__", "__bool__", "__len__", "__reduce_ex__", "__instancecheck__")
BODIES = {name: f"    @property\n    def {name}(self): raise {{end}}" for name in PROPERTIES}
BODIES |= {name: f"    def {name}(self, *args): raise {{end}}" for name in METHODS}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_a_value_that_answers_nothing_costs_nothing_but_itself(sessions: Sessions, kind: str) -> None:
    """The kernel and all other variables are there after each; what was not saved is told."""
    await sessions.run("class Ends(BaseException): pass\ncount = [0]")
    wrong: list[tuple[object, ...]] = []
    for number, (name, body) in enumerate(BODIES.items(), 1):
        code = kind.format(body=body).replace("{end}", ENDS[number % len(ENDS)])
        first = await sessions.run(f"count.append({number})\n{code}")
        second = await sessions.run("keeps = [count, value]; del keeps")
        seen = await sessions.run("print(count[-1], file=__import__('sys').__stdout__)")
        if (first.status, second.status) != ("ok", "ok") or not (first.committed and second.committed):
            wrong.append((name, first.status, second.status, first.output.error or first.not_saved[:1]))
        if seen.output.stdout != f"{number}\n" or any(one.restored is not None for one in (first, second, seen)):
            wrong.append((name, seen.status, seen.output.stdout, first.note))
        await sessions.run(
            "import sys; sys.stdout = sys.__stdout__; del value; import math; vars(math).pop('hostile', 0)"
        )
        await sessions.run("import logging; logging.getLogger('hostile').handlers.clear()")
    assert wrong == []
    await sessions.kill()
    assert await sessions.value("count") == str([*range(len(BODIES) + 1)])


RAISED = ("__bool__", "__len__", "__eq__", "__str__", "__repr__", "__getattribute__")


@pytest.mark.parametrize("wrap", ["{}", "await __import__('asyncio').sleep(0)\n{}"])
async def test_an_error_that_answers_nothing_ends_its_cell_alone(sessions: Sessions, wrap: str) -> None:
    """Also where the event loop asks it, or its class, for what it is."""
    for name in RAISED:
        for base, of in (("Exception", "Hostile"), ("type", "Meta")):
            made = f"class {of}({base}):\n    def {name}(self, *args): raise SystemExit\n"
            made += "class Hostile(Exception, metaclass=Meta): pass\n" if base == "type" else ""
            execution = await sessions.run(wrap.format(f"{made}raise Hostile"))
            assert (execution.status, execution.committed) == ("error", True), (name, of, execution.note)
            assert (await sessions.run("1")).restored is None, (name, of)


async def test_a_task_that_ends_in_any_way_ends_itself_alone(sessions: Sessions) -> None:
    """The event loop stops for SystemExit and KeyboardInterrupt; the kernel goes on with it."""
    await sessions.run("import asyncio\nclass Ends(BaseException): pass")
    for end in ENDS:
        await sessions.run(f"async def work(): raise {end}\nasyncio.ensure_future(work());")
        for _ in range(2):
            assert (await sessions.run("await asyncio.sleep(0)")).restored is None, end
