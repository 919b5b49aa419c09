"""The keeper as a target: whatever a kernel sends, it costs that kernel and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zmq.asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jupyter_client.session import DELIM, Session

from kernelrepl.errors import StorageFailed
from kernelrepl.guest import wire
from kernelrepl.kernel import channel, turns, zmtp
from kernelrepl.kernel import client as jupyter
from kernelrepl.kernel.channel import HostChannel, text_of
from kernelrepl.kernel.client import JupyterClient
from kernelrepl.kernel.commits import parse_commit
from kernelrepl.kernel.flood import Amount, Budget, FloodLimits, Verdict
from kernelrepl.mcp.results import of_execution
from kernelrepl.model import Commit, ExecutionResult, Limits, Output
from kernelrepl.outputs import passing, transcript
from kernelrepl.outputs.transcript import DROPPED, Transcript, fold, load
from kernelrepl.store import Store
from tests.conftest import RUN_TIMEOUT_S, Sessions, stored_bytes
from tests.support.database import writer
from tests.unit.test_transcript import CONTENTS, JSON, PICTURES, TEXTS
from tests.unit.test_wire import PAYLOAD, VALID

# Frames

WHOLE = wire.encode(VALID, len(PAYLOAD)) + PAYLOAD
SMALL_FRAME = wire.encode({"type": "begin", "request": "r"}, 0)


def deep(depth: int) -> Any:
    """A list in a list in a list …"""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Deep(int):
    """So deep a value, which is made in the test only: the report of an example prints it."""


def with_depth(value: Any) -> Any:
    """The same, with deep values in the places of their depths."""
    if isinstance(value, Deep):
        return deep(value)
    if isinstance(value, dict):
        return {key: with_depth(part) for key, part in value.items()}
    return value


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """Valid bytes with a few of them replaced, inserted, cut out or doubled."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(at + draw(st.integers(0, 8)), len(data))
        data[at:end] = draw(st.binary(max_size=8) | st.just(bytes(data[at:end]) * 2))
    return bytes(data)


