"""What an agent sees: the seven tools through a real MCP client over stdio, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import jsonschema
import psutil
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from tests.conftest import this_tier, works_in
from tests.support.mcp_hosts import FIELDS, MODES, Place, call, host, refusal, run, says, text_of, until, waits_for

pytestmark = pytest.mark.anyio

TOOLS = {
    "python_repl",
    "python_wait",
    "python_interrupt",
    "python_list_variables",
    "python_list_sessions",
    "python_clear_session",
    "python_delete_session",
}
RESULT_FIELDS = {
    "session_id",
    "status",
    "execution_count",
    "stdout",
    "stderr",
    "result",
    "error",
    "duration_s",
    "saved",
    "not_saved",
    "restored",
    "figures",
    "truncated",
    "sandbox",
    "committed",
}
TOOLS_CHARS = 6000
"""What the list of tools may take: a model reads it in every conversation."""
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(shared_environ: dict[str, str]) -> Place:
    return Place(shared_environ)


@pytest.fixture
async def client(shared_environ: dict[str, str], mode: str) -> AsyncIterator[Client]:
    """A host; what its test leaves is deleted, so that kernels do not pile up."""
    async with host(shared_environ, mode) as connected:
        yield connected
        for entry in (await call(connected, "python_list_sessions"))["sessions"]:
            await call(connected, "python_delete_session", session_id=entry["session_id"])


@pytest.fixture
def s(request: pytest.FixtureRequest) -> str:
    """A session of this test alone."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name).strip("-")[:100]


async def kernel_state(client: Client, session_id: str) -> str:
    listed = await call(client, "python_list_sessions")
    return next((str(e["kernel"]) for e in listed["sessions"] if e["session_id"] == session_id), "none")


# What there is


