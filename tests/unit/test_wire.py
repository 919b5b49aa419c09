"""The channel between kernel and keeper: frames, their bounds, and what is made of a commit."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernelrepl import bounded_json
from kernelrepl.guest import wire
from kernelrepl.kernel.channel import HostChannel
from kernelrepl.kernel.commits import Draft, parse_commit
from kernelrepl.kernel.window import Window
from kernelrepl.model import Commit

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20)
"""Lone surrogates included: JSON can carry them."""

SCALARS = st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**320) | st.floats() | TEXTS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
BUFFERS = st.lists(st.binary(max_size=40), max_size=8)


def deep(depth: int) -> Any:
    """A list in a list in a list …"""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def ends(sockets: tuple[socket.socket, socket.socket]) -> tuple[wire.Channel, wire.Channel]:
    return wire.Channel(sockets[0]), wire.Channel(sockets[1])


def transfer(
    ends: tuple[wire.Channel, wire.Channel], header: dict[str, Any], payload: list[wire.Buffer]
) -> tuple[dict[str, Any], bytearray]:
    """Send in one thread, receive in this one."""
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(ends[0].send, header, payload)
        received = ends[1].recv()
        sent.result()
    return received


# Frames


def test_a_frame_arrives_as_it_was_sent(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """Header and payload, whatever kind of buffer holds it, and the next frame after it."""
    ends[0].send({"type": "first", "text": "ä\udc80", "number": 1.5}, [b"ab", bytearray(b"cd"), memoryview(b"ef")])
    ends[0].send({"type": "second"})
    assert ends[1].recv() == ({"type": "first", "text": "ä\udc80", "number": 1.5}, b"abcdef")
    assert ends[1].recv() == ({"type": "second"}, b"")


def test_both_directions_are_independent(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """What one end sends is not in the way of what it receives."""
    ends[0].send({"type": "question"})
    ends[1].send({"type": "announcement"}, [b"x"])
    assert ends[0].recv() == ({"type": "announcement"}, b"x")
    assert ends[1].recv() == ({"type": "question"}, b"")


def test_a_payload_larger_than_the_buffer_of_the_socket_arrives_whole(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """The sender goes on where the system stopped, in the middle of a buffer too."""
    buffers: list[wire.Buffer] = [bytes([number]) * 3_000_001 for number in range(5)]
    _, payload = transfer(ends, {"type": "large"}, buffers)
    assert payload == b"".join(buffers)


def test_more_buffers_than_one_system_call_takes_arrive_in_order(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """Two thousand small ones, empty ones between them."""
    buffers: list[wire.Buffer] = [number.to_bytes(2) if number % 3 else b"" for number in range(2000)]
    _, payload = transfer(ends, {"type": "many"}, buffers)
    assert payload == b"".join(buffers)


def test_a_buffer_is_counted_in_bytes(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """Whatever its elements and its shape."""
    numbers = memoryview(bytes(range(24))).cast("I", (2, 3))
    ends[0].send({"type": "matrix"}, [numbers])
    assert ends[1].recv() == ({"type": "matrix"}, bytes(range(24)))


@pytest.mark.anyio
async def test_the_keeper_and_a_kernel_understand_each_other(sockets: tuple[socket.socket, socket.socket]) -> None:
    """The two implementations of the framing are one protocol, in both directions and for large payloads."""
    sockets[0].setblocking(False)
    host = await HostChannel.open(sockets[0])
    guest = wire.Channel(sockets[1])
    try:
        large = bytes(range(256)) * 40_000
        sending = asyncio.create_task(asyncio.to_thread(guest.send, {"type": "up"}, [large, b"", large]))
        assert await host.recv() == ({"type": "up"}, large + large)
        await sending
        receiving = asyncio.create_task(asyncio.to_thread(guest.recv))
        await host.send({"type": "down", "n": [1, None]}, [large, b"end"])
        assert await receiving == ({"type": "down", "n": [1, None]}, large + b"end")
        guest.close()
        with pytest.raises(wire.ChannelClosed):
            await host.recv()
    finally:
        host.close()


@pytest.mark.anyio
async def test_files_come_with_their_frames(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Each with its own, whatever is sent beside them, and when the socket is full; the kernel can only read it."""
    sockets[0].setblocking(False)
    host = await HostChannel.open(sockets[0])
    guest = wire.Channel(sockets[1])

    async def send_file(number: int) -> None:
        window = Window()
        window.write(0, memoryview(bytes([number]) * 70), 0)
        window.write(1, memoryview(b"end"), 5)
        file = window.for_reading()
        for attempt in (lambda: os.truncate(file, 5), lambda: os.write(file, b"x")):
            with pytest.raises(OSError):
                attempt()
        await host.send_file({"type": "start", "number": number}, file)
        os.close(file)

    def receive() -> list[int]:
        numbers = []
        for _ in range(40):
            header, payload = guest.recv()
            if header["type"] != "start":
                assert payload == bytes(300_000)
                continue
            data = wire.map_window(header["file"])
            assert bytes(data[:71]) == bytes([header["number"]]) * 70 + b"\0"
            assert bytes(data[wire.SLOT_BYTES + 5 :][:3]) == b"end"
            assert data.readonly
            numbers.append(header["number"])
        return numbers

    try:
        others = [host.send({"type": "other"}, [bytes(300_000)]) for _ in range(20)]
        sending = asyncio.gather(*(send_file(number) for number in range(20)), *others)
        await asyncio.sleep(0.1)
        assert sorted(await asyncio.to_thread(receive)) == list(range(20))
        await sending
    finally:
        host.close()