async def received(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """What the keeper gets of a stream of bytes; the test fails if it ends in anything but an error of the channel."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    host = await HostChannel.open(ours)
    frames = []
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            while True:
                frames.append(await host.recv())
        except wire.WireError:
            return frames
        finally:
            host.close()


@settings(max_examples=200)
@given(st.binary(max_size=200) | mutated(WHOLE) | mutated(SMALL_FRAME * 3) | mutated(WHOLE).map(lambda b: b + WHOLE))
def test_any_bytes_are_frames_or_an_error_of_the_channel(data: bytes) -> None:
    """And what is a frame makes a commit or such an error."""
    for header, payload in asyncio.run(received(data)):
        assert isinstance(header["type"], str)
        assert len(payload) <= len(data)
        text_of(header, 100).encode()
        if header["type"] == "commit":
            parsed(header, payload)


@given(st.binary(min_size=wire.PREFIX.size, max_size=wire.PREFIX.size) | mutated(WHOLE[: wire.PREFIX.size]))
def test_any_prefix_is_bounded_or_an_error_of_the_channel(prefix: bytes) -> None:
    """Before anything of its length is read."""
    prefix = prefix.ljust(wire.PREFIX.size, b"\0")[: wire.PREFIX.size]
    try:
        header_bytes, payload_bytes = wire.parse_prefix(prefix)
    except wire.WireError:
        return
    assert header_bytes <= wire.MAX_HEADER_BYTES
    assert payload_bytes <= wire.MAX_PAYLOAD_BYTES


@given(
    st.binary(max_size=100) | mutated(WHOLE[wire.PREFIX.size : -len(PAYLOAD)]) | JSON.map(json.dumps).map(str.encode)
)
def test_any_header_is_an_object_with_a_type_or_an_error_of_the_channel(body: bytes) -> None:
    """Text that is no UTF-8, JSON that is no object, numbers of any length."""
    try:
        header = wire.parse_header(body)
    except wire.WireError:
        return
    assert isinstance(header["type"], str)


@pytest.mark.anyio
async def test_a_header_that_would_take_far_more_than_its_length_is_refused() -> None:
    """Deep ones cannot even be printed; many empty lists take thirty times their length in memory."""
    for body in (
        b'{"type": "begin", "request": ' + b"[" * 9 + b"]" * 9 + b"}",
        b'{"type": "hello", "python": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"type": "begin", "more": [' + b"[]," * 400_000 + b"1]}",
    ):
        frame = wire.PREFIX.pack(wire.MAGIC, len(body), 0) + body
        reading = asyncio.create_task(received_from_thread(frame))
        assert await reading == []
    accepted = b'{"type": "begin", "request": ' + b"[" * 6 + b"]" * 6 + b"}"
    assert len(await received(wire.PREFIX.pack(wire.MAGIC, len(accepted), 0) + accepted)) == 1


async def received_from_thread(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The same as `received` for more than a socket holds."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    host = await HostChannel.open(ours)
    frames: list[tuple[dict[str, Any], bytes]] = []

    def send() -> None:
        with theirs:
            try:
                theirs.sendall(data)
            except ConnectionError:
                return  # the reader has seen enough

    sending = asyncio.create_task(asyncio.to_thread(send))
    try:
        while True:
            frames.append(await host.recv())
    except wire.WireError:
        return frames
    finally:
        host.close()
        await sending


@pytest.mark.anyio
async def test_far_too_many_frames_are_an_error_of_the_channel() -> None:
    """And reading them gives turns to others."""
    limits = FloodLimits(kill=Amount(1000, float("inf")), drained_a_second=Amount(0, 0))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    host = await HostChannel.open(ours, limits)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    with theirs:
        theirs.sendall(SMALL_FRAME * 1001)
        for _ in range(1000):
            await host.recv()
        with pytest.raises(wire.WireError, match="floods"):
            await host.recv()
    beside.cancel()
    host.close()
    assert turns >= 1000 // channel._FRAMES_A_TURN


@pytest.mark.anyio
async def test_a_kernel_that_has_taken_much_lets_others_go_first() -> None:
    """Everybody else has several turns between two of it, which are shorter; it still gets on."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    budget = Budget(burst_s=1e6)
    host = await HostChannel.open(ours, FloodLimits(kill=Amount(1e6, 1e9)), budget)
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns[-1] += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    with theirs:
        for seconds in (0.0, 1e3):
            budget.spend(seconds)
            turns.append(0)
            theirs.sendall(SMALL_FRAME * 500)
            for _ in range(500):
                await host.recv()
    beside.cancel()
    host.close()
    light, heavy = turns
    assert heavy > 10 * light > 0


@pytest.mark.anyio
async def test_who_floods_rests_unless_others_would_wait_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while its kernel starts or has ended, and not with a seat."""
    rests: list[float] = []

    async def noted(*, heavy: bool, took_s: float = 0.0) -> None:
        rests.append(took_s)

    monkeypatch.setattr(turns, "give_way", noted)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    budget = Budget(burst_s=1e6)
    host = await HostChannel.open(ours, FloodLimits(kill=Amount(1e6, 1e9)), budget)
    budget.spend(1e3)

    async def rested() -> bool:
        rests.clear()
        theirs.sendall(SMALL_FRAME * 200)
        for _ in range(200):
            await host.recv()
        assert rests
        return any(rests)

    with theirs:
        assert not await rested()
        host.may_rest = True
        assert await rested()
        await budget.held.hold("draft", 8 << 20)
        assert not await rested()
        budget.held.let_go("draft")
        assert await rested()
        host.hurry.set()
        assert not await rested()
    host.close()


# Commits


def parsed(header: dict[str, Any], payload: bytes) -> Commit | None:
    """A commit, or None if it was refused in the only way there is."""
    try:
        return parse_commit(header, payload, "3.12\udc80")
    except wire.WireError:
        return None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, "nan"])
def test_a_duration_is_a_number_of_seconds(seconds: Any) -> None:
    """NaN could be neither stored nor sent."""
    header = copy.deepcopy(VALID)
    header["outcome"]["duration_s"] = seconds
    assert parsed(header, PAYLOAD) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("unsaved", "x"), ["socket", "x", "why", ""]),
        (("components", 1, "roots"), [1, 5]),
        (("components", 1, "roots"), [5, 5]),
        (("components", 2, "roots"), [9, 5]),
    ],
)
def test_a_commit_that_contradicts_itself_is_refused(path: tuple[str | int, ...], value: Any) -> None:
    """A name that is saved and not saved, a value that is in two places."""
    assert parsed(replaced(VALID, path, value), PAYLOAD) is None


def replaced(header: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    header = copy.deepcopy(header)
    place: Any = header
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return header


HISTORY_BYTES = 30_000


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for many commits: what one of them breaks shows in the next."""
    store = Store(tmp_path_factory.mktemp("store") / "python_sessions.db", max_history_bytes=HISTORY_BYTES)
    store.open()
    yield store
    store.close()


ROOTS = st.integers(0, 6) | st.integers(0, (1 << 62) - 1)
NAMES = st.sampled_from(["a", "b", "*random", "_", "%", "n\0ul", "x'; DROP TABLE names; --", ""]) | TEXTS
COMPONENTS = st.fixed_dictionaries(
    {
        "roots": st.lists(ROOTS, min_size=1, max_size=3),
        "references": st.lists(ROOTS, max_size=3),
        "segments": st.lists(st.integers(0, 4) | st.just(9000), min_size=1, max_size=3),
        "code": st.booleans(),
    },
    optional={"staged": st.booleans()},
)
HEADERS = st.fixed_dictionaries(
    {
        "type": st.just("commit"),
        "cause": TEXTS,
        "request": TEXTS,
        "outcome": st.none()
        | st.fixed_dictionaries(
            {
                "status": st.sampled_from(["ok", "error", "crashed", ""]),
                "execution_count": ROOTS,
                "duration_s": st.floats() | st.integers(),
                "error": st.none() | st.tuples(TEXTS, TEXTS).map(list),
            }
        ),
        "outputs_bytes": st.integers(0, 8),
        "names": st.dictionaries(NAMES, st.tuples(ROOTS, TEXTS, ROOTS, TEXTS).map(list), max_size=4),
        "unsaved": st.dictionaries(NAMES, st.tuples(TEXTS, TEXTS, TEXTS, TEXTS).map(list), max_size=3),
        "deleted": st.lists(NAMES, max_size=3),
        "components": st.lists(COMPONENTS, max_size=4),
        "closed": st.lists(ROOTS, max_size=3),
        "magic": TEXTS,
        "saved": st.fixed_dictionaries(dict.fromkeys(("created", "changed", "deleted"), st.lists(NAMES, max_size=2))),
        "failure": st.none() | TEXTS,
    }
)
PIECES = st.lists(st.tuples(ROOTS, st.sampled_from([b"", b"1", b"22", b"p" * 9000])), max_size=4)
COMMITS = st.lists(st.tuples(HEADERS, st.binary(max_size=12) | st.just(b"d" * 30_000), PIECES), min_size=1, max_size=3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(commits=COMMITS)
def test_any_commit_is_stored_or_refused_whole(opened: Store, commits: list[tuple[Any, bytes, Any]]) -> None:
    """Names, roots, references, keys and pieces of any kind: the session can be read, the other one is untouched."""
    asyncio.run(publish_all(opened, commits))


async def publish_all(store: Store, commits: list[tuple[Any, bytes, Any]]) -> None:
    victim, hostile = [(await store.create_session(secrets.token_hex(8), "w", {}))[0] for _ in range(2)]
    limits = Limits(20_000, 40_000)
    ours = parse_commit(copy.deepcopy(VALID) | {"components": VALID["components"][:2]}, PAYLOAD, "3.12")
    await store.publish(victim, None, ours, limits, None)
    refusals: list[str] = []
    before = await all_of(store, victim)
    assert len(before[2]) == 2
    for header, payload, pieces in commits:
        row = await store.start_execution(hostile, secrets.token_hex(8), "test", "a = 1")
        for index, piece in pieces:
            with contextlib.suppress(StorageFailed):  # of a component that no commit can have
                await store.stage(hostile, index, piece, limits)
        commit = parsed(header, payload)
        if commit is None:
            await store.discard_staged(hostile)
            continue
        previous = await all_of(store, hostile)
        try:
            await store.publish(hostile, row, commit, limits, None)
        except StorageFailed as error:
            refusals.append(str(error))
            assert await all_of(store, hostile) == previous
        [info] = [entry for entry in await store.list_sessions() if entry.key == hostile]
        assert info.size_bytes <= 40_000
        await store.last_execution(hostile)
    assert not [text for text in refusals if "kernelrepl doctor" in text], "refused by accident"
    await store.collect()
    await all_of(store, hostile)
    assert await all_of(store, victim) == before
    checks = await writer(store).run(
        lambda db: [db.execute(f"PRAGMA {check}").fetchall() for check in ("foreign_key_check", "quick_check")]
    )
    assert checks == [[], [("ok",)]]


async def all_of(store: Store, session: int) -> tuple[Any, ...]:
    """Everything that can be read of a session."""
    manifest = await store.manifest(session)
    loaded = [await stored_bytes(store, part) for part in manifest.components]
    for part, data in zip(manifest.components, loaded, strict=True):
        assert len(data) == sum(part.segments)
    return manifest.names, manifest.stories, loaded, await store.variables(session)


@pytest.mark.anyio
async def test_pieces_ahead_of_a_commit_that_never_comes_are_bounded(opened: Store) -> None:
    """By what the session may have; the commit they belong to fails, the next one does not."""
    session, _ = await opened.create_session("stages", "w", {})
    limits = Limits(None, 25_000)
    await opened.stage(session, 0, b"a" * 20_000, limits)
    for index in (0, 1):
        with pytest.raises(StorageFailed, match="25000 are allowed"):
            await opened.stage(session, index, b"b" * 20_000, limits)
    entry = {"roots": [1], "references": [], "segments": [40_000], "code": False, "inert": False, "staged": True}
    commit = parsed({**VALID, "components": [entry], "names": {}}, b"[]")
    assert commit is not None
    with pytest.raises(StorageFailed, match="ahead of its commit"):
        await opened.publish(session, None, commit, Limits(None, None), None)
    await opened.stage(session, 0, b"c" * 20_000, limits)
    commit = parsed({**VALID, "components": [{**entry, "segments": [20_000]}], "names": {}}, b"[]")
    assert commit is not None
    await opened.publish(session, None, commit, limits, None)
    [part] = (await opened.manifest(session)).components
    assert await stored_bytes(opened, part) == b"c" * 20_000


@pytest.mark.anyio
async def test_one_execution_that_commits_for_ever_does_not_fill_the_disk(
    opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is superseded, and pieces of commits that failed, go when too much has come together."""

    async def stored() -> int:
        [(found,)] = await writer(opened).run(lambda db: db.execute("SELECT SUM(LENGTH(data)) FROM chunks").fetchall())
        return int(found or 0)

    await opened.collect()
    before, most = await stored(), 0
    monkeypatch.setattr("kernelrepl.store.collector.COLLECT_AT_ONCE_BYTES", 100_000)
    session, _ = await opened.create_session("commits", "w", {})
    entry = {"roots": [1], "references": [], "segments": [20_000], "code": False, "inert": False}
    for number in range(20):
        commit = parsed(
            {**VALID, "components": [entry], "names": {"x": [1, "b", 1, ""]}}, b"[]" + bytes([number]) * 20_000
        )
        assert commit is not None
        await opened.publish(session, None, commit, Limits(), None)
        most = max(most, await stored() - before)
    for number in range(20):
        await opened.stage(session, 0, bytes([100 + number]) * 20_000)
        await opened.discard_staged(session)
        most = max(most, await stored() - before)
    # What is full when a collection begins, and again while it works: each by one commit too much.
    assert most <= 2 * (100_000 + 20_000) + HISTORY_BYTES
    await opened.collect()
    assert await stored() - before <= HISTORY_BYTES + 20_000


@pytest.mark.anyio
async def test_names_without_bytes_are_bounded_too(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in length; deleting some makes room."""
    session, _ = await opened.create_session("names", "w", {})

    def of(names: dict[str, str], *deleted: str) -> Commit:
        unsaved = {name: ["t", "p", reason, ""] for name, reason in names.items()}
        header = {**VALID, "names": {}, "components": [], "closed": [], "unsaved": unsaved, "deleted": list(deleted)}
        commit = parsed(header, b"[]")
        assert commit is not None
        return commit

    monkeypatch.setattr("kernelrepl.store.publish.MAX_LIVE_ROWS", 3)
    await opened.publish(session, None, of(dict.fromkeys("abc", "")), Limits(), None)
    with pytest.raises(StorageFailed, match="too many; delete variables"):
        await opened.publish(session, None, of({"d": ""}), Limits(), None)
    await opened.publish(session, None, of({"d": ""}, "a"), Limits(), None)
    monkeypatch.setattr("kernelrepl.store.publish.MAX_LIVE_TEXT", 1000)
    with pytest.raises(StorageFailed, match="too many; delete variables"):
        await opened.publish(session, None, of({"d": "x" * 1500}), Limits(), None)
    with pytest.raises(StorageFailed, match="too many; delete variables"):
        await opened.publish(session, None, of({"d": "\0" + "x" * 1500}), Limits(), None)
    assert sorted((await opened.manifest(session)).stories) == ["b", "c", "d"]


@pytest.mark.anyio
async def test_no_kernel_can_make_a_row_look_damaged(opened: Store) -> None:
    """By a value that SQLite gives back as another one: a person would look for what is wrong with the disk."""
    session, _ = await opened.create_session("odd", "w", {})
    for number, odd in enumerate([-0.0, 0, True, 5e-324, 1.7976931348623157e308, 1 << 53, 0.1 + 0.2]):
        execution = await opened.start_execution(session, f"r{number}", "test", "x = 1\0")
        header = copy.deepcopy(VALID) | {"components": [], "names": {}, "closed": []}
        header["outcome"] |= {"duration_s": odd, "error": ["\0", "\ud800"]}
        header["unsaved"] = {"a\0b": ["\0", "\ufeff", "\x1a", "\U0010ffff"]}
        await opened.publish(session, execution, parse_commit(header, b"[]", "3.12\0"), Limits(None, None), None)
        row = await opened.execution(f"r{number}")
        assert row is not None
        assert (row.damaged, row.duration_s) == (False, odd)
    assert await opened.damaged() == []
    assert (await opened.manifest(session)).damaged == ()


# Jupyter messages


@dataclass
class Peer:
    """A kernel's end of the Jupyter sockets, in the hands of the test, and the client that is to survive it."""

    session: Session
    shell: zmq.asyncio.Socket
    iopub: zmq.asyncio.Socket
    client: JupyterClient
    seen: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def message(self, kind: str, content: Any, parent: str = "p") -> list[bytes]:
        """A signed message, whatever its content."""
        parts = [json.dumps(part).encode() for part in ({"msg_type": kind}, {"msg_id": parent}, {}, content)]
        return [b"topic", DELIM, self.session.sign(parts), *parts]

    async def publish(self, kind: str, content: Any, parent: str = "p") -> None:
        await self.iopub.send_multipart(self.message(kind, content, parent))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while not condition():
                await asyncio.sleep(0.005)


LIMITS = FloodLimits(
    drop=Amount(300, 1 << 20),
    interrupt=Amount(500, 2 << 20),
    kill=Amount(700, 3 << 20),
    drained_a_second=Amount(0, 0),
)


@pytest.fixture
async def peer(runtime_dir: Path) -> AsyncIterator[Peer]:
    context = zmq.asyncio.Context()
    key = secrets.token_hex(16)
    shell, iopub = context.socket(zmq.ROUTER), context.socket(zmq.XPUB)
    for sock, name in ((shell, "s-1"), (iopub, "s-2")):
        sock.setsockopt(zmq.SNDHWM, 0)
        sock.setsockopt(zmq.LINGER, 1000)  # as in the client: libzmq aborts in the middle of a message
        sock.bind(f"ipc://{runtime_dir / name}")
    seen: list[tuple[str, str, dict[str, Any]]] = []
    verdicts: list[Verdict] = []
    client = JupyterClient(runtime_dir, key, lambda *entry: seen.append(entry), verdicts.append, LIMITS)
    found = Peer(Session(key=key.encode()), shell, iopub, client, seen, verdicts)
    async with asyncio.timeout(RUN_TIMEOUT_S):
        await iopub.recv_multipart()  # the subscription
    await found.publish("iopub_welcome", {})
    async with asyncio.timeout(RUN_TIMEOUT_S):
        await client.wait_for_output()
    yield found
    await client.close()
    context.destroy(1000)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> JupyterClient:
    """A client that is closed already: it still reads messages that it is given."""

    async def make() -> JupyterClient:
        client = JupyterClient(tmp_path_factory.mktemp("j"), "key", lambda *_: None)
        await client.close()
        return client

    return asyncio.run(make())


BODIES = (
    JSON.map(json.dumps).map(str.encode)
    | st.binary(max_size=20)
    | st.sampled_from(
        [
            b"[" * 100_000,
            b"9" * 5000,
            b"NaN",
            b'{"a": 1e999}',
            b'"\\ud800"',
            b'{"msg_type": [[]]}',
            b'{"msg_id": {}}',
            b"{}",
        ]
    )
)
HEADER_BODIES = BODIES | st.just(b'{"msg_type": "stream"}')


@settings(max_examples=300)
@given(
    parts=st.tuples(HEADER_BODIES, BODIES | st.just(b'{"msg_id": "p"}'), BODIES, BODIES),
    signed=st.booleans(),
    junk=st.lists(st.binary(max_size=8), max_size=3),
    cut=st.integers(0, 6),
)
def test_any_frames_are_a_message_or_nothing(
    reader: JupyterClient, parts: tuple[bytes, ...], signed: bool, junk: list[bytes], cut: int
) -> None:
    """Signed or not, whole or not: nothing is raised, and no forged signature passes."""
    signature = reader._session.sign(list(parts)) if signed else b"0" * 64
    frames: list[bytes | bytearray] = [*junk, DELIM, signature, *parts, *junk]
    message = reader._parse(frames[: len(frames) - cut])
    assert reader._parse(list(parts)) is None
    if message is None:
        return
    assert signed
    assert isinstance(message["type"], str)
    assert len(message["type"]) <= jupyter._MAX_TYPE_CHARS
    assert isinstance(message["parent"], str)
    live = Transcript()
    live.add(message["type"], message["content"])
    check_output(live.output())
    assert isinstance(live.last_line(), str)


def check_output(output: Output) -> None:
    """It can be shown in every form that a reply has, to clients that read JSON as it is specified."""
    for outputs in (False, True):
        result = of_execution(ExecutionResult("s", "ok", output), 1000, outputs=outputs)
        json.loads(result.model_dump_json(by_alias=True), parse_constant=pytest.fail)


NESTED = st.sampled_from([Deep(100), Deep(260), Deep(900)])
ANY_CONTENT = CONTENTS | st.dictionaries(
    st.sampled_from(
        ["data", "metadata", "ename", "evalue", "traceback", "text", "name", "transient", "execution_count"]
    ),
    NESTED | JSON | st.dictionaries(st.sampled_from(["text/plain", "image/png", "x"]), NESTED | JSON, max_size=3),
    max_size=4,
)
KINDS = st.sampled_from(
    ["stream", "execute_result", "display_data", "update_display_data", "clear_output", "error", "status", DROPPED]
)


@settings(max_examples=300)
@given(st.lists(st.tuples(KINDS | TEXTS, ANY_CONTENT), max_size=6))
@example([("display_data", {"data": {"image/png": "\udc80"}})])
@example([("display_data", {"data": {"image/png": "A==="}})])
@example([("display_data", {"data": {"application/json": Deep(260)}})])
@example([("error", {"ename": Deep(900), "evalue": 7})])
@example([("execute_result", {"data": {"text/plain": "x", "y": float("nan")}, "execution_count": 10**4000})])
def test_any_message_gives_a_reply_that_can_be_sent(messages: list[tuple[str, dict[str, Any]]]) -> None:
    """Live or recorded, with pictures, numbers and nesting that no reader takes."""
    messages = [(kind, with_depth(content)) for kind, content in messages]
    live = Transcript()
    for kind, content in messages:
        live.add(kind, content)
    live.last_line()
    check_output(live.output())
    check_output(fold([{"type": kind, "content": content} for kind, content in messages]))
    check_output(load(live.dump()))


@pytest.mark.parametrize(
    "content",
    [
        {"data": {"image/png": "A" * 20_000_000}},
        {"data": {}, "metadata": {"x": ["y" * 1000] * 20_000}},
        {"data": {str(n): n for n in range(100_000)}},
        {"transient": [["x" * 100] * 100] * 2000},
    ],
)
def test_live_displays_are_bounded(content: dict[str, Any]) -> None:
    """Whatever part of a message is large; what is left out is counted."""
    live = Transcript()
    for _ in range(100):
        live.add("display_data", content)
    live.add("stream", {"name": "stdout", "text": "after\n"})
    output = live.output()
    assert len(json.dumps(output.cells)) < transcript.MAX_LIVE_DISPLAY_CHARS
    assert output.stdout == "after\n"
    if len(output.cells) < 101:
        assert f"{101 - len(output.cells)} outputs were left out" in output.left_out[0]


def test_live_text_is_bounded_by_characters() -> None:
    """One message as well as many; kinds that nobody shows take no room."""
    live = Transcript()
    for _ in range(20_000):
        live.add("comm_msg", {"data": "x" * 1000})
    live.add("stream", {"name": "stdout", "text": "x" * 20_000_000})
    live.add("stream", {"name": "stdout", "text": "y"})
    output = live.output()
    assert len(output.stdout) == transcript.MAX_LIVE_CHARS + 1
    assert "2 outputs were left out" in output.left_out[0]


def test_dropped_messages_are_told() -> None:
    """Those that were not even read, in the output and in what is stored of it."""
    live = Transcript()
    live.add("stream", {"name": "stdout", "text": "first\n"})
    for _ in range(3):
        live.add(DROPPED, {"count": 5})
    assert live.output().stdout == "first\n"
    assert "15 outputs were left out" in live.output().left_out[0]
    assert load(live.dump()) == live.output()


COUNT = 200_000


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "stream", "content": {"name": "stdout", "text": "x" * 100}}] * COUNT,
        [
            {"type": kind, "content": {"transient": {"display_id": "d"}}}
            for kind in ("display_data", "update_display_data")
        ]
        * (COUNT // 2),
        [{"type": "stream", "content": {"name": "stdout", "text": "\x1b]x" * (COUNT * 5)}}],
        [{"type": "stream", "content": {"name": "stdout", "text": "\x1b[1A" + "a\n\x1b[1A" * COUNT}}],
        [{"type": "error", "content": {"ename": "E", "traceback": ["line"]}}] * COUNT,
        [{"type": "stream", "content": {"name": "stdout", "text": "x"}}] * (COUNT + 1000),
    ],
    ids=["streams", "updates", "titles", "cursors", "errors", "too many"],
)
def test_folding_takes_linear_time(messages: list[dict[str, Any]]) -> None:
    """These took minutes or hours, and the keeper serves nobody meanwhile."""
    output = load(json.dumps(messages))
    of_execution(ExecutionResult("s", "ok", output), 1000, outputs=True)
    assert len(output.cells) <= passing.MOST_MESSAGES + 1