async def test_the_seven_tools_are_listed_with_all_that_a_model_needs(client: Client) -> None:
    """Each has a description, a title, annotations and described parameters, in few characters."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    for tool in tools.values():
        assert tool.description
        assert tool.title
        assert tool.annotations is not None
        assert tool.annotations.open_world_hint is False
        assert tool.output_schema is None
        for name, parameter in tool.input_schema.get("properties", {}).items():
            assert parameter.get("description"), (tool.name, name)
        assert set(tool.input_schema) <= {"type", "properties", "required"}
    assert len(json.dumps([tool.model_dump(exclude_none=True) for tool in tools.values()])) <= TOOLS_CHARS
    reading = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
    destroying = {name for name, tool in tools.items() if tool.annotations and tool.annotations.destructive_hint}
    assert reading == {"python_wait", "python_list_variables", "python_list_sessions"}
    assert destroying == set(tools) - reading
    assert tools["python_repl"].input_schema["required"] == ["code"]


async def test_the_server_says_how_to_use_it(client: Client, mode: str) -> None:
    """Name and instructions reach the client, and it speaks the era that it asked for."""
    assert client.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")
    assert client.server_info is not None
    assert client.server_info.name == "kernelrepl"
    assert "session_id" in (client.instructions or "")


# Running code


async def test_state_stays_and_the_last_expression_is_echoed(client: Client, s: str) -> None:
    """A second call finds what the first one made."""
    first = await run(client, "x = 41\nprint('made')", s)
    assert (first["status"], first["stdout"], first["result"]) == ("ok", "made\n", None)
    second = await client.call_tool("python_repl", {"code": "x + 1", "session_id": s})
    assert second.structured_content is not None
    assert second.structured_content["result"] == "42"
    assert text_of(second) == "42"


async def test_a_result_has_the_fields_of_the_design(client: Client, s: str) -> None:
    """Every field is there, of its type, and the whole is what the output schema promises."""
    result = await run(client, "x = 1\nimport sys; print('out'); print('err', file=sys.stderr)\nx", s)
    assert set(result) >= RESULT_FIELDS
    duration = result["duration_s"]
    assert isinstance(duration, float)
    assert result == {
        **result,
        "session_id": s,
        "status": "ok",
        "execution_count": 1,
        "stdout": "out\n",
        "stderr": "err\n",
        "result": "1",
        "error": None,
        "not_saved": [],
        "restored": None,
        "figures": 0,
        "truncated": False,
        "sandbox": this_tier().label,
        "committed": True,
    }
    assert {key: sorted(names) for key, names in result["saved"].items()} == {
        "created": ["sys", "x"],
        "changed": [],
        "deleted": [],
    }


async def test_a_program_that_asks_gets_the_fields_and_what_they_are(shared_environ: dict[str, str], mode: str) -> None:
    """As the schemas say that its tools have then; and who asks for none gets none, not even in lists."""
    async with host({**shared_environ, "KERNELREPL_STRUCTURED": "on"}, mode, name="claude-code") as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        for tool, arguments in (
            ("python_repl", {"code": "x = 41\nx + 1\n1/0", "session_id": "asks"}),
            ("python_wait", {"session_id": "asks"}),
            ("python_list_variables", {"session_id": "asks"}),
            ("python_list_sessions", {}),
            ("python_delete_session", {"session_id": "asks"}),
        ):
            schema = schemas[tool]
            assert schema is not None
            jsonschema.validate(await call(client, tool, **arguments), schema)
    async with host({**shared_environ, "KERNELREPL_STRUCTURED": "off"}, mode) as client:
        for tool in ("python_list_sessions", "python_repl"):
            result = await client.call_tool(tool, {} if tool != "python_repl" else {"code": "1 + 1"})
            assert result.structured_content is None
            assert text_of(result)


@pytest.mark.parametrize("name", ["claude-code", "cursor-vscode", "a host of tomorrow"])
async def test_a_host_gets_text_and_images_alone(shared_environ: dict[str, str], mode: str, name: str) -> None:
    """What has fields beside them is shown to the model as fields alone by some; of lists it is the same."""
    async with host(shared_environ, mode, name=name) as client:
        code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('seen')\ng = (n for n in 'ab')\n41 + 1"
        result = await client.call_tool("python_repl", {"code": code, "session_id": "hosts"})
        assert result.structured_content is None
        assert [block.type for block in result.content] == ["text", "image"]
        for part in ("seen", "42", "g (generator)"):
            assert part in text_of(result)
        waited = await client.call_tool("python_wait", {"session_id": "hosts"})
        assert (waited.structured_content, text_of(waited)) == (None, text_of(result))
        listed = await client.call_tool("python_list_variables", {"session_id": "hosts"})
        assert listed.structured_content is not None
        assert {entry["name"] for entry in listed.structured_content["variables"]} == {"g", "plt"}
        deleted = await client.call_tool("python_delete_session", {"session_id": "hosts"})
        assert deleted.structured_content is None


async def test_a_model_gets_a_line_for_each_frame_of_its_code(client: Client, s: str) -> None:
    """And where a library raised; the fields, which programs read, have the whole traceback."""
    code = "import json\ndef read(text):\n    return json.loads(text)\nread('{')"
    result = await client.call_tool("python_repl", {"code": code, "session_id": s})
    lines = text_of(result).splitlines()
    assert lines[0] == "Cell In[1], line 4: read('{')"
    assert lines[1] == "Cell In[1], line 3, in read: return json.loads(text)"
    assert lines[2] == "... 2 more frames of libraries"
    assert lines[3].startswith("json/decoder.py:")
    assert lines[4].startswith("JSONDecodeError: ")
    assert len(lines) == 5
    assert result.structured_content is not None
    assert "json/__init__.py" in result.structured_content["error"]["traceback"]


async def test_what_changed_is_named(client: Client, s: str) -> None:
    """Created, changed and deleted names, each under its own heading."""
    await run(client, "kept = 1; grown = []; gone = 2", s)
    result = await run(client, "new = 3; grown.append(1); del gone", s)
    assert result["saved"] == {"created": ["new"], "changed": ["grown"], "deleted": ["gone"]}


async def test_what_cannot_be_saved_is_named_with_its_reason(client: Client, s: str) -> None:
    """The reply and the list of variables both tell, and what can be saved is."""
    result = await run(client, "stream = open('notes.txt', 'w'); fine = 1", s)
    assert result["saved"]["created"] == ["fine"]
    [entry] = result["not_saved"]
    assert set(entry) == {"name", "type", "path", "reason"}
    assert entry["name"] == "stream"
    assert entry["reason"]
    listed = await call(client, "python_list_variables", session_id=s)
    assert {v["name"]: v["saved"] for v in listed["variables"]} == {"fine": True, "stream": False}
    assert next(v["reason"] for v in listed["variables"] if v["name"] == "stream") == entry["reason"]
    await run(client, "stream.close(); del stream", s)


async def test_code_that_fails_is_a_result(client: Client, s: str) -> None:
    """Not an error of the tool: name, message and a traceback without terminal codes."""
    result = await client.call_tool("python_repl", {"code": "before = 1\nint('no number')", "session_id": s})
    assert not result.is_error
    structured = result.structured_content
    assert structured is not None
    assert structured["status"] == "error"
    assert set(structured["error"]) == {"name", "message", "traceback"}
    assert structured["error"]["name"] == "ValueError"
    assert "no number" in structured["error"]["message"]
    assert "int('no number')" in structured["error"]["traceback"]
    assert "\x1b" not in str(structured) + text_of(result)
    assert structured["saved"]["created"] == ["before"]


async def test_code_that_is_no_python_is_a_result(client: Client, s: str) -> None:
    """A syntax error points at the place."""
    result = await run(client, "x = = 1", s)
    assert (result["status"], result["error"]["name"]) == ("error", "SyntaxError")
    assert "\x1b" not in str(result)


async def test_await_and_magics_work(client: Client, s: str) -> None:
    """A session is an IPython session."""
    result = await run(client, "import asyncio\nawait asyncio.sleep(0)\n%pwd", s)
    assert result["status"] == "ok"
    assert "/workspace" in result["result"]


async def test_every_open_figure_comes_as_an_image(client: Client, s: str) -> None:
    """Two figures and no plt.show() are two pictures."""
    code = "import matplotlib.pyplot as plt\nfor n in range(2):\n    plt.figure(); plt.plot([n, 1])"
    result = await client.call_tool("python_repl", {"code": code, "session_id": s})
    assert result.structured_content is not None
    assert result.structured_content["figures"] == 2
    images = [block for block in result.content if block.type == "image"]
    assert [image.mime_type for image in images] == ["image/png"] * 2
    pictures = {base64.b64decode(image.data) for image in images}
    assert len(pictures) == 2
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize(
    ("code", "stream", "whole"),
    [
        ("print('a' * 3000 + 'b' * 3000)", "stdout", "a" * 3000 + "b" * 3000 + "\n"),
        ("import sys; _ = sys.stderr.write('a' * 3000 + 'b' * 3000)", "stderr", "a" * 3000 + "b" * 3000),
        ("'a' * 3000 + 'b' * 3000", "result", repr("a" * 3000 + "b" * 3000)),
    ],
)
async def test_long_output_is_cut_and_a_link_gives_the_whole(
    shared_environ: dict[str, str], mode: str, s: str, code: str, stream: str, whole: str
) -> None:
    """Head and tail with a marker between; the resource has every character."""
    short = {**shared_environ, "KERNELREPL_MAX_OUTPUT_CHARS": "1000"}
    async with host(short, mode) as client:  # without a name: what is behind it may not know what a link is
        result = await client.call_tool("python_repl", {"code": code, "session_id": s})
        assert [block.type for block in result.content] == ["text"]
    async with host({**short, **FIELDS}, mode) as client:
        result = await client.call_tool("python_repl", {"code": code, "session_id": s})
        assert result.structured_content is not None
        assert result.structured_content["truncated"] is True
        shown = result.structured_content[stream]
        assert shown.startswith(whole[:500])
        assert shown.endswith(whole[-500:])
        assert f"of {len(whole)} characters cut" in shown
        assert len(shown) < 1200
        [link] = [block for block in result.content if block.type == "resource_link"]
        assert str(len(whole)) in (link.description or "")
        [content] = (await client.read_resource(link.uri)).contents
        assert getattr(content, "text", None) == whole
    async with host(shared_environ, mode) as other:
        [content] = (await other.read_resource(link.uri)).contents
        assert getattr(content, "text", None) == whole
        await call(other, "python_delete_session", session_id=s)
        for gone in (link.uri, f"kernelrepl://sessions/{s}/notebook", "kernelrepl://nothing/at/all"):
            with pytest.raises(MCPError) as refused:
                await other.read_resource(gone)
            assert refused.value.code == INVALID_PARAMS  # what does not exist is no fault of the server


async def test_output_as_long_as_the_limit_is_whole(shared_environ: dict[str, str], mode: str, s: str) -> None:
    """Nothing is cut that fits."""
    async with host({**shared_environ, "KERNELREPL_MAX_OUTPUT_CHARS": "1000"}, mode) as client:
        result = await client.call_tool("python_repl", {"code": "print('a' * 999)", "session_id": s})
        assert result.structured_content is not None
        assert result.structured_content["stdout"] == "a" * 999 + "\n"
        assert result.structured_content["truncated"] is False
        assert {block.type for block in result.content} == {"text"}


# Long code


async def test_a_wait_that_is_too_short_returns_running_and_python_wait_the_rest(
    client: Client, place: Place, s: str
) -> None:
    """The code goes on, and its outcome is collected later."""
    running = await run(client, f"print('begun', flush=True)\n{says('started')}\n{waits_for('go')}\n6 * 7", s, wait=0)
    assert running["status"] == "running"
    assert running["committed"] is False
    await until(lambda: place.said("started", s))

    async def shown() -> str:
        still = await call(client, "python_wait", session_id=s, wait=0)
        assert still["status"] == "running"
        return str(still["stdout"])

    assert await until(shown) == "begun\n"
    place.file("go", s).touch()
    result = await call(client, "python_wait", session_id=s)
    assert (result["status"], result["result"], result["stdout"]) == ("ok", "42", "begun\n")
    assert result["committed"] is True
    again = await call(client, "python_wait", session_id=s)
    assert again == result


async def test_a_timeout_stops_the_code_and_keeps_what_was_done(client: Client, s: str) -> None:
    """Timeout is a status of its own."""
    result = await run(client, "done = 1\nwhile True: pass", s, timeout=0.5)
    assert (result["status"], result["saved"]["created"], result["committed"]) == ("timeout", ["done"], True)
    assert (await run(client, "done", s))["result"] == "1"


@pytest.mark.parametrize(
    "waiting", ["while True: pass", waits_for("never"), "import asyncio; await asyncio.sleep(600)"]
)
async def test_an_interrupt_keeps_what_was_done(client: Client, place: Place, s: str, waiting: str) -> None:
    """Like Ctrl-C: the call in flight and the interrupt both return the outcome."""
    call_in_flight = asyncio.create_task(run(client, f"done = 1\n{says('started')}\n{waiting}\nnever = 2", s))
    await until(lambda: place.said("started", s))
    stopped = await call(client, "python_interrupt", session_id=s)
    result = await call_in_flight
    assert stopped == result
    assert (result["status"], result["committed"]) == ("interrupted", True)
    assert "done" in result["saved"]["created"]
    assert (await run(client, "done, 'never' in globals()", s))["result"] == "(1, False)"


async def test_a_forced_interrupt_ends_code_that_ignores_interrupts(client: Client, place: Place, s: str) -> None:
    """The kernel is ended, the session goes back to where it was, and lives."""
    await run(client, "x = 1", s)
    stubborn = (
        f"x = 2\n{says('started')}\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass"
    )
    call_in_flight = asyncio.create_task(run(client, stubborn, s))
    await until(lambda: place.said("started", s))
    stopped = await call(client, "python_interrupt", session_id=s, force=True)
    result = await call_in_flight
    assert stopped == result
    assert result["committed"] is False
    assert result["status"] in ("crashed", "interrupted")
    after = await run(client, "x", s)
    assert after["result"] == "1"
    assert after["restored"] == {"names": ["x"], "not_restored": []}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("code", ["print('old'); x = 6 * 7; x", "print('old'); 1 / 0"], ids=["ok", "failed"])
async def test_an_interrupt_with_nothing_to_interrupt_says_so(
    client: Client, s: str, code: str, *, force: bool
) -> None:
    """It came too late, which is no error; what ran before is not told again as if it were new."""
    result = await run(client, code, s)
    for _ in range(2):  # the second time the kernel may be gone
        said = await client.call_tool("python_interrupt", {"session_id": s, "force": force})
        told = said.structured_content
        assert told is not None
        assert told["note"].startswith("nothing was running; ")
        assert (told["status"], told["stdout"], told["result"], told["error"]) == ("ok", "", None, None)
        assert told["saved"] == {"created": [], "changed": [], "deleted": []}
        assert text_of(said) == f"⟦note⟧ {told['note']}"
    assert await call(client, "python_wait", session_id=s, wait=0) == result


async def test_an_interrupt_that_comes_too_late_brings_the_outcome(client: Client, place: Place, s: str) -> None:
    """That of code which an earlier call left running has come to nobody yet."""
    left = await run(client, f"{says('started')}\n{waits_for('go')}\n6 * 7", s, wait=0)
    assert left["status"] == "running"
    await until(lambda: place.said("started", s))
    place.file("go", s).touch()

    async def at_rest() -> bool:
        listed = await call(client, "python_list_sessions", contains=s)
        return [entry["kernel"] for entry in listed["sessions"]] == ["idle"]

    await until(at_rest)
    told = await call(client, "python_interrupt", session_id=s)
    assert (told["status"], told["result"]) == ("ok", "42")
    assert told["note"].startswith("nothing was running any more; ")
    again = await call(client, "python_interrupt", session_id=s)
    assert (again["result"], again["note"].partition(";")[0]) == (None, "nothing was running")


async def test_force_ends_an_idle_kernel_too(client: Client, s: str) -> None:
    """A model may want to free what it takes; the next call restores what is saved."""
    began = "open('/proc/self/stat').read().split()[21]"
    before = await run(client, f"import socket\nx, link = 1, socket.socket(socket.AF_UNIX)\n{began}", s)
    forced = await call(client, "python_interrupt", session_id=s, force=True)
    assert "the kernel was ended all the same" in forced["note"]
    again = await call(client, "python_interrupt", session_id=s, force=True)
    assert again["note"].partition(";")[0] == "nothing was running"  # and there is no kernel any more
    after = await run(client, began, s)
    assert after["result"] != before["result"]
    assert "x" in after["restored"]["names"]
    [lost] = after["restored"]["not_restored"]
    assert lost["name"] == "link"
    assert "a network connection cannot be saved" in lost["reason"]


async def test_an_outcome_that_nobody_collected_comes_with_the_next_result(
    client: Client, place: Place, s: str
) -> None:
    """Once; and it does not when it was collected."""
    running = await run(client, f"print('accuracy 0.93')\n{waits_for('go')}\n'IMPORTANT'", s, wait=0)
    assert running["status"] == "running"
    queued = asyncio.create_task(run(client, "1 + 1", s))
    await until(lambda: place.file("", s).is_dir())
    place.file("go", s).touch()
    result = await queued
    assert result["result"] == "2"
    assert "has ended since, with status ok:\naccuracy 0.93\n'IMPORTANT'" in result["note"]
    assert (await run(client, "3", s))["note"] is None
    await run(client, "4", s, wait=0)
    assert (await call(client, "python_wait", session_id=s))["result"] == "4"
    assert (await run(client, "5", s))["note"] is None


async def test_code_without_a_session_says_why_it_was_ended(client: Client) -> None:
    """Nobody could come back for it, and nothing is kept."""
    result = await client.call_tool("python_repl", {"code": "while True: pass", "wait": 0.5})
    text = text_of(result)
    assert "without a session_id code is ended after `wait` or `timeout` seconds, and nothing of it is kept" in text


async def test_cancelling_a_call_interrupts_its_code(client: Client, place: Place, s: str) -> None:
    """The client's cancellation reaches the kernel, and what was done is kept."""
    async with anyio.create_task_group() as group:

        async def work() -> None:
            await run(client, f"done = 1\n{says('started')}\n{waits_for('never')}\nnever = 2", s)

        group.start_soon(work)
        await until(lambda: place.said("started", s))
        assert await kernel_state(client, s) == "busy"
        group.cancel_scope.cancel()
    await until(lambda: kernel_is(client, s, "idle"))
    assert (await call(client, "python_wait", session_id=s))["status"] == "interrupted"
    assert (await run(client, "done, 'never' in globals()", s))["result"] == "(1, False)"


