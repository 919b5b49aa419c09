"""What agents and hosts send that makes no sense: each gets an answer that helps, and nothing else happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from mcp import Client

from kernelrepl.mcp.arguments import MAX_WAIT_S
from kernelrepl.validation import MAX_TIMEOUT_S
from tests.support.mcp_hosts import Place, Wire, by_hand, call, host, refusal, run, wait_until, waits_for

pytestmark = pytest.mark.anyio

TOOLS = (
    "python_list_variables",
    "python_clear_session",
    "python_delete_session",
    "python_wait",
    "python_interrupt",
)
"""Those that need a session which is there."""

ALLOWED = "use 1 to 100 letters, digits and . _ - : @ + and start with a letter or digit"


@pytest.fixture
def place(shared_environ: dict[str, str]) -> Place:
    return Place(shared_environ)


@pytest.fixture
async def client(shared_environ: dict[str, str]) -> AsyncIterator[Client]:
    """A client whose session `Known` has a kernel and a variable, before and after."""
    async with host(shared_environ) as connected:
        await run(connected, "kept = 1", "Known")
        pid = (await run(connected, "import os; os.getpid()", "Known"))["result"]
        yield connected
        assert (await run(connected, "kept, os.getpid()", "Known"))["result"] == f"(1, {pid})"


@pytest.fixture
def wire(shared_environ: dict[str, str]) -> Iterator[Wire]:
    """A proxy driven by hand that must serve on after all that a test sends, and end well."""
    with by_hand(shared_environ) as driven:
        yield driven
        assert driven.result(driven.ask_to_run("6 * 7", "after"))["result"] == "42"
        assert driven.close() == 0
        assert driven.noise == []
        assert driven.process.stderr is not None
        assert driven.process.stderr.read() == b""


async def ids(client: Client) -> set[str]:
    listed = await call(client, "python_list_sessions")
    return {entry["session_id"] for entry in listed["sessions"]}


# Session ids


@pytest.mark.parametrize(
    ("session_id", "said"),
    [
        ("", f"session_id '' is empty; {ALLOWED}"),
        ("a" * 300, f"has 300 characters; {ALLOWED}"),
        ("../up", "begins with '.'|has the character '/' (SOLIDUS)"),
        ("..", "session_id '..' begins with '.'"),
        ("/etc/passwd", "has the character '/' (SOLIDUS), which is not allowed"),
        ("a\0b", "has the character '\\x00' (U+0000)"),
        ("a\x1b[31m", "has the character '\\x1b' (U+001B)"),
        ("a\nb", "has the character '\\n' (U+000A)"),
        ("   ", "has the character ' ' (SPACE)"),
        ("-s", "session_id '-s' begins with '-'"),
        ("Кnown", "has the character 'К' (CYRILLIC CAPITAL LETTER KA)"),
        ("Ｋnown", "has the character 'Ｋ' (FULLWIDTH LATIN CAPITAL LETTER K)"),
        ("ﬁle", "has the character 'ﬁ' (LATIN SMALL LIGATURE FI)"),
        ("a\u202eb", "has the character '\\u202e' (RIGHT-TO-LEFT OVERRIDE)"),
        ("😀", "(GRINNING FACE), which is not allowed"),
        ("null", "session_id is the text 'null'; leave it out for none"),
    ],
)
async def test_a_session_id_that_is_none_is_refused_with_what_is_wrong_in_it(
    client: Client, session_id: str, said: str
) -> None:
    """A character that cannot be seen, or looks like another one, is named; no session is made."""
    before = await ids(client)
    answer = await refusal(client, "python_repl", code="1", session_id=session_id)
    assert any(part in answer for part in said.split("|")), answer
    if session_id != "null":
        assert ALLOWED in answer
        for tool in TOOLS:
            assert ALLOWED in await refusal(client, tool, session_id=session_id)
    assert await ids(client) == before


@pytest.mark.parametrize("value", [5, 1.5, True, ["Known"], {"id": "Known"}])
async def test_a_session_id_that_is_no_string_is_refused(client: Client, value: Any) -> None:
    """Nothing is made a string of that was not one."""
    shown = json.dumps(value)
    assert f"session_id is {shown}; it must be a string" in await refusal(
        client, "python_repl", code="1", session_id=value
    )
    for tool in TOOLS:
        assert await refusal(client, tool, session_id=value) == f"session_id is {shown}; it must be a string"


async def test_an_unknown_session_is_named_with_those_that_were_meant(client: Client) -> None:
    """Another case, a letter too few, and nothing like it; an id that differs by its case is another session."""
    for tool in TOOLS:
        for wrong in ("known", "KNOWN", "Knwn"):
            said = await refusal(client, tool, session_id=wrong)
            assert said == f"there is no session {wrong!r}: did you mean 'Known'?"
        said = await refusal(client, tool, session_id="zzz")
        assert said.endswith("python_list_sessions shows the ones there are; python_repl creates one")
    assert (await run(client, "'kept' in globals()", "known"))["result"] == "False"
    await call(client, "python_delete_session", session_id="known")


# Code


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("this is not Python", "NameError|SyntaxError", ""),
        ("(" * 10_000, "SyntaxError", "too many nested parentheses|was never closed"),
        ("[" * 100_000 + "]" * 100_000, "SyntaxError", "too many nested parentheses"),
        ("-" * 100_000 + "1", "MemoryError|RecursionError", ""),
        ("lambda:" * 20_000 + "1", "MemoryError|RecursionError", ""),
        ("+".join(["1"] * 50_000), "RecursionError|MemoryError", ""),
        ("x" + ".a" * 50_000, "RecursionError|MemoryError", ""),
        ("9" * 100_000, "SyntaxError", "Exceeds the limit"),
        ("\ufeffx", "SyntaxError|NameError", ""),
        ("bytearray(10**15)", "MemoryError", ""),
        ("def f(): return f()\nf()", "RecursionError", "maximum recursion depth"),
    ],
)
async def test_code_that_no_parser_survives_is_a_result(client: Client, code: str, name: str, message: str) -> None:
    """An error as Python has it; the kernel that got it is the one that goes on."""
    result = await run(client, code, "Known")
    assert result["status"] == "error"
    assert result["committed"]
    assert result["error"]["name"] in name.split("|")
    assert any(part in result["error"]["message"] for part in message.split("|"))
    assert (await run(client, "kept", "Known"))["restored"] is None


@pytest.mark.parametrize("code", ["", "  \n\t\n", "# nothing\n"])
async def test_code_that_does_nothing_is_fine(client: Client, code: str) -> None:
    """Nothing is printed, nothing changes."""
    result = await run(client, code, "Known")
    assert (result["status"], result["result"], result["stdout"]) == ("ok", None, "")


async def test_too_much_code_is_refused_with_a_way_to_bring_it(client: Client) -> None:
    """Ten megabytes."""
    said = await refusal(client, "python_repl", code="#" * 10_000_000, session_id="Known")
    assert said.startswith("the code has 10000000 bytes and may have 5000000; put data into a file in the workspace")


async def test_a_nul_in_code_is_refused_with_its_escape(client: Client) -> None:
    """Python would say that source code cannot contain null bytes."""
    said = await refusal(client, "python_repl", code="x = '\0'", session_id="Known")
    assert said == r"the code contains a NUL character; write it as \0 inside a string"


# Arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"wait": -1}, f"wait is -1 seconds; it must be from 0 to {MAX_WAIT_S:g}"),
        ({"wait": 1e300}, f"wait is 1e+300 seconds; it must be from 0 to {MAX_WAIT_S:g}"),
        ({"wait": "nan"}, f"wait is nan seconds; it must be from 0 to {MAX_WAIT_S:g}"),
        ({"wait": "soon"}, 'wait is "soon"; it must be a number'),
        ({"wait": True}, "wait is true; it must be a number"),
        ({"wait": [1]}, "wait is [1]; it must be a number"),
        ({"timeout": 0}, f"timeout is 0 seconds; it must be above 0 and at most {MAX_TIMEOUT_S:g}, or left out"),
        ({"timeout": -1}, f"timeout is -1 seconds; it must be above 0 and at most {MAX_TIMEOUT_S:g}, or left out"),
        ({"timeout": 1e300}, f"must be above 0 and at most {MAX_TIMEOUT_S:g}, or left out"),
        ({"timeout": "inf"}, f"must be above 0 and at most {MAX_TIMEOUT_S:g}, or left out"),
        ({"timeout": "soon"}, 'timeout is "soon"; it must be a number, or left out'),
        ({"timeout": False}, "timeout is false; it must be a number, or left out"),
        ({"reset": "maybe"}, 'reset is "maybe"; it must be true or false'),
        ({"code": 5}, "code is 5; it must be a string"),
        ({"code": None}, "code is null; it must be a string"),
        ({"code": ["x"] * 100}, "…; it must be a string"),
        ({"sesion_id": "Known"}, "python_repl has no argument \"sesion_id\": did you mean 'session_id'?"),
        ({"zzz": 1}, 'python_repl has no argument "zzz": it takes code, session_id, wait, timeout, reset'),
    ],
)
async def test_an_argument_that_cannot_be_is_refused_in_one_sentence(
    client: Client, arguments: dict[str, Any], said: str
) -> None:
    """The argument, its value, and what it may be; a typing error in a name does not run the code elsewhere."""
    before = await ids(client)
    answer = await refusal(client, "python_repl", **{"code": "kept = 2", "session_id": "Known", **arguments})
    assert said in answer
    assert "\n" not in answer
    assert await ids(client) == before


async def test_an_optional_argument_that_is_null_is_left_out(client: Client) -> None:
    """As hosts send all that a tool has."""
    arguments = {"session_id": "Nulls", "wait": None, "timeout": None, "reset": None}
    for code in ("kept = 2", "kept += 1"):
        await call(client, "python_repl", code=code, **arguments)
    assert (await call(client, "python_repl", code="kept", **arguments))["result"] == "3"
    await call(client, "python_delete_session", session_id="Nulls")


async def test_a_missing_argument_is_named(client: Client) -> None:
    """By the name it has, and of the tool that needs it."""
    assert await refusal(client, "python_repl", session_id="Known") == "python_repl needs the argument 'code'"
    for tool in TOOLS:
        assert await refusal(client, tool) == f"{tool} needs the argument 'session_id'"


async def test_numbers_as_texts_are_taken(client: Client) -> None:
    """Some hosts send every value as a text."""
    result = await run(client, "1", "Known", wait="45", timeout="60", reset="false")
    assert (result["status"], result["result"]) == ("ok", "1")
    assert len((await call(client, "python_list_sessions", limit="1"))["sessions"]) == 1


@pytest.mark.parametrize("tool", ["python_list_sessions", "python_list_variables"])
@pytest.mark.parametrize("limit", [0, -1, 1001, 1.5, "many", True])
async def test_a_page_has_from_1_to_1000_entries(client: Client, tool: str, limit: Any) -> None:
    """In one sentence that says so."""
    session = {"session_id": "Known"} if tool == "python_list_variables" else {}
    assert (await refusal(client, tool, limit=limit, **session)).startswith(f"limit is {json.dumps(limit)}; it must be")


@pytest.mark.parametrize("cursor", ["", "2", "x/y", "2026-01-01T00:00:00.000Z/" + "9" * 30])
async def test_a_cursor_comes_from_a_page(client: Client, cursor: str) -> None:
    """Nobody can guess one."""
    assert "it must be the next_cursor of a page before" in await refusal(client, "python_list_sessions", cursor=cursor)


@pytest.mark.parametrize("wait", [-1, 1e300, "nan", "soon", True])
async def test_python_wait_checks_its_wait_as_well(client: Client, wait: Any) -> None:
    """In the same words."""
    assert "wait is " in await refusal(client, "python_wait", session_id="Known", wait=wait)


async def test_an_unknown_tool_is_named_with_the_one_that_was_meant(client: Client) -> None:
    """Or with all there are."""
    said = await refusal(client, "python_exec", code="1")
    assert said == "there is no tool 'python_exec': did you mean 'python_repl'?"
    assert "there are python_repl, python_wait, " in await refusal(client, "zzz")


# Lines


def call_line(identity: str = "1", arguments: str = '{"code": "\'ran\'", "session_id": "Lines"}', **more: str) -> bytes:
    """A call as a client would write it, with parts that none would."""
    meta = (
        '{"io.modelcontextprotocol/protocolVersion": "2026-07-28",'
        ' "io.modelcontextprotocol/clientInfo": {"name": "by hand", "version": "1"},'
        ' "io.modelcontextprotocol/clientCapabilities": {}}'
    )
    params = more.get("params", f'{{"name": "python_repl", "arguments": {arguments}, "_meta": {meta}}}')
    version, method = more.get("version", '"2.0"'), more.get("method", '"tools/call"')
    return f'{{"jsonrpc": {version}, "id": {identity}, "method": {method}, "params": {params}}}'.encode()


@pytest.mark.parametrize("identity", ['"text"', '""', "0", "-1", "77777777777777777777777", '"' + "x" * 300 + '"'])
def test_every_id_that_is_one_is_answered_as_it_was(wire: Wire, identity: str) -> None:
    """Strings and integers of any size."""
    wire.send_raw(call_line(identity))
    answer = wire.next()
    assert answer["id"] == json.loads(identity)
    assert answer["result"]["structuredContent"]["result"] == "'ran'"


@pytest.mark.parametrize(
    ("identity", "answered"), [("1.5", 1.5), ("1e3", 1000.0), ("null", None), ("true", True), ("[1]", None)]
)
def test_an_id_that_is_none_is_refused(wire: Wire, identity: str, answered: Any) -> None:
    """The server behind would take the request for a notification and never answer."""
    wire.send_raw(call_line(identity))
    answer = wire.next()
    assert (answer["id"], answer["error"]["code"]) == (answered, -32600)
    assert answer["error"]["message"] == '"id" must be a string or an integer; leave it out for a notification'


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b"no json", -32700, "not JSON: "),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "x\xff"}', -32700, "not JSON: 'utf-8' codec can't decode byte 0xff"),
        (b"\xff\xfe{\x00}\x00", -32700, "not JSON: 'utf-8' codec"),
        (b"[" + call_line() + b"]", -32600, "batches are not supported; send each message on a line of its own"),
        (b"5", -32600, 'a request has "jsonrpc", "id" and "method"'),
        (call_line(version='"1.0"'), -32600, '"jsonrpc" must be "2.0"'),
        (b'{"id": 1, "method": "tools/list"}', -32600, '"jsonrpc" must be "2.0"'),
        (call_line(method="5"), -32600, '"method" must be a string'),
        (call_line(params="[1]"), -32600, '"params" must be an object'),
        (call_line(params='"x"'), -32600, '"params" must be an object'),
        (call_line(arguments="[]"), -32602, '"arguments" must be an object'),
        (call_line(arguments='"x"'), -32602, '"arguments" must be an object'),
        (call_line(params='{"name": 5}'), -32602, '"name" must be the name of a tool'),
        (call_line(params='{"a":' * 300 + "1" + "}" * 300), -32600, "recursion limit exceeded"),
        (b'{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]}', -32600, '"params" must be an'),
        (b'{"jsonrpc": "2.0", "id": 1, "error": 5}', -32600, "not a message that can be read"),
    ],
)
def test_a_line_that_is_no_message_is_answered(wire: Wire, line: bytes, code: int, said: str) -> None:
    """Under the id of the request where there is one: whoever sent it does not wait for ever."""
    wire.send_raw(line)
    answer = wire.next()
    assert answer["error"]["code"] == code
    assert said in answer["error"]["message"]
    assert answer["id"] == (
        1 if line.startswith(b"{") and b'"id": 1, "method"' in line and b"\xff" not in line else None
    )


@pytest.mark.parametrize("escape", ["\\ud800", "\\uDFFF", "\\ud800x"])
def test_half_a_surrogate_pair_is_refused_with_its_escape(wire: Wire, escape: str) -> None:
    """It is no text, and must not become another character on the way; a whole pair is one."""
    wire.send_raw(call_line(arguments=f'{{"code": "x = {escape!r}", "session_id": "Lines"}}'.replace("\\\\", "\\")))
    answer = wire.next()
    half = escape[:6].lower()
    assert answer["id"] == 1
    assert answer["error"]["message"] == (
        f"{half} is half a surrogate pair and no Unicode text; in code write it as \\{half} inside a string"
    )
    wire.send_raw(call_line(arguments='{"code": "len(\'\\ud83d\\ude00\')", "session_id": "Lines"}'))
    assert wire.next()["result"]["structuredContent"]["result"] == "1"


def test_numbers_that_are_none_are_refused_by_name(wire: Wire) -> None:
    """NaN and Infinity are not JSON, and some clients send them."""
    for name, value, said in (
        ("wait", "NaN", "wait is nan seconds"),
        ("wait", "-Infinity", "wait is -inf seconds"),
        ("timeout", "NaN", "timeout is nan seconds"),
        ("timeout", "1e400", "timeout is inf seconds"),
    ):
        wire.send_raw(call_line(arguments=f'{{"code": "1", "session_id": "Lines", "{name}": {value}}}'))
        result = wire.next()["result"]
        assert result["isError"]
        assert said in result["content"][0]["text"]


def test_a_long_line_that_is_no_message_is_answered(wire: Wire) -> None:
    """60 MB: a request is refused with its size and what to do instead, and noise as noise."""
    wire.send_raw(call_line(arguments='{"code": "' + "#" * (60 << 20) + '", "session_id": "Lines"}'))
    answer = wire.next()
    assert answer["id"] == 1
    assert answer["error"]["message"].endswith(" bytes and may have 50331648; put data into a file")
    wire.send_raw(b"#" * (60 << 20))
    assert wire.next()["error"]["code"] == -32700


def test_an_id_that_is_in_flight_is_refused_and_its_first_owner_is_answered(wire: Wire, place: Place) -> None:
    """Otherwise the second call would get the answer of the first; once answered, an id may come again."""
    first = f"open('begun', 'w').close()\n{waits_for('go')}\n'first'"
    wire.send_raw(call_line(arguments=json.dumps({"code": first, "session_id": "Twice"})))
    wait_until(lambda: place.file("begun", "Twice").exists())
    wire.send_raw(call_line(arguments='{"code": "\'second\'", "session_id": "Twice"}'))
    refused = wire.next()
    assert refused["error"]["message"] == "the id 1 is that of a request in flight; give every request an id of its own"
    place.file("go", "Twice").touch()
    assert wire.next()["result"]["structuredContent"]["result"] == "'first'"
    for number in range(20):  # at once after its answer, when the kernel may not have come to its end
        wire.send_raw(call_line(arguments=json.dumps({"code": f"'again', {number}", "session_id": "Twice"})))
        assert wire.next()["result"]["structuredContent"]["result"] == f"('again', {number})"