@pytest.mark.anyio
async def test_a_flood_of_outputs_is_dropped_then_interrupted_then_killed(peer: Peer) -> None:
    """What came first is there, the rest is counted; a new execution is heard again."""
    reply = peer.client.execute("one", "1")
    for number in range(800):
        await peer.publish("stream", {"name": "stdout", "text": str(number)}, "one")
    await peer.until(lambda: len(peer.seen) == 800)
    assert [content["text"] for _, kind, content in peer.seen if kind == "stream"] == [str(n) for n in range(300)]
    assert peer.seen[300:] == [("one", DROPPED, {"count": 1})] * 500
    assert peer.verdicts == [Verdict.INTERRUPT, Verdict.KILL]
    assert not reply.done()


@pytest.mark.anyio
async def test_after_a_flood_the_reply_and_the_next_execution_come_through(peer: Peer) -> None:
    """Replies have an account of their own; each execution starts with nothing on it."""

    def has_seen(count: int) -> bool:
        return len(peer.seen) == count

    for name in ("one", "two"):
        seen = len(peer.seen)
        reply = peer.client.execute(name, "1")
        identity, *_ = await peer.shell.recv_multipart()
        for number in range(400):
            await peer.publish("stream", {"name": "stdout", "text": str(number)}, name)
        await peer.until(functools.partial(has_seen, seen + 400))
        assert sum(kind == "stream" for _, kind, _ in peer.seen[seen:]) == 300
        for parent in ("forged", "", name):
            await peer.shell.send_multipart([identity, *peer.message("execute_reply", {"of": parent}, parent)])
        async with asyncio.timeout(RUN_TIMEOUT_S):
            assert (await reply)["content"] == {"of": name}
    assert peer.verdicts == []


