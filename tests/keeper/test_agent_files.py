"""Files for agents: a reply says what its code has written, and a host reads it as a resource."""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, ResourceLink

from kernelrepl import python_repl
from kernelrepl.client import tools
from kernelrepl.mcp.files import FILE_BYTES, MOST_LINKS
from tests.support.mcp_hosts import (
    FIELDS,
    MODES,
    Place,
    call,
    command,
    host,
    kill_9,
    run,
    says,
    text_of,
    until,
    waits_for,
)

pytestmark = pytest.mark.anyio

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def place(shared_environ: dict[str, str]) -> Place:
    return Place(shared_environ)


@pytest.fixture(params=MODES)
async def client(request: pytest.FixtureRequest, shared_environ: dict[str, str]) -> AsyncIterator[Client]:
    async with host({**shared_environ, **FIELDS}, request.param) as connected:
        yield connected
        for entry in (await call(connected, "python_list_sessions"))["sessions"]:
            await call(connected, "python_delete_session", session_id=entry["session_id"])


@pytest.fixture
def s(request: pytest.FixtureRequest) -> str:
    """A session of this test alone."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name).strip("-")[:100]


def links_of(result: CallToolResult) -> list[ResourceLink]:
    return [block for block in result.content if block.type == "resource_link"]


async def python(client: Client, code: str, session_id: str | None = None) -> CallToolResult:
    """The whole reply to a piece of code, which must succeed."""
    arguments = {"code": code} if session_id is None else {"code": code, "session_id": session_id}
    result = await client.call_tool("python_repl", arguments)
    assert not result.is_error
    assert result.structured_content is not None
    assert result.structured_content["status"] == "ok", text_of(result)
    return result


def fields_of(result: CallToolResult) -> dict[str, Any]:
    assert result.structured_content is not None
    return dict(result.structured_content)


async def read(client: Client, uri: str) -> tuple[str | bytes, str | None]:
    """What a host gets at an address, and of what type it is."""
    [content] = (await client.read_resource(uri)).contents
    text = getattr(content, "text", None)
    return (text if text is not None else base64.b64decode(getattr(content, "blob", ""))), content.mime_type


async def refusal(client: Client, uri: str) -> str:
    """Why an address is refused: never as a fault of the server."""
    with pytest.raises(MCPError) as refused:
        await client.read_resource(uri)
    assert refused.value.code == INVALID_PARAMS
    return str(refused.value)


def uri_of(session_id: str, path: str) -> str:
    return f"kernelrepl://sessions/{session_id}/files/{path}"


async def test_a_reply_names_what_its_code_has_written(client: Client, s: str) -> None:
    """In a line, in a field and with a link at which the host reads it; the next reply says nothing of it."""
    result = await python(client, "open('out.csv', 'w').write('a,b\\n1,2\\n')", s)
    assert text_of(result) == "8\n⟦files⟧ wrote out.csv (8 bytes)"
    assert fields_of(result)["files"] == [{"path": "out.csv", "size_bytes": 8, "by": "code"}]
    assert fields_of(result)["more_files"] is False
    [link] = links_of(result)
    assert (link.uri, link.name, link.mime_type, link.size) == (uri_of(s, "out.csv"), "out.csv", "text/csv", 8)
    assert await read(client, link.uri) == ("a,b\n1,2\n", "text/csv")
    quiet = await python(client, "x = 1; open('out.csv').read()", s)
    assert fields_of(quiet)["files"] == []
    assert "⟦files⟧" not in text_of(quiet)
    assert links_of(quiet) == []


async def test_a_file_is_text_or_bytes_by_what_it_is(client: Client, s: str) -> None:
    """Its type is by its name."""
    code = f"""
