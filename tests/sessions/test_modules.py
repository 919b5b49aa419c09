"""A name of a module means after a restore what it meant before, or the cell that made it mean that was told."""

from __future__ import annotations

import pytest

from kernelrepl.model import ExecutionResult
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


FILES = """
import sys, types, importlib
from pathlib import Path
Path('first.py').write_text('x = 1\\nclass Kind: pass\\ndef value(): return x\\n')
Path('second.py').write_text('x = 2\\nclass Kind: pass\\ndef value(): return x\\n')
Path('apart').mkdir()
Path('apart/first.py').write_text('x = 3\\n')
"""


def told(execution: ExecutionResult) -> dict[str, str]:
    """What is not saved, and why. Fails the test if the code failed."""
    assert execution.output.error is None, execution.output.error
    return {entry.name: entry.reason for entry in execution.not_saved}


@pytest.mark.parametrize(
    "swap",
    [
        "sys.modules['first'] = second",
        "sys.modules.update(first=second)",
        "loaded = sys.modules; loaded['first'] = second",
        "def swap(name, other): sys.modules[name] = other\nswap('first', second)",
    ],
)
async def test_a_module_in_the_place_of_another_is_there_again(sessions: Sessions, swap: str) -> None:
    """Whatever the code calls the table; what it has replaced is told where a name is bound to it."""
    await sessions.run(FILES + "import first, second; kind = first.Kind; made = kind()")
    assert "name is that of another by now" in told(await sessions.run(swap))["first"]
    await sessions.run("import first as now")
    for _ in range(2):
        await sessions.kill()
        assert await sessions.value(
            "now is second, sys.modules['first'] is second, now.value(), type(made) is kind"
        ) == ("(True, True, 2, True)")
        await sessions.run("made.note = 1")
    await sessions.run("del sys.modules['first']; import first")
    await sessions.kill()
    assert await sessions.value("first.x, first is not second, sys.modules['first'] is first") == "(1, True, True)"


async def test_an_object_in_the_place_of_a_module_is_there_again(sessions: Sessions) -> None:
    """Of a file of the session, with its state; None keeps others from importing it."""
    await sessions.run(FILES + "import first, second\nclass Fake:\n    x = 5")
    await sessions.run("sys.modules['first'] = fake = Fake(); sys.modules['second'] = None; import first")
    await sessions.run("fake.y = 6")
    await sessions.kill()
    assert await sessions.value("first is fake is sys.modules['first'], first.x, first.y, sys.modules['second']") == (
        "(True, 5, 6, None)"
    )


async def test_what_replaces_a_module_that_kernels_run_on_is_told(sessions: Sessions) -> None:
    """Once: not any more when the old one is back."""
    await sessions.run("import sys, types, colorsys, wave; kept = {'c': 1}")
    found = told(await sessions.run("sys.modules['wave'] = colorsys"))
    assert found["sys.modules.wave"] == "what replaces a module that kernels run on is not saved; put it there again"
    await sessions.run("sys.modules['wave'] = wave")
    await sessions.kill()
    execution = await sessions.run("import wave as again; again is wave, kept")
    assert execution.output.result == "(True, {'c': 1})"
    assert execution.restored is not None
    assert not execution.restored.not_restored


async def test_a_module_keeps_the_class_that_it_was_given(sessions: Sessions) -> None:
    """One of the session's, which is changed and replaced later."""
    await sessions.run(
        FILES + "import first, wave\nclass Live(types.ModuleType):\n    doubled = property(lambda m: m.x * 2)"
    )
    await sessions.run("first.__class__ = wave.__class__ = Live")
    await sessions.kill()
    assert await sessions.value("first.doubled, type(first) is type(wave) is Live, wave.Error.__name__") == (
        "(2, True, 'Error')"
    )
    await sessions.run("Live.tripled = property(lambda m: m.x * 3); wave.__class__ = types.ModuleType")
    await sessions.kill()
    assert await sessions.value("first.tripled, type(first) is Live, type(wave) is types.ModuleType") == (
        "(3, True, True)"
    )


@pytest.mark.parametrize(
    ("load", "name"),
    [
        ("import first\nsys.path.insert(0, 'apart'); del sys.modules['first']; import first as other", "first"),
        ("sys.path.insert(0, 'apart'); import first; sys.path.pop(0)", "first"),
        (
            "from importlib.util import spec_from_file_location, module_from_spec\n"
            "spec = spec_from_file_location('first', 'second.py')\n"
            "sys.modules['first'] = plug = module_from_spec(spec); spec.loader.exec_module(plug)",
            "plug",
        ),
    ],
)
async def test_a_module_whose_name_means_another_file_is_told(sessions: Sessions, load: str, name: str) -> None:
    """Two of one name, one from a directory that is on the path no more, and one that was loaded by its file."""
    await sessions.run(FILES)
    reason = told(await sessions.run(load))[name]
    assert "name is that of another" in reason or "would not give the file" in reason
    await sessions.kill()
    execution = await sessions.run(f"{name}.x")
    assert execution.output.error is not None
    assert execution.output.error.name == "NameError"


async def test_modules_of_all_ways_to_be_installed_come_back(sessions: Sessions) -> None:
    """Packages, parts of them, in C, frozen, built in, of the session in a directory, and edited and loaded again."""
    await sessions.run(
        FILES + "Path('pack').mkdir(); Path('pack/__init__.py').touch(); Path('pack/part.py').write_text('n = 1')"
    )
    names = "os, os.path, json.decoder, math, sys, time, numpy, numpy.linalg, _json, pack.part, xml.etree.ElementTree"
    assert told(await sessions.run(f"import {names}; from pack import part; import first, pack")) == {}
    assert told(await sessions.run("import queue, cloudpickle, kernelrepl, concurrent.futures as cf")) == {}
    await sessions.run("Path('first.py').write_text('x = 11\\n'); importlib.reload(first)")
    await sessions.kill()
    assert await sessions.value(f"[one.__name__ for one in ({names}, part, cf)], first.x, part is pack.part")
    assert await sessions.value("first.x, part.n, part is sys.modules['pack.part'], queue is sys.modules['queue']") == (
        "(11, 1, True, True)"
    )