async def kernel_is(client: Client, session_id: str, state: str) -> bool:
    return await kernel_state(client, session_id) == state


async def test_cancelling_a_queued_call_keeps_it_from_running(client: Client, place: Place, s: str) -> None:
    """What had not started never does; what runs goes on."""
    running = asyncio.create_task(run(client, f"{says('started')}\n{waits_for('go')}\n'first'", s))
    await until(lambda: place.said("started", s))
    with anyio.move_on_after(0.2) as scope:
        await run(client, says("second"), s)
    assert scope.cancelled_caught
    place.file("go", s).touch()
    assert (await running)["result"] == "'first'"
    assert (await run(client, "1", s))["execution_count"] == 2
    assert place.said("second", s) == 0


async def test_progress_arrives_while_code_runs(client: Client, place: Place, s: str) -> None:
    """The code ends only because its progress arrived; the message is the last line it printed."""
    seen: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, message))
        if message == "step 1 of 2":
            place.file("go", s).touch()

    arguments: dict[str, Any] = {"code": f"print('step 1 of 2')\n{waits_for('go')}\n'over'", "session_id": s}
    result = await client.call_tool("python_repl", arguments, progress_callback=on_progress)
    assert result.structured_content is not None
    assert result.structured_content["result"] == "'over'"
    assert 0 < seen[0][0] <= seen[-1][0]