from pathlib import Path
Path('a').mkdir()
Path('a/p.png').write_bytes({PNG!r})
Path('a/latin.csv').write_bytes('é'.encode('latin-1'))
Path('plain').write_text('é')
Path('a/nul').write_bytes(b'a\\0b')
Path('n.svg').write_text('<svg/>')
_ = Path('empty.json').write_text('')
"""
    result = await python(client, code, s)
    assert len(links_of(result)) == MOST_LINKS
    assert len(fields_of(result)["files"]) == 6
    for path, content, kind in (
        ("a/p.png", PNG, "image/png"),
        ("a/latin.csv", b"\xe9", "text/csv"),
        ("plain", "é", "text/plain"),
        ("a/nul", b"a\0b", "application/octet-stream"),
        ("n.svg", "<svg/>", "image/svg+xml"),
        ("empty.json", "", "application/json"),
    ):
        assert await read(client, uri_of(s, path)) == (content, kind), path


@pytest.mark.parametrize(
    "name", ["a b", "100%", "%2e%2e", "a%2Fb", "ü?#&;", "⟦note⟧ x", "new\nline", "\x1b[2J", "{x}", "C:\\x"]
)
async def test_any_name_leads_back_to_its_file(client: Client, s: str, name: str) -> None:
    """Percent-encoded in the address; as a field where a model reads it."""
    result = await python(client, f"_ = open({name!r}, 'w').write({name!r})", s)
    [link] = links_of(result)
    assert (await read(client, link.uri))[0] == name
    [line] = text_of(result).splitlines()
    assert line.startswith("⟦files⟧ wrote ")
    assert line.count("⟦") == 1
    assert "\x1b" not in line


async def test_a_name_that_is_no_text_has_no_link(client: Client, s: str) -> None:
    """It is told all the same."""
    result = await python(client, "import os; os.close(os.open(b'\\xff.csv', os.O_CREAT | os.O_WRONLY))", s)
    assert "'\\udcff.csv' (0 bytes)" in text_of(result)
    assert links_of(result) == []


async def test_the_magic_that_writes_a_file_works(client: Client, s: str) -> None:
    """For code that a model writes as text, without quotes and escapes."""
    result = await python(client, "%%writefile tool.py\ndef f():\n    return 'a\\n'\n", s)
    assert "⟦files⟧ wrote tool.py (26 bytes)" in text_of(result)
    assert (await read(client, uri_of(s, "tool.py")))[0] == "def f():\n    return 'a\\n'\n"
    assert fields_of(await python(client, "from tool import f; f()", s))["result"] == "'a\\n'"
    appended = await python(client, "%%writefile -a tool.py\nx = 1\n", s)
    assert [file["path"] for file in fields_of(appended)["files"]] == ["tool.py"]


async def test_thousands_of_files_cost_a_model_a_line(client: Client, s: str) -> None:
    """And the next call is told of none."""
    result = await python(client, "for n in range(5000): open(f'{n:05}.txt', 'w').close()", s)
    assert len(text_of(result)) < 1200
    assert re.search(r", [\d,]+ more; there may be more", text_of(result))
    assert len(fields_of(result)["files"]) == 20
    assert fields_of(result)["more_files"] is True
    assert len(links_of(result)) == MOST_LINKS
    assert fields_of(await python(client, "x = 1", s))["files"] == []


async def test_a_call_without_a_session_says_that_its_files_are_gone(client: Client) -> None:
    """So that nobody looks for them."""
    result = await python(client, "_ = open('out.csv', 'w').write('x')")
    assert text_of(result) == "⟦files⟧ gone with this call: out.csv (1 byte); a session_id keeps files"
    assert fields_of(result)["files"] == []
    assert links_of(result) == []


async def test_what_is_no_file_of_the_session_is_not_found(
    client: Client, s: str, place: Place, shared_environ: dict[str, str], tmp_path: Path
) -> None:
    """No link is followed and no pipe waited for, and no other session is read."""
    other = f"{s}-other"
    await python(client, "_ = open('secret', 'w').write('of another')", other)
    root = place.file("", other)
    code = f"""