@given(st.dictionaries(TEXTS, JSON, max_size=4), TEXTS, BUFFERS)
def test_what_is_encoded_is_parsed_to_the_same(header: dict[str, Any], kind: str, buffers: list[bytes]) -> None:
    """For every header that JSON can carry, and every payload."""
    header = json.loads(json.dumps({**header, "type": kind}))
    size = sum(len(buffer) for buffer in buffers)
    frame = wire.encode(header, size)
    lengths = wire.parse_prefix(frame[: wire.PREFIX.size])
    assert lengths == (len(frame) - wire.PREFIX.size, size)
    parsed = wire.parse_header(frame[wire.PREFIX.size :])
    assert json.dumps(parsed) == json.dumps(header)


# What is no frame


@pytest.mark.parametrize(
    "frame",
    [
        wire.PREFIX.pack(b"HTTP", 2, 0) + b"{}",
        wire.PREFIX.pack(b"KRC2", 2, 0) + b"{}",
        wire.PREFIX.pack(wire.MAGIC, wire.KEEPERS_HEADER_BYTES + 1, 0),
        wire.PREFIX.pack(wire.MAGIC, 2, wire.MAX_PAYLOAD_BYTES + 1),
        wire.PREFIX.pack(wire.MAGIC, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF),
        *(
            wire.PREFIX.pack(wire.MAGIC, len(body), 0) + body
            for body in (
                b"",
                b"nonsense",
                b"\xff\xfe",
                b"{'type': 'x'}",
                b"[]",
                b"null",
                b'"type"',
                b"{}",
                b'{"type": 1}',
                b'{"type": null}',
                b'{"Type": "x"}',
                b"[" * 200_000,
                b'{"type": ' + b"9" * 5000 + b"}",
            )
        ),
    ],
)
@pytest.mark.anyio
async def test_what_is_no_frame_is_refused_by_both_ends(
    sockets: tuple[socket.socket, socket.socket], frame: bytes
) -> None:
    """As an error of the protocol, before anything of its size is reserved, and not as the end of the stream."""
    sockets[1].sendall(frame)
    with pytest.raises(wire.WireError) as caught:
        wire.Channel(sockets[0]).recv()
    assert not isinstance(caught.value, wire.ChannelClosed)
    sockets[0].setblocking(False)
    host = await HostChannel.open(sockets[0])
    try:
        sockets[1].sendall(frame)
        with pytest.raises(wire.WireError) as caught:
            await host.recv()
        assert not isinstance(caught.value, wire.ChannelClosed)
    finally:
        host.close()