# No session


async def test_a_call_without_a_session_leaves_nothing(client: Client, place: Place) -> None:
    """Fresh kernel, no rows, no files, no process afterwards."""
    tables = [name for (name,) in place.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]

    async def settled() -> dict[str, Any] | None:
        listed = await call(client, "python_list_sessions")
        return listed if all(entry["kernel"] in ("idle", "asleep") for entry in listed["sessions"]) else None

    sessions = await until(settled)  # others may still be about to end what a test before this one began
    before = {table: place.rows(f"SELECT COUNT(*) FROM {table}") for table in tables}
    code = "import pathlib, sys\nx = sys.marked = 1; pathlib.Path('here').touch()\nsorted(globals())"
    result = await call(client, "python_repl", code=code)
    assert result["status"] == "ok"
    assert (result["session_id"], result["committed"]) == (None, False)
    look = "import os, sys\n'x' in globals(), os.path.exists('here'), hasattr(sys, 'marked')"
    again = await call(client, "python_repl", code=look)
    assert again["result"] == "(False, False, False)"
    assert await call(client, "python_list_sessions") == sessions
    assert {table: place.rows(f"SELECT COUNT(*) FROM {table}") for table in tables} == before
    assert not list(place.data_dir.glob("workspaces/*/here"))
    assert not list(place.data_dir.glob("workspaces/*.once"))
    await until(lambda: not list(place.runtime_dir.glob("once-*")))