import os
os.symlink('/etc/passwd', 'link')
os.symlink('/etc', 'directory')
os.symlink('../{root.name}/secret', 'across')
os.mkfifo('pipe')
os.mkdir('made')
_ = open('large', 'wb').truncate({FILE_BYTES} + 1)
"""
    result = await python(client, code, s)
    assert [file["path"] for file in fields_of(result)["files"]] == ["large"]
    os.link("/etc/hostname" if os.geteuid() == 0 else place.file("secret", other), place.file("hard", s))
    for path, word in (
        ("link", "symbolic link"),
        ("directory/passwd", "symbolic link"),
        ("across", "symbolic link"),
        ("hard", "hard links"),
        ("pipe", "is no file but a pipe"),
        ("made", "is a directory"),
        ("none", "is not there"),
        ("large/none", "no directory"),
        (f"../{root.name}/secret", "'..'"),
        (f"..%2F{root.name}%2Fsecret", "'..'"),
        (f"%2e%2e/{root.name}/secret", "'..'"),
        (f"made/../../{root.name}/secret", "'..'"),
        ("/etc/passwd", "absolute path"),
        ("%2Fetc%2Fpasswd", "absolute path"),
        ("a%00b", "no name"),
        ("%FF", "is not there"),
        ("", "itself"),
        (".", "itself"),
        ("x" * 5000, "cannot be used"),
        ("large", "`kernelrepl get`"),
    ):
        assert word in await refusal(client, uri_of(s, path)), path
    assert "there is no session" in await refusal(client, uri_of("never-made", "out.csv"))
    await refusal(client, uri_of("no%2Fid", "out.csv"))
    await refusal(client, uri_of(f"{s}/files/x/../../{other}", "secret"))
    done = command(shared_environ, "get", s, "large", "--to", str(tmp_path))
    assert done.returncode == 0, done.stderr


async def test_the_largest_file_that_fits_is_whole(client: Client, s: str) -> None:
    """With every byte."""
    await python(client, f"_ = open('f', 'w').write('x' * {FILE_BYTES})", s)
    assert await read(client, uri_of(s, "f")) == ("x" * FILE_BYTES, "text/plain")


async def test_files_and_their_addresses_outlive_the_kernel(client: Client, s: str, place: Place) -> None:
    """A kernel that is killed leaves what its code had written, and the reply says what that was."""
    await python(client, "_ = open('before', 'w').write('1')", s)
    kill_9(place.kernel(s))
    assert (await read(client, uri_of(s, "before")))[0] == "1"
    died = await run(client, "import os; open('last', 'w').write('2'); os.kill(os.getpid(), 9)", s)
    assert died["status"] == "crashed"
    assert [file["path"] for file in died["files"]] == ["last"]
    assert (await read(client, uri_of(s, "last")))[0] == "2"
    failed = await run(client, "open('third', 'w').write('3'); 1 / 0", s)
    assert failed["status"] == "error"
    assert [file["path"] for file in failed["files"]] == ["third"]


async def test_code_that_goes_on_tells_when_it_is_collected(client: Client, s: str, place: Place) -> None:
    """With all that was written while it ran; what was there before is not among that."""
    await python(client, "_ = open('earlier', 'w').write('x')", s)
    running = await run(client, f"{says('started')}\n{waits_for('go')}\n_ = open('late', 'w').write('x')", s, wait=0)
    assert (running["status"], running["files"]) == ("running", [])
    await until(lambda: place.said("started", s))
    place.file("go", s).touch()
    collected = await call(client, "python_wait", session_id=s)
    assert [file["path"] for file in collected["files"]] == ["go", "late", "started"]


async def test_what_a_person_puts_is_told_once(
    client: Client, s: str, shared_environ: dict[str, str], tmp_path: Path
) -> None:
    """In the next reply, and not as something that code has written."""
    (tmp_path / "data.csv").write_text("abc")
    await python(client, "x = 1", s)
    done = command(shared_environ, "put", s, str(tmp_path / "data.csv"), "--to", "in")
    assert done.returncode == 0, done.stderr
    result = await python(client, "_ = open('out', 'w').write(open('in/data.csv').read())", s)
    assert text_of(result) == "⟦files⟧ put by a person: in/data.csv (3 bytes)\n⟦files⟧ wrote out (3 bytes)"
    assert fields_of(result)["files"] == [
        {"path": "in/data.csv", "size_bytes": 3, "by": "person"},
        {"path": "out", "size_bytes": 3, "by": "code"},
    ]
    assert fields_of(await python(client, "x = 2", s))["files"] == []


async def test_what_is_written_between_two_cells_is_nobodys(client: Client, s: str, place: Place) -> None:
    """A thread that an earlier cell has left is no part of the next one."""
    code = """
import os, threading, time
def later():
    while not os.path.exists('go'): time.sleep(0.01)
    open('between', 'w').close()
threading.Thread(target=later).start()
"""
    await python(client, code, s)
    place.file("go", s).touch()
    await until(lambda: place.file("between", s).exists())
    await asyncio.sleep(0.05)  # longer than a tick of the clock of files
    assert fields_of(await python(client, "x = 1", s))["files"] == []


async def test_a_put_survives_a_keeper_that_is_killed(environ: dict[str, str], tmp_path: Path) -> None:
    """The note of it is a file; deleting the session takes it along."""
    place = Place(environ)
    (tmp_path / "data.csv").write_text("abc")
    async with host(environ) as client:
        await python(client, "x = 1", "s")
        assert command(environ, "put", "s", str(tmp_path / "data.csv")).returncode == 0
        kill_9(place.keeper)
        result = await python(client, "x", "s")
        assert "⟦files⟧ put by a person: data.csv (3 bytes)" in text_of(result)
        assert command(environ, "put", "s", str(tmp_path / "data.csv"), "--force").returncode == 0
        await call(client, "python_delete_session", session_id="s")
        assert list((place.data_dir / "workspaces").iterdir()) == []


async def test_the_python_api_and_the_command_line_have_them(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a field, and as a line on stderr."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    try:
        result = await python_repl("_ = open('out.csv', 'w').write('x')", session_id="s")
        assert result["files"] == [{"path": "out.csv", "size_bytes": 1, "by": "code"}]
        assert "⟦files⟧ wrote out.csv (1 byte)" in result.remarks
    finally:
        await tools.close()
    done = command(environ, "exec", "-s", "s", "_ = open('b', 'w').write('x')")
    assert (done.returncode, done.stdout) == (0, "")
    assert "⟦files⟧ wrote b (1 byte)" in done.stderr