@pytest.mark.parametrize("kept", [0, 1, 15, 16, 17, 30, -1])
@pytest.mark.anyio
async def test_a_stream_that_ends_in_a_frame_is_closed(kept: int) -> None:
    """Wherever the sender died: no half frame is ever handed out."""
    frame = wire.encode({"type": "commit"}, 10) + b"0123456789"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(frame[:kept])
        theirs.close()
        with pytest.raises(wire.ChannelClosed):
            wire.Channel(ours).recv()
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        host = await HostChannel.open(ours)
        theirs.sendall(frame[:kept])
        theirs.close()
        try:
            with pytest.raises(wire.ChannelClosed):
                await host.recv()
        finally:
            host.close()


def test_sending_to_nobody_says_so(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """The other end is gone: an error, not a signal."""
    ends[1].close()
    with pytest.raises(wire.ChannelClosed):
        ends[0].send({"type": "commit"}, [b"x" * 100])


# Long headers


def long_commit() -> dict[str, Any]:
    """As much as an honest one may bring, of everything."""
    names = {f"name {n}": [n, "int", 28, "42"] for n in range(15_000)}
    unsaved = {f"{n:🐍>1000}": ["🐍" * 2000] * 4 for n in range(5)}
    components = [{**VALID["components"][0], "roots": [n]} for n in range(20_000)]
    components += [
        {**VALID["components"][2], "roots": list(range(30_000, 90_000)), "segments": [1] * 20_000},
        {**VALID["components"][2], "roots": [90_000], "references": list(range(50_000)), "runs": [[-1, 0, 35]]},
        {
            **VALID["components"][2],
            "roots": [90_001],
            "segments": [1] * 9000,
            "runs": [[-1, n, 1] for n in range(9000)],
        },
    ]
    saved = {"created": list(names), "changed": [], "deleted": []}
    told = {"names": names, "unsaved": unsaved, "components": components, "saved": saved, "deleted": [], "closed": []}
    return {**VALID, **told, "outputs_bytes": 0}


def test_a_long_header_comes_in_parts_and_is_whole_again(ends: tuple[wire.Channel, wire.Channel]) -> None:
    """No part of it is longer than a header may be, or holds more than one may."""
    header = long_commit()
    for frame in wire.frames(header, 0):
        wire.parse_prefix(frame[: wire.PREFIX.size])
        bounded_json.check(frame[wire.PREFIX.size :], items=wire.MAX_HEADER_ITEMS)
    received, payload = transfer(ends, header, [b"x"])
    assert received == header
    assert payload == b"x"


@given(
    st.dictionaries(TEXTS, JSON | st.lists(st.integers(), max_size=40), max_size=6),
    st.integers(1, 40),
)
def test_any_header_is_whole_again(fields: dict[str, Any], length: int) -> None:
    """Wherever it is cut."""
    header = {**fields, "type": "t", "of": [1], "path": {"value": 2}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "PART_BYTES", length)
        patch.setattr(wire, "_WHOLE", 1)
        *parts, last = [json.loads(frame[wire.PREFIX.size :]) for frame in wire.frames(header, 0)]
    whole: dict[str, Any] = {}
    for part in parts:
        wire.join(whole, part["path"], part["value"])
    assert json.dumps(last | whole, sort_keys=True) == json.dumps(header, sort_keys=True)


def test_a_commit_in_parts_is_the_same_commit() -> None:
    """As the keeper takes it, part by part."""
    header = long_commit()
    draft = Draft()
    for frame in wire.frames(header, 0):
        found = json.loads(frame[wire.PREFIX.size :])
        if found["type"] == "part":
            draft.add(found["path"], found["value"])
    size = sum(sum(part["segments"]) for part in header["components"] if not part.get("staged"))
    payload = b"x" * size
    assert draft.finish(found, payload, "3.12.1", "{}") == parse_commit(header, payload, "3.12.1")


ENDLESS: dict[str, tuple[list[Any], Callable[[int], Any]]] = {
    "names": (["names"], lambda n: {f"n{n} {k}": [1, "t" * 80, 1, ""] for k in range(2000)}),
    "one name": (["unsaved"], lambda n: {"x": ["t", "p", "r" * 2000, "s" * 2000]}),
    "deleted": (["deleted"], lambda n: [f"{n} {k} {'x' * 80}" for k in range(2000)]),
    "closed": (["closed"], lambda n: list(range(15_000))),
    "saved": (["saved"], lambda n: {"created": [f"{n} {k}" for k in range(10_000)]}),
    "told": (["saved", "changed"], lambda n: [f"{n} {k} {'x' * 900}" for k in range(100)]),
    "components": (["components"], lambda n: [{**VALID["components"][2], "roots": [n * 900 + k]} for k in range(900)]),
    "roots": (["components", -1, "roots"], lambda n: list(range(n * 15_000, n * 15_000 + 15_000))),
    "runs": (["components", -1, "runs"], lambda n: [[-1, 0, 1]] * 4000),
    "more": (["components", -1], lambda n: {"roots": list(range(15_000)), str(n): "x" * 100_000}),
}


@pytest.mark.parametrize("kind", list(ENDLESS))
def test_parts_without_end_are_refused_before_they_take_much(kind: str) -> None:
    """Whatever they are parts of, and even if no commit ever follows."""
    path, part = ENDLESS[kind]
    draft = Draft()
    draft.add(["components"], [{**VALID["components"][2], "roots": [2**40], "runs": []}])
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError, match="malformed commit"):  # noqa: PT012 - whichever it is
            for n in range(5000):
                draft.add(path, part(n))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (None, []),
        ([], {}),
        (["x"], []),
        (["names"], [1]),
        (["names", "x"], [1]),
        (["components", -1], {}),
        (["components", -1, "roots"], [1]),
        (["components", 0, "roots"], [1]),
        (["saved", "x"], ["a"]),
        (["saved", "created"], [["a"]]),
        (["outcome"], {}),
    ],
)
def test_a_part_of_nothing_is_refused(path: Any, value: Any) -> None:
    """Or of what cannot come in parts."""
    with pytest.raises(wire.WireError, match="malformed commit"):
        Draft().add(path, value)