async def test_code_without_a_session_ends_with_its_wait(client: Client, place: Place) -> None:
    """Nobody could collect it later, so the call ends it."""
    result = await call(client, "python_repl", code="print('begun')\nwhile True: pass", wait=0.5)
    assert (result["status"], result["stdout"]) == ("timeout", "begun\n")
    await until(lambda: not list(place.runtime_dir.glob("once-*")))


async def test_cancelling_a_call_without_a_session_ends_its_kernel(client: Client, place: Place) -> None:
    """Kernel and workspace are gone."""
    async with anyio.create_task_group() as group:

        async def work() -> None:
            await call(client, "python_repl", code=f"{says('started')}\n{waits_for('never')}")

        group.start_soon(work)
        (mark,) = await until(lambda: list(place.runtime_dir.glob("once-*/started")))
        at_work = [process for process in psutil.process_iter() if works_in(process, mark.parent)]
        assert at_work
        group.cancel_scope.cancel()
    await until(lambda: not list(place.runtime_dir.glob("once-*")))
    assert not [process for process in at_work if process.is_running()]


# Lists


async def test_variables_are_listed_with_the_fields_of_the_spec(client: Client, s: str) -> None:
    """name, type and size_bytes, and whether and when it was saved."""
    await run(client, "x = 42\ny = 'hello'\nrows = list(range(1000))", s)
    listed = await call(client, "python_list_variables", session_id=s)
    assert (listed["session_id"], listed["variable_count"]) == (s, 3)
    entries = {entry["name"]: entry for entry in listed["variables"]}
    assert {name: entry["type"] for name, entry in entries.items()} == {"x": "int", "y": "str", "rows": "list"}
    assert entries["x"]["size_bytes"] == 28
    assert entries["rows"]["size_bytes"] > 8000
    for entry in entries.values():
        assert entry["saved"] is True
        assert UTC.match(entry["updated_at"])