@pytest.mark.anyio
async def test_a_flood_of_replies_kills(peer: Peer) -> None:
    """Nobody asked for them."""
    peer.client.execute("one", "1")
    identity, *_ = await peer.shell.recv_multipart()
    forged = [identity, *peer.message("execute_reply", {}, "another")]
    for _ in range(15_000):
        await peer.shell.send_multipart(forged)
    await peer.until(lambda: bool(peer.verdicts))
    assert peer.verdicts == [Verdict.KILL]


@pytest.mark.anyio
async def test_messages_and_frames_of_a_kernel_have_one_budget(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kernel would take a share of the keeper's time for each of its sockets."""
    await sessions.run("1+1")
    kernel = sessions.manager.loaded()["s"].slot.kernel
    assert kernel is not None
    spent: list[float] = []
    monkeypatch.setattr(kernel.budget, "spend", spent.append)
    code = "get_ipython().kernel.send_response(get_ipython().kernel.iopub_socket, 'display_data', {'data': {}})"
    await sessions.run(f"for _ in range(500): {code}")
    async with asyncio.timeout(RUN_TIMEOUT_S):
        while len(spent) <= 500:  # the result does not wait for what the kernel publishes
            await asyncio.sleep(0.01)
    assert kernel._client._budget is kernel._channel.budget is kernel.budget


@pytest.mark.anyio
async def test_a_kernel_cannot_say_what_only_the_keeper_says(peer: Peer) -> None:
    """Nor with a wrong key, nor for a parent that is no text."""
    await peer.publish(DROPPED, {"count": 10**100})
    await peer.iopub.send_multipart([b"t", DELIM, b"0" * 64, *peer.message("stream", {})[3:]])
    await peer.publish("stream", {"n": 1}, ["list"])  # type: ignore[arg-type]
    await peer.iopub.send_multipart([b""])
    await peer.publish("stream", {"n": 2})
    await peer.until(lambda: bool(peer.seen))
    assert peer.seen == [("p", "stream", {"n": 2})]


@pytest.mark.anyio
async def test_reading_a_flood_gives_turns_to_others(peer: Peer) -> None:
    """All of it is there already when the reading starts."""
    turns: list[int] = []

    async def other() -> None:
        while len(peer.seen) < 250:
            turns.append(len(peer.seen))
            await asyncio.sleep(0)

    for _ in range(250):
        peer.iopub.send_multipart(peer.message("stream", {}))
    async with asyncio.timeout(RUN_TIMEOUT_S):
        await other()
    frames = len(peer.message("stream", {}))
    assert max(after - before for before, after in pairwise(turns)) <= jupyter._TURN_FRAMES // frames + 1


@pytest.mark.anyio
async def test_an_output_over_the_limit_is_never_read(peer: Peer) -> None:
    """It is left out, and what comes then is heard."""
    peer.client.published.limits = FloodLimits()
    await peer.publish("stream", {"text": "x" * (zmtp.MAX_MESSAGE_BYTES + 1)})

    async with asyncio.timeout(RUN_TIMEOUT_S):
        while not any(kind == "stream" for _, kind, _ in peer.seen):
            await peer.publish("stream", {"text": "after"})
            await asyncio.sleep(0.05)
    assert ("", DROPPED, {"count": 1}) in peer.seen
    assert {content["text"] for _, kind, content in peer.seen if kind != DROPPED} == {"after"}


@pytest.mark.anyio
async def test_a_reply_over_the_limit_kills(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lost, and the execution would wait for ever."""
    monkeypatch.setattr(jupyter, "_LOST_REPLY_S", 0.01)
    peer.client.execute("one", "1")
    identity, *_ = await peer.shell.recv_multipart()
    content = {"evalue": "x" * (zmtp.MAX_MESSAGE_BYTES + 1)}
    await peer.shell.send_multipart([identity, *peer.message("execute_reply", content, "one")])
    await peer.until(lambda: bool(peer.verdicts))
    assert peer.verdicts == [Verdict.KILL]


# A real kernel


@pytest.mark.anyio
@pytest.mark.parametrize(
    "end", ["", "\nimport os, signal, time; time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)"], ids=["ok", "died"]
)
async def test_outputs_that_take_much_are_not_kept_in_memory(sessions: Sessions, end: str) -> None:
    """Whoever asks for the last outcome gets it from the store, the same."""
    picture = f"'{PICTURES['image/png']}' + 'A' * 1_000_000"
    code = f"from IPython.display import display\nfor _ in range(4): display({{'image/png': {picture}}}, raw=True)"
    session, job = await sessions.submit(code + end)
    told = await asyncio.wait_for(asyncio.shield(job.result), RUN_TIMEOUT_S)
    await asyncio.wait_for(job.over.wait(), RUN_TIMEOUT_S)
    assert len(told.output.figures) == 4
    assert session.latest is None
    handle = await sessions.manager.latest("s")
    assert handle.is_stored
    found = handle.result()
    assert (found.status, found.output.figures) == (told.status, told.output.figures)
    await sessions.run("1+1")
    assert session.latest is not None


FLOOD = """
kernel = get_ipython().kernel
def flood(count):
    for _ in range(count):
        content = {"data": {"text/plain": "x" * 10_000}, "metadata": {}, "transient": {}}
        kernel.session.send(kernel.iopub_socket, "display_data", content, parent=kernel.get_parent())
"""
STUBBORN = """
while True:
    try:
        while True:
            flood(10)
    except BaseException:
        pass
"""


@pytest.mark.anyio
async def test_a_cell_that_floods_is_interrupted_and_the_session_goes_on(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variables too."""
    monkeypatch.setattr(
        jupyter, "FloodLimits", lambda: FloodLimits(drop=Amount(50, 1 << 20), interrupt=Amount(100, 2 << 20))
    )
    await sessions.run(FLOOD + "x = 42")
    flooded = await sessions.run("while True:\n    flood(10)")
    assert flooded.output.error is not None
    assert flooded.output.error.name == "KeyboardInterrupt"
    assert await sessions.value("x") == "42"


@pytest.mark.anyio
async def test_a_kernel_that_goes_on_flooding_is_killed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that one; what it had committed comes back, and the result says how much is missing."""
    limits = FloodLimits(drop=Amount(50, 1 << 20), interrupt=Amount(100, 2 << 20), kill=Amount(200, 4 << 20))
    monkeypatch.setattr(jupyter, "FloodLimits", lambda: limits)
    await sessions.run("y = 7", "other")
    await sessions.run(FLOOD + "x = 42")
    flooded = await sessions.run(STUBBORN)
    assert flooded.status == "crashed"
    assert "outputs were left out" in flooded.output.left_out[0]
    assert await sessions.value("x") == "42"
    assert await sessions.value("y", "other") == "7"
    assert (await sessions.run("1", "other")).restored is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    "frame",
    [
        {"type": "begin", "request": deep(500)},
        {"type": "stage", "component": 1.5},
        {"type": "commit"},
        {"type": "nonsense"},
        {"type": "want", "components": [999]},
        {"type": "want", "components": {}},
        {"type": "emptied", "slot": 0},
        {"type": "emptied", "slot": [0]},
        {"type": "loading", "component": "x"},
        {"type": "loaded", "not_restored": [1]},
    ],
    ids=["deep", "stage", "commit", "nonsense", "want", "want nothing", "emptied", "emptied what", "loading", "loaded"],
)
async def test_a_kernel_that_breaks_the_protocol_is_killed(sessions: Sessions, frame: dict[str, Any]) -> None:
    """And replaced, with what was committed."""
    await sessions.run("x = 42")
    code = (
        "import json, sys, time\nsys.setrecursionlimit(10_000)\n"
        f"get_ipython().kernel.saving.channel.send(json.loads({json.dumps(frame)!r}))\nwhile True: time.sleep(1)"
    )
    broken = await sessions.run(code)
    assert broken.status == "crashed"
    assert await sessions.value("x") == "42"


@pytest.mark.anyio
async def test_a_new_kernel_has_no_new_budget(sessions: Sessions) -> None:
    """A session that has its kernel ended again and again takes no more of the keeper's time than another."""
    await sessions.value("1")
    session = sessions.manager.loaded()["s"]
    first = session.slot.kernel
    assert first is not None
    await session.restart()
    assert session.slot.kernel is not first
    assert session.slot.kernel is not None
    assert session.slot.kernel.budget is first.budget
    await sessions.value("1", "t")
    other = sessions.manager.loaded()["t"].slot.kernel
    assert other is not None
    assert other.budget is not first.budget