@pytest.mark.anyio
async def test_the_keeper_says_long_headers_in_parts(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Others get their turn between them, and frames that come in between are no part of them."""
    sockets[0].setblocking(False)
    host = await HostChannel.open(sockets[0])
    guest = wire.Channel(sockets[1])
    header = {"type": "start", "names": {f"n{n}": [n, "int", 28] for n in range(20_000)}}
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            if turns == 3:
                await host.send({"type": "committed"})
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    with sockets[1].dup() as file, ThreadPoolExecutor(1) as pool:
        received = pool.submit(lambda: [guest.recv()[0] for _ in range(3)])
        await host.send_file(header, file.fileno())
        await host.send({**header, "type": "data"})
        found = await asyncio.wrap_future(received)
    beside.cancel()
    host.close()
    assert [frame["type"] for frame in found] == ["committed", "start", "data"]
    assert found[1]["names"] == found[2]["names"] == header["names"]
    os.close(found[1]["file"])
    assert turns > 10


# Pieces


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([0, 0], []),
        ([3], [[3]]),
        ([4], [[4]]),
        ([5], [[4], [1]]),
        ([4, 4], [[4], [4]]),
        ([3, 3], [[3, 1], [2]]),
        ([1, 0, 2, 1], [[1, 2, 1]]),
        ([9], [[4], [4], [1]]),
    ],
)
def test_pieces_end_at_the_limit(sizes: list[int], expected: list[list[int]]) -> None:
    """A buffer is cut exactly where a piece is full, and no piece is empty."""
    pieces = wire.pieces([b"x" * size for size in sizes], limit=4)
    assert [[view.nbytes for view in piece] for piece in pieces] == expected


@given(BUFFERS, st.integers(1, 50))
def test_pieces_are_the_buffers_in_order(buffers: list[bytes], limit: int) -> None:
    """Nothing lost, nothing twice, nothing copied, every piece full but the last."""
    pieces = wire.pieces(buffers, limit)
    assert b"".join(view for piece in pieces for view in piece) == b"".join(buffers)
    sizes = [sum(view.nbytes for view in piece) for piece in pieces]
    assert all(size == limit for size in sizes[:-1])
    assert all(0 < size <= limit for size in sizes)
    assert all(view.obj in buffers for piece in pieces for view in piece)


# Commits

VALID: dict[str, Any] = {
    "type": "commit",
    "commit": 3,
    "cause": "execution",
    "request": "abc",
    "outcome": {"status": "error", "execution_count": 7, "duration_s": 0.25, "error": ["ValueError", "no"]},
    "outputs_bytes": 2,
    "names": {"x": [1, "int", 28, "42"], "f": [2, "function", 300, "function f()"]},
    "unsaved": {"s": ["socket", "s", "a network connection cannot be saved", ""]},
    "deleted": ["old"],
    "components": [
        {"roots": [1], "references": [], "segments": [3], "code": False, "inert": True},
        {"roots": [2, 5], "references": [1], "segments": [1, 2], "code": True, "inert": False},
        {"roots": [9], "references": [], "segments": [9000000], "code": False, "inert": True, "staged": True},
    ],
    "closed": [4],
    "magic": "a70d0d0a",
    "saved": {"created": ["x"], "changed": ["f"], "deleted": ["old"]},
}
PAYLOAD = b"[]" + b"111" + b"2" + b"33"


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """The valid header with one value replaced."""
    header = copy.deepcopy(VALID)
    place: Any = header
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return header


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a header there is something to replace."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def parsed_or_refused(header: dict[str, Any], payload: bytes) -> Commit | None:
    """A commit that the store can take, or None for one that was refused in the only way there is."""
    try:
        commit = parse_commit(header, payload, "3.12.1")
    except wire.WireError:
        return None
    texts = [*commit.names, *commit.unsaved, *commit.deleted, commit.cause, commit.request, commit.magic]
    texts += [*commit.summaries, *commit.summaries.values()]
    texts += [text for entry in commit.unsaved.values() for text in entry]
    texts += [kind for _, kind, _ in commit.names.values()]
    assert all(text.encode() is not None for text in texts)
    for part in commit.components:
        assert 0 <= sum(part.segments) < 1 << 63
        assert part.data is None or len(part.data) == sum(part.segments)
    if commit.outcome is not None and commit.outcome["error"] is not None:
        assert len(commit.outcome["error"]) == 2
    return commit


def test_a_commit_is_taken_apart() -> None:
    """Each component gets its own bytes, a staged one none."""
    commit = parse_commit(copy.deepcopy(VALID), PAYLOAD, "3.12.1")
    assert [part.data for part in commit.components] == [b"111", b"233", None]
    assert [part.index for part in commit.components] == [0, 1, 2]
    assert [part.roots for part in commit.components] == [(1,), (2, 5), (9,)]
    assert [part.has_code for part in commit.components] == [False, True, False]
    assert [part.inert for part in commit.components] == [True, False, True]
    assert commit.names == {"x": (1, "int", 28), "f": (2, "function", 300)}
    assert commit.unsaved == {"s": ("socket", "s", "a network connection cannot be saved")}
    assert commit.summaries == {"x": "42", "f": "function f()", "s": ""}
    assert (commit.deleted, commit.closed, commit.outputs, commit.python) == (("old",), (4,), "[]", "3.12.1")
    assert commit.saved.created == ("x",)
    assert commit.outcome == VALID["outcome"]


def test_texts_are_cut_not_refused() -> None:
    """A reason of any length and with anything in it comes through, bounded and fit for the store."""
    commit = parsed_or_refused(changed("unsaved", "s", 2, to="\udc80" + "x" * 100_000), PAYLOAD)
    assert commit is not None
    assert commit.unsaved["s"][2] == "?" + "x" * 1999


@pytest.mark.parametrize("key", [key for key in VALID if key not in ("type", "commit")])
def test_a_commit_without_one_of_its_parts_is_refused(key: str) -> None:
    """Nothing in it is optional but what is staged."""
    header = {name: value for name, value in VALID.items() if name != key}
    with pytest.raises(wire.WireError, match="malformed commit"):
        parse_commit(header, PAYLOAD, "3.12.1")


@pytest.mark.parametrize(
    "header",
    [
        changed("outputs_bytes", to=-1),
        changed("outputs_bytes", to=True),
        changed("outputs_bytes", to="2"),
        changed("outputs_bytes", to=2.0),
        changed("names", "x", to=[-1, "int", 28, ""]),
        changed("names", "x", to=[1, "int", 1 << 62, ""]),
        changed("names", "x", to=[1, 2, 28, ""]),
        changed("names", "x", to=[1, "int", 28, None]),
        changed("names", "x", to=[1, "int", 28]),
        changed("names", "x", to=None),
        changed("names", "x" * 1001, to=[1, "int", 28, ""]),
        changed("names", "\udc80", to=[1, "int", 28, ""]),
        changed("names", to=["x"]),
        changed("unsaved", "s", to=["socket", "s", "why"]),
        changed("deleted", to=["x" * 1001]),
        changed("deleted", to=[1]),
        changed("deleted", to=3),
        changed("components", to=[7]),
        changed("components", 0, "roots", to=[]),
        changed("components", 0, "roots", to=["1"]),
        changed("components", 0, "segments", to=[]),
        changed("components", 0, "segments", to=[-3]),
        changed("components", 0, "segments", to=[4]),
        changed("components", 2, "segments", to=[(1 << 62) - 1] * 3),
        changed("components", 1, "references", to=[None]),
        changed("closed", to=[-4]),
        changed("magic", to=7),
        changed("saved", to=[]),
        changed("saved", "created", to=[["x"]]),
        changed("outcome", "execution_count", to=-1),
        changed("outcome", "duration_s", to="soon"),
        changed("outcome", "duration_s", to=10**400),
        changed("outcome", "error", to=["ValueError"]),
        changed("outcome", "error", to=[1, 2]),
        changed("outcome", to=[]),
        changed("outputs_bytes", to=deep(900)),
        {**VALID, "deleted": ["x"] * 25_001},
    ],
)
def test_a_malformed_commit_is_refused(header: dict[str, Any]) -> None:
    """Wrong types, negative or boundless counts, missing bytes, names that the store could not hold."""
    assert parsed_or_refused(header, PAYLOAD) is None


@pytest.mark.parametrize("missing", [1, 3, 7, 8])
def test_a_payload_shorter_than_its_components_is_refused(missing: int) -> None:
    """No component gets bytes that were not sent."""
    assert parsed_or_refused(VALID, PAYLOAD[:-missing]) is None


def test_outputs_that_are_no_text_are_refused() -> None:
    """They would be stored as text."""
    assert parsed_or_refused(VALID, b"\xff\xff" + PAYLOAD[2:]) is None


@given(st.dictionaries(TEXTS | st.sampled_from(sorted(VALID)), JSON, max_size=14), st.binary(max_size=20))
def test_an_arbitrary_header_is_refused_in_one_way(header: dict[str, Any], payload: bytes) -> None:
    """Whatever a kernel sends, the keeper sees an error of the protocol or a commit that can be stored."""
    parsed_or_refused(header, payload)


@given(st.sampled_from(sorted(paths(VALID), key=repr)), JSON)
@example(("outcome", "duration_s"), 10**400)
def test_a_header_that_is_wrong_in_one_place_is_refused_in_one_way(path: tuple[str | int, ...], value: Any) -> None:
    """The same for headers that are almost right."""
    parsed_or_refused(changed(*path, to=value), PAYLOAD)


@given(TEXTS.filter(lambda text: len(text) > 0), JSON)
@example("x" * 1001, [1, "int", 28, ""])
def test_a_name_is_stored_as_it_is_or_refused(name: str, entry: Any) -> None:
    """It is never cut: that would make another name of it."""
    commit = parsed_or_refused(changed("names", name, to=entry), PAYLOAD)
    assert commit is None or name in commit.names