async def test_variables_are_listed_while_the_session_is_busy(client: Client, place: Place, s: str) -> None:
    """The list is answered from what is stored, without waiting for the code."""
    await run(client, "x = 1", s)
    running = asyncio.create_task(run(client, f"y = 2\n{says('started')}\n{waits_for('go')}", s))
    await until(lambda: place.said("started", s))
    listed = await call(client, "python_list_variables", session_id=s)
    assert [entry["name"] for entry in listed["variables"]] == ["x"]
    assert await kernel_state(client, s) == "busy"
    place.file("go", s).touch()
    assert (await running)["status"] == "ok"
    listed = await call(client, "python_list_variables", session_id=s)
    assert [entry["name"] for entry in listed["variables"]] == ["x", "y"]


async def test_sessions_are_listed_with_the_fields_of_the_spec(client: Client, s: str) -> None:
    """The latest used first, with counts and times in UTC."""
    await run(client, "x = 1", s)
    await run(client, "y = 2", s)
    listed = await call(client, "python_list_sessions")
    assert listed["session_count"] == len(listed["sessions"])
    entry = listed["sessions"][0]
    assert (entry["session_id"], entry["variable_count"], entry["total_executions"]) == (s, 2, 2)
    assert (entry["state"], entry["kernel"], entry["sandbox"]) == ("active", "idle", this_tier().label)
    assert UTC.match(entry["created_at"])
    assert UTC.match(entry["last_used_at"])
    assert entry["created_at"] <= entry["last_used_at"]


