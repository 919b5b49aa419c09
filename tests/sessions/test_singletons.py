"""What a library has one of comes back as that, not as a copy of it that the library does not know."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


async def test_what_a_library_keeps_in_a_module_is_the_same_after_a_restore(sessions: Sessions) -> None:
    """Under a name of its own, held by a value, and in an attribute; with what the session has changed in it."""
    await sessions.run(
        "import reprlib, matplotlib.units, matplotlib.colors\n"
        "from reprlib import aRepr as short\n"
        "from matplotlib.units import registry, ConversionInterface\n"
        "from scipy.stats import norm\n"
        "class Metre: pass\n"
        "class Holder: pass\n"
        "holder = Holder()\n"
        "holder.colours, holder.law = [matplotlib.colors._colors_full_map], norm\n"
    )
    await sessions.run("short.maxlist = 2; registry[Metre] = ConversionInterface()")
    await sessions.kill()
    assert await sessions.value("short is reprlib.aRepr, short.maxlist, reprlib.repr([7] * 9)") == (
        "(True, 2, '[7, 7, ...]')"
    )
    assert await sessions.value("registry is matplotlib.units.registry, Metre in matplotlib.units.registry") == (
        "(True, True)"
    )
    assert await sessions.value(
        "holder.colours[0] is matplotlib.colors._colors_full_map, holder.law is norm, bool(norm.cdf(0) == 0.5)"
    ) == ("(True, True, True)")
    await sessions.run("del short.maxlist; del registry[Metre]; short.maxdict = 1")
    await sessions.run("short.maxlist = 3")
    await sessions.kill()
    assert await sessions.value("Metre in matplotlib.units.registry, short.maxdict, reprlib.aRepr.maxlist") == (
        "(False, 1, 3)"
    )


async def test_policies_that_a_library_compares_by_identity_are_the_same(sessions: Sessions) -> None:
    """Held by a value, and under a name."""
    await sessions.run(
        "import email.policy; from email.policy import compat32, default as policy; held = {'p': policy}"
    )
    await sessions.run("import reprlib, calendar; from calendar import c as shown; shown.firstweekday = 6")
    await sessions.kill()
    assert await sessions.value("policy is email.policy.default is held['p'], compat32 is email.policy.compat32") == (
        "(True, True)"
    )
    assert await sessions.value("shown is calendar.c, calendar.c.getfirstweekday()") == "(True, 6)"


async def test_what_only_lies_in_a_module_for_a_while_is_saved_itself(sessions: Sessions) -> None:
    """What code of the session has put there, and what the library replaces while it runs."""
    await sessions.run("import reprlib, mimetypes; mimetypes.init(); table = mimetypes._db")
    await sessions.run("mine = reprlib.Repr(); mine.maxlist = 1; reprlib.mine = reprlib.aRepr = mine")
    await sessions.run("table.add_type('text/own', '.own')")
    await sessions.kill()
    assert await sessions.value("mine.repr([1, 2]), table.guess_type('a.own')[0]") == "('[1, ...]', 'text/own')"


async def test_a_part_of_the_process_comes_back_as_that_of_the_new_one(sessions: Sessions) -> None:
    """One that cannot be copied: what code has set in it belongs to the session all the same."""
    await sessions.run("import ctypes; from ctypes import pythonapi as api")
    execution = await sessions.run("held = [api]; api.note = 'mine'")
    assert not execution.not_saved
    await sessions.kill()
    assert await sessions.value("api is ctypes.pythonapi, held[0] is api, api.note") == "(True, True, 'mine')"


async def test_what_is_bound_to_the_options_of_a_library_sets_them(sessions: Sessions) -> None:
    """After a restore as before it: it leads to what the library itself looks at."""
    await sessions.run("import pandas as pd; from pandas import options")
    await sessions.run("options.display.precision = 2; options.display.max_rows = 7")
    await sessions.kill()
    assert await sessions.value("options.display.precision, pd.get_option('display.max_rows')") == "(2, 7)"
    await sessions.run("options.display.precision = 4")
    assert await sessions.value("pd.get_option('display.precision')") == "4"
