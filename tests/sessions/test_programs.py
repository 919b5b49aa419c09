"""Random programs do not notice kills: values and aliases are as in a plain namespace that nothing interrupts."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import textwrap
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kernelrepl.sessions.manager import Origin
from tests.conftest import Sessions
from tests.support.programs import NAMES, Reference, program

pytestmark = pytest.mark.anyio


TIMES = int(os.environ.get("KERNELREPL_EXAMPLES", "1"))
"""How many times the examples of the gate; more than once they are other ones each time."""
NUMBERS = itertools.count()


def examples(count: int) -> settings:
    """Settings for so many real kernels."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        phases=[Phase.generate] if TIMES == 1 else [Phase.generate, Phase.shrink],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )


@st.composite
def programs(draw: st.DrawFn, most_cells: int = 12) -> list[str]:
    """Cells that name little and alias much."""
    return program(lambda options: draw(st.sampled_from(options)), most_cells)


DESCRIBE = textwrap.dedent("""
    def _describe(space, names):
        import collections, functools, gc, itertools, sys, types, zlib
        np, pd = sys.modules.get("numpy"), sys.modules.get("pandas")
        labels, arrays, tuples, late = {}, [], {}, []
        atoms = (bool, int, float, complex, str, bytes, type(None), *((np.generic,) if np else ()))
        views = (type({}.keys()), type({}.values()), type({}.items()),
                 type(collections.OrderedDict().keys()), type(collections.OrderedDict().items()))
        wrappers = (property, staticmethod, classmethod)
        hidden = ("__module__", "__dict__", "__weakref__", "__doc__", "__slotnames__", "__qualname__",
                  "__static_attributes__", "__firstlineno__")

        def code(value):
            parts = [code(each) if isinstance(each, types.CodeType) else repr(each) for each in value.co_consts]
            return zlib.crc32(repr((value.co_names, value.co_varnames, parts)).encode())

        def walk(value):
            kind = type(value)
            if kind in atoms or np and isinstance(value, np.generic):
                return repr(value)
            if kind in (tuple, frozenset):  # has no identity of its own; the third visit is as the second
                visits, _, text = tuples.get(id(value), (0, value, ""))
                if visits < 2:
                    items = [walk(item) for item in value]
                    text = str(tuple(items if kind is tuple else ["frozen", *sorted(items)])).replace("'", "")
                    tuples[id(value)] = visits + 1, value, text
                return text
            if kind in (types.BuiltinFunctionType, types.MethodWrapperType):
                own = value.__self__
                return f"{value.__name__} of {walk(own)}"
            if kind is types.MethodType:
                return f"method {walk(value.__func__)} of {walk(value.__self__)}"
            if kind in views:
                return f"{kind.__name__} of {walk(gc.get_referents(value)[0])}"
            if kind in (types.ModuleType, types.MemberDescriptorType, types.MethodDescriptorType):
                return f"{kind.__name__} {value.__name__}"
            if isinstance(value, type) and value.__module__ != "__main__":
                return f"class {value.__name__}"
            if id(value) in labels:
                return labels[id(value)][0]
            label = f"#{len(labels)}"
            labels[id(value)] = label, value
            return f"{label} {kind.__name__}: {parts(value, kind)}"

        def listed(values):
            return "[" + short(", ".join(map(walk, values))) + "]"

        def pairs(items):
            return "{" + short(", ".join(f"{walk(key)}: {walk(item)}" for key, item in items)) + "}"

        def short(text):
            return text if len(text) < 2000 else f"{text[:200]} ... {zlib.crc32(text.encode())}"

        def parts(value, kind):
            if isinstance(value, types.FunctionType):
                cells = []
                for cell in value.__closure__ or ():
                    known = id(cell) in labels
                    label = labels.setdefault(id(cell), (f"#{len(labels)}", cell))[0]
                    cells.append(label if known else f"{label} {walk(cell.cell_contents)}")
                named = value.__qualname__, code(value.__code__), value.__globals__ is space
                rest = value.__defaults__, tuple((value.__kwdefaults__ or {}).items())
                return f"{named} {cells} {walk(rest)} {pairs(vars(value).items())}"
            if isinstance(value, type):
                kept = [(key, item) for key, item in vars(value).items() if key not in hidden]
                return f"{value.__qualname__} {listed(value.__bases__)} {pairs(kept)}"
            if isinstance(value, wrappers):
                return walk(value.fget if kind is property else value.__func__)
            if isinstance(value, functools.partial):
                return f"{walk(value.func)} {walk(value.args)} {pairs(value.keywords.items())}"
            if hasattr(value, "cache_parameters"):
                return walk(value.__wrapped__)
            if np and kind is np.ndarray:
                arrays.append(value)
                cells = listed(value.ravel().tolist()) if value.dtype == object else value.tolist()
                return f"{value.dtype} {value.shape} {value.flags.writeable} {cells}"
            if pd and isinstance(value, (pd.DataFrame, pd.Series)):
                columns = value.items() if kind is pd.DataFrame else [(value.name, value)]
                texts = [(name, str(column.dtype), listed(column.tolist())) for name, column in columns]
                return f"{value.index.tolist()} {texts} {pairs(value.attrs.items())}"
            if isinstance(value, collections.abc.Iterator):
                late.append((label := f"<{len(late)}>", value))
                return label
            found = []
            if isinstance(value, (list, collections.deque)):
                found.append(listed(value))
            elif isinstance(value, dict):
                found.append(pairs(value.items()))
            elif isinstance(value, set):
                found.append(sorted(map(walk, value)))
            elif isinstance(value, bytearray):
                found.append(bytes(value))
            elif isinstance(value, BaseException):
                found.append(walk(value.args))
            elif not hasattr(value, "__dict__"):
                raise TypeError(f"no way to describe a {kind}")
            if isinstance(value, collections.deque):
                found.append(value.maxlen)
            if isinstance(value, collections.defaultdict):
                found.append(walk(value.default_factory))
            if kind.__module__ == "__main__":
                found.append(walk(kind))
                found += [walk(value.slot)] if hasattr(value, "slot") else []
            if getattr(value, "__dict__", None):
                found.append(pairs(vars(value).items()))
            return " ".join(map(str, found))

        lines = [f"{name}: {walk(space[name]) if name in space else None}" for name in names]
        for label, value in late:
            if isinstance(value, types.GeneratorType):
                lines.append(f"{label} {value.__name__} {value.gi_frame and value.gi_frame.f_lasti}")
                continue
            # An iterator that has ended is one that never began, over something of its own
            made = value.__reduce__()
            sources = [each for each in made[1] if isinstance(each, list)]
            if made[1] in (((),), ("",)) or any(not each and id(each) not in labels for each in sources):
                lines.append(f"{label} ended")
                continue
            at = [min(len(sources[0]), each) if sources and type(each) is int else each for each in made[2:]]
            lines.append(f"{label} {type(value).__name__} {walk(made[1])} {walk(tuple(at))}")
        for (i, one), (j, other) in itertools.combinations(enumerate(arrays), 2):
            if np.shares_memory(one, other):
                far = other.__array_interface__["data"][0] - one.__array_interface__["data"][0]
                lines.append(f"arrays {i} and {j}: {far} {one.strides} {other.strides}")
        return lines
""")
"""Numbers what can be changed at first sight, over the names in their order: the same text, the same aliases."""