# Clear, delete, reset


async def test_clear_empties_a_session_and_keeps_its_files(client: Client, place: Place, s: str) -> None:
    """Variables go; the session, its count and its workspace stay."""
    await run(client, f"x = 1; y = 2\n{says('kept')}", s)
    cleared = await call(client, "python_clear_session", session_id=s)
    assert cleared["session_id"] == s
    assert (await call(client, "python_list_variables", session_id=s))["variables"] == []
    assert await kernel_state(client, s) == "asleep"
    after = await run(client, "open('kept').read(), 'x' in globals()", s)
    assert after["result"] == "('x', False)"
    assert after["execution_count"] == 2


async def test_reset_forgets_the_variables_first(client: Client, place: Place, s: str) -> None:
    """The code runs in an empty namespace, in the same session with its files."""
    await run(client, f"x = 1\n{says('kept')}", s)
    after = await run(client, "y = 2\n'x' in globals(), open('kept').read()", s, reset=True)
    assert after["result"] == "(False, 'x')"
    assert after["restored"] is None
    listed = await call(client, "python_list_variables", session_id=s)
    assert [entry["name"] for entry in listed["variables"]] == ["y"]


async def test_a_deleted_session_comes_back_empty(client: Client, place: Place, s: str) -> None:
    """No variables, no files, no rows; the id is free again."""
    await run(client, f"x = 1\n{says('file')}", s)
    workspace = place.file("", s)
    await call(client, "python_delete_session", session_id=s)
    assert s not in {entry["session_id"] for entry in (await call(client, "python_list_sessions"))["sessions"]}
    assert not workspace.exists()
    assert s in await refusal(client, "python_list_variables", session_id=s)
    fresh = await run(client, "import os; 'x' in globals(), os.listdir()", s)
    assert (fresh["result"], fresh["execution_count"], fresh["restored"]) == ("(False, [])", 1, None)


async def test_delete_stops_the_code_that_runs(client: Client, place: Place, s: str) -> None:
    """The call in flight gets an answer, and nothing of the session is left."""
    running = asyncio.create_task(run(client, f"{says('started')}\n{waits_for('never')}", s))
    await until(lambda: place.said("started", s))
    await call(client, "python_delete_session", session_id=s)
    stopped = await running
    assert stopped["committed"] is False
    assert stopped["status"] in ("crashed", "interrupted")
    assert not place.rows("SELECT id FROM sessions WHERE session_id = ?", s)


# Refusals


