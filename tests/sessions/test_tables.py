"""What libraries keep for themselves, and hand out, comes back as theirs: what is set there is what they look at."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytestmark = pytest.mark.anyio


async def test_a_table_of_a_library_is_the_same_after_a_restore(sessions: Sessions) -> None:
    """Of a module and of a class, by a name and in a value: with what is put in, taken out and replaced, each time."""
    await sessions.run(
        "import email.charset, json.encoder, http.client, tarfile\n"
        "from email.charset import CHARSETS, ALIASES\n"
        "reasons = http.client.responses\n"
        "held = {'ways': tarfile.TarFile.OPEN_METH, 'escapes': json.encoder.ESCAPE_DCT}"
    )
    await sessions.run("CHARSETS['own'] = mine = [7]; del ALIASES['latin_1']; reasons[404] = 'gone for good'")
    await sessions.run("held['ways']['own'] = 'ownopen'; held['escapes']['\\t'] = 'TAB'")
    for number in (7, 8, 9):
        await sessions.kill()
        assert await sessions.value(
            "CHARSETS is email.charset.CHARSETS, ALIASES is email.charset.ALIASES, reasons is http.client.responses, "
            "held['ways'] is tarfile.TarFile.OPEN_METH, held['escapes'] is json.encoder.ESCAPE_DCT"
        ) == str((True,) * 5)
        assert await sessions.value(
            "CHARSETS['own'] is mine, mine, 'latin_1' in ALIASES, reasons[404], held['ways']['own'], "
            "held['escapes']['\\t'], email.charset.Charset('latin-1').input_charset, 'gz' in held['ways']"
        ) == str((True, [number], False, "gone for good", "ownopen", "TAB", "iso-8859-1", True))
        await sessions.run(f"mine[0] = {number + 1}")
    await sessions.run("del CHARSETS['own'], held['ways']['own']; reasons[404] = 'Not Found'")
    await sessions.kill()
    assert await sessions.value(
        "'own' in email.charset.CHARSETS, 'own' in tarfile.TarFile.OPEN_METH, http.client.responses[404]"
    ) == str((False, False, "Not Found"))


async def test_functions_of_the_session_in_a_table_are_called_by_the_library(sessions: Sessions) -> None:
    """After a restore as before it, also those that are put there then."""
    await sessions.run("import copy, pprint; from copy import _deepcopy_dispatch as copiers")
    await sessions.run("class Box: pass\ndef short(box, memo): return 'short'\ncopiers[Box] = short")
    await sessions.kill()
    assert await sessions.value("copy.deepcopy([Box()]), copiers[Box] is short") == "(['short'], True)"
    await sessions.run("def long(box, memo): return 'long'\ncopiers[Box] = long")
    await sessions.kill()
    assert await sessions.value("copy.deepcopy([Box()]), copiers[Box] is long") == "(['long'], True)"


async def test_one_table_by_two_names_and_in_itself_is_one(sessions: Sessions) -> None:
    """Also when only one of the names is in the code that changes it."""
    await sessions.run("import http.client; from http.client import responses as one; two = [one]; one['self'] = one")
    await sessions.run("two[0][299] = 'own'")
    await sessions.kill()
    assert await sessions.value("one is two[0] is one['self'] is http.client.responses, one[299]") == "(True, 'own')"


async def test_a_marker_of_a_library_is_the_same(sessions: Sessions) -> None:
    """A bare object that is known by its identity alone; one of the session's is its own."""
    await sessions.run("import functools, dataclasses; missing = functools._initial_missing; own = object()")
    await sessions.run("held = {'m': (missing, own)}")
    await sessions.kill()
    assert (
        await sessions.value(
            "missing is functools._initial_missing is held['m'][0], held['m'][1] is own is not missing"
        )
        == "(True, True)"
    )


async def test_what_the_session_put_in_the_place_of_a_table_is_its_own(sessions: Sessions) -> None:
    """It comes back with what is in it, and so does a copy."""
    await sessions.run("import http.client; plain = dict(http.client.responses)")
    execution = await sessions.run("mine = {1: 'one'}; http.client.responses = mine")
    assert [entry.name for entry in execution.not_saved] == ["http.client.responses"]
    await sessions.run("plain[1] = 'other'")
    await sessions.kill()
    assert await sessions.value("mine, 1 in http.client.responses, plain[1], plain[404]") == (
        "({1: 'one'}, False, 'other', 'Not Found')"
    )


async def test_a_context_that_decimal_hands_out_is_the_one_that_it_uses(sessions: Sessions) -> None:
    """With its flags; that of new threads too, and one of the session's own stays that."""
    await sessions.run("import decimal; ctx = decimal.getcontext(); own = decimal.Context(prec=3)")
    await sessions.run("held = [ctx, decimal.DefaultContext]; ctx.prec = 9; held[1].prec = 11")
    await sessions.run("decimal.Decimal(1) / 3")
    await sessions.kill()
    assert await sessions.value("ctx is decimal.getcontext() is held[0], held[1] is decimal.DefaultContext") == (
        "(True, True)"
    )
    assert await sessions.value("ctx.flags[decimal.Inexact], ctx.prec, held[1].prec, own.prec") == "(True, 9, 11, 3)"
    await sessions.run("ctx.prec = 5; ctx.clear_flags()")
    assert await sessions.value("str(decimal.Decimal(1) / 3)") == "'0.33333'"
    await sessions.run("own.prec = 4; ctx.traps[decimal.Inexact] = True")
    await sessions.kill()
    assert await sessions.value("decimal.getcontext().traps[decimal.Inexact], ctx.prec, own.prec, own is ctx") == (
        "(True, 5, 4, False)"
    )
    execution = await sessions.run("decimal.Decimal(1) / 3")
    assert execution.output.error is not None
    assert execution.output.error.name == "Inexact"


async def test_what_hangs_on_the_shell_is_that_of_the_new_one(sessions: Sessions) -> None:
    """Formatters, managers, lists; and what belongs to the process."""
    await sessions.run(
        "import threading, signal, logging, numpy.random\nshell = get_ipython()\n"
        "plain = shell.display_formatter.formatters['text/plain']; magics = [shell.magics_manager]\n"
        "lines, results, stop = In, Out, signal.getsignal(signal.SIGINT)\n"
        "main, manager, bits = threading.main_thread(), logging.root.manager, numpy.random.get_bit_generator()"
    )
    await sessions.run("class Point: pass\nplain.for_type(Point, lambda value, printer, _: printer.text('<point>'))")
    await sessions.kill()
    assert await sessions.value("Point()") == "<point>"
    assert await sessions.value(
        "plain is shell.display_formatter.formatters['text/plain'], magics[0] is shell.magics_manager, lines is In, "
        "results is Out, stop == signal.getsignal(signal.SIGINT), main is threading.main_thread(), "
        "manager is logging.root.manager, bits is numpy.random.get_bit_generator()"
    ) == str((True,) * 8)
    await sessions.run("plain.for_type(Point, lambda value, printer, cycle: printer.text('(point)'))")
    assert await sessions.value("Point()") == "(point)"
    await sessions.kill()
    assert await sessions.value("Point()") == "(point)"