class Twin:
    """A session and a plain namespace that run the same cells."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.name = f"program-{next(NUMBERS)}"
        self.plain = Reference()
        self.unsaved: set[str] = set()
        """Names that a reply said are not saved, and no later one said are."""
        self.story: list[str] = []

    async def run(self, cell: str) -> None:
        """Both must end with the same error, or none."""
        self.story.append(cell)
        execution = await self.sessions.run(cell, self.name)
        saved = execution.saved
        self.unsaved -= {*saved.created, *saved.changed, *saved.deleted}
        self.unsaved |= {entry.name for entry in execution.not_saved}
        error = execution.output.error
        assert self.plain.run(cell) == (error.name if error else ""), self.told(str(error))
        assert execution.committed, self.told(str(execution.note))

    async def kill(self) -> None:
        """kill -9; what was reported as not saved is gone from here on, and says so."""
        self.story.append("# kill -9")
        await self.sessions.kill(self.name)
        self.plain.kill(self.unsaved)
        for name in sorted(name for name in self.unsaved if "." not in name):  # of a module it is the module's error
            error = (await self.sessions.run(name, self.name)).output.error
            assert error is not None, self.told(f"{name} was reported as not saved, and is there")
            assert error.name == "NameError", self.told(str(error))
            assert "not saved" in error.message, self.told(str(error))
        self.unsaved = set()

    async def compare(self) -> None:
        """Every value and every alias."""
        code = f"{DESCRIBE}\nimport json\nprint(json.dumps(_describe(globals(), {NAMES})))\ndel _describe, json"
        execution = await self.sessions.run(code, self.name)
        assert execution.output.error is None, self.told(str(execution.output.error))
        there, here = json.loads(execution.output.stdout), self.described()
        assert there == here, self.told("\n".join(difflib.ndiff(here, there)))

    async def end(self) -> None:
        await self.sessions.manager.delete(self.name, Origin())

    def described(self) -> list[str]:
        helper: dict[str, Any] = {}
        exec(DESCRIBE, helper)
        return list(helper["_describe"](self.plain.space, NAMES))

    def told(self, what: str) -> str:
        """What is wrong, and the cells up to here."""
        cells = [f"# cell {number}\n{cell}" for number, cell in enumerate(self.story)]
        return "\n" + textwrap.indent("\n".join(cells), "    ") + f"\n(- plain, + session)\n{what}"


@pytest.mark.slow
@examples(12)
@given(cells=programs(most_cells=8), looks=st.lists(st.booleans(), min_size=9, max_size=9))
async def test_a_kill_after_each_cell_is_not_noticed(sessions: Sessions, cells: list[str], looks: list[bool]) -> None:
    """Each cell runs in a kernel that was restored from what the one before it committed."""
    twin = Twin(sessions)
    for cell, look in zip(cells, looks, strict=False):
        await twin.run(cell)
        await twin.kill()
        if look:
            await twin.compare()
    await twin.compare()
    await twin.end()


@pytest.mark.slow
@examples(40)
@given(cells=programs(), cut=st.integers(2, 12))
async def test_what_many_cells_changed_is_all_saved(sessions: Sessions, cells: list[str], cut: int) -> None:
    """One kill after some cells of one kernel: what each of them changed was seen. The rest runs as if nothing was."""
    twin = Twin(sessions)
    for cell in cells[:cut]:
        await twin.run(cell)
    await twin.kill()
    await twin.compare()
    for cell in cells[cut:]:
        await twin.run(cell)
    await twin.compare()
    await twin.end()