async def test_an_unknown_session_is_an_error_that_names_close_ones(client: Client, s: str) -> None:
    """A typing error is easy to mend, and makes no session."""
    await run(client, "1", s)
    for tool in TOOLS - {"python_repl", "python_list_sessions"}:
        said = await refusal(client, tool, session_id=s + "x")
        assert repr(s + "x") in said
        assert f"did you mean {s!r}" in said
        assert "python_list_sessions" in await refusal(client, tool, session_id="zzzzzzzzzz")
    listed = await call(client, "python_list_sessions")
    assert [entry["session_id"] for entry in listed["sessions"]] == [s]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"session_id": ""}, "session_id"),
        ({"session_id": "../up"}, "session_id"),
        ({"session_id": "a" * 101}, "session_id"),
        ({"session_id": "bad\nname"}, "session_id"),
        ({"wait": -1}, "wait"),
        ({"wait": 1e9}, "wait"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 1e9}, "timeout"),
        ({"code": "x = '\0'"}, "NUL"),
        ({"code": "#" * 5_000_001}, "bytes"),
        ({"code": 1}, "code"),
        ({"wait": "soon"}, "wait"),
    ],
)
async def test_an_argument_that_cannot_be_is_refused_by_name(
    client: Client, s: str, arguments: dict[str, Any], named: str
) -> None:
    """Nothing runs, no session is made, and the connection lives."""
    before = await call(client, "python_list_sessions")
    assert named in await refusal(client, "python_repl", **{"code": "1", "session_id": s, **arguments})
    assert await call(client, "python_list_sessions") == before


# Several at once


async def test_eight_concurrent_calls_lose_nothing(client: Client, s: str) -> None:
    """One session, one client: each call runs once, one after the other."""
    await run(client, "n = 0; order = []", s)
    results = await asyncio.gather(*(run(client, f"n += 1; order.append({i})\nn", s) for i in range(8)))
    assert sorted(int(result["result"]) for result in results) == list(range(1, 9))
    assert sorted(result["execution_count"] for result in results) == list(range(2, 10))
    assert (await run(client, "n, sorted(order)", s))["result"] == "(8, [0, 1, 2, 3, 4, 5, 6, 7])"


async def test_two_clients_share_a_session(shared_environ: dict[str, str], mode: str, s: str) -> None:
    """Two hosts at once: both see one state, and neither loses a call."""
    async with host(shared_environ, mode) as one, host(shared_environ, mode) as two:
        assert (await run(one, "n = 0; import os; os.getpid()", s))["result"] == (await run(two, "os.getpid()", s))[
            "result"
        ]
        await asyncio.gather(*(run(client, "n += 1", s) for client in (one, two) * 5))
        assert (await run(one, "n", s))["result"] == (await run(two, "n", s))["result"] == "10"


async def test_a_second_client_waits_for_what_the_first_began(
    shared_environ: dict[str, str], place: Place, mode: str, s: str
) -> None:
    """An execution belongs to the session: whoever asks gets its outcome, after the first client has left too."""
    async with host(shared_environ, mode) as one:
        assert (await run(one, f"{says('started')}\n{waits_for('go')}\n'over'", s, wait=0))["status"] == "running"
        await until(lambda: place.said("started", s))
    async with host(shared_environ, mode) as two:
        place.file("go", s).touch()
        assert (await call(two, "python_wait", session_id=s))["result"] == "'over'"


async def test_sessions_run_side_by_side(client: Client, place: Place, s: str) -> None:
    """Code that waits in one session ends only after code in another one has run."""
    one, two = s + ":1", s + ":2"
    waiting = asyncio.create_task(run(client, f"{says('started')}\n{waits_for('go')}\n'over'", one))
    await until(lambda: place.said("started", one))
    assert (await run(client, "6 * 7", two))["result"] == "42"
    assert await kernel_state(client, one) == "busy"
    assert not waiting.done()
    place.file("go", one).touch()
    assert (await waiting)["result"] == "'over'"


async def test_sessions_do_not_see_each_other(client: Client, s: str) -> None:
    """The same name is another variable in another session."""
    one, two = s + ":1", s + ":2"
    await asyncio.gather(run(client, "x = 1", one), run(client, "x = 2", two))
    assert [(await run(client, "x", name))["result"] for name in (one, two)] == ["1", "2"]
