"""What a kernel writes to its sockets by itself: it costs the keeper one message, however much it is."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import zmq.asyncio

from kernelrepl.kernel import zmtp
from kernelrepl.kernel.client import JupyterClient
from kernelrepl.kernel.flood import Budget
from tests.conftest import RUN_TIMEOUT_S

pytestmark = pytest.mark.anyio

GREETING = zmtp._GREETING
READY = zmtp._frame(b"\x05READY" + zmtp._property(b"Socket-Type", b"PUB"), zmtp._COMMAND)
Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def spoken_to(directory: Path, write: Write) -> AsyncIterator[zmtp.Connection]:
    """A connection to a peer that shakes hands and then writes what the test wants."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(GREETING + READY)
            await write(writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, directory / "s")
    async with server, asyncio.timeout(RUN_TIMEOUT_S):
        connection = await zmtp.Connection.open(directory / "s", "SUB")
        yield connection
        connection.close()


def long_frame(size: int, flags: int) -> bytes:
    return bytes([flags | zmtp._LONG]) + struct.pack("!Q", size) + bytes(size)


@pytest.mark.parametrize(
    ("frame", "times"),
    [
        (long_frame(10 << 20, zmtp._MORE), 40),
        (long_frame(zmtp.MAX_MESSAGE_BYTES + 1, 0), 8),
        (b"\x01\x00" * 10_000, 40),
        (long_frame(200, zmtp._MORE) * 1000, 40),
    ],
    ids=["parts of 10 MB", "frames of 18 MB", "empty parts", "small parts"],
)
async def test_a_message_that_is_too_long_is_left_out(runtime_dir: Path, frame: bytes, times: int) -> None:
    """Without an end, too: it is read and forgotten, and counted while it comes."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            writer.write(frame)
            await writer.drain()
        writer.write(b"\x00\x01e" + b"\x00\x05after")
        await writer.drain()

    async with spoken_to(runtime_dir, write) as connection:
        tracemalloc.start()
        try:
            read = left_out = 0
            while (message := await connection.recv())[0] != [b"after"]:
                found, _, size = message
                left_out += found is None
                read += size
            assert left_out
            assert tracemalloc.get_traced_memory()[1] < 3 * zmtp.MAX_MESSAGE_BYTES
        finally:
            tracemalloc.stop()
        assert read >= times * (len(frame) - frame.count(b"\x01") * 9) * 0.9


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n" + bytes(100),
        GREETING[:40],
        GREETING[:10] + b"\x01" + GREETING[11:] + READY,
        GREETING.replace(b"NULL", b"PLAI") + READY,
        GREETING + b"\x00\x05READY",
        GREETING + b"\x04\x05ERROR",
        GREETING + b"\x06" + struct.pack("!Q", 2**63) + b"x",
    ],
)
async def test_another_protocol_is_an_error(runtime_dir: Path, answer: bytes) -> None:
    """And nothing is waited for that is only announced."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, runtime_dir / "s"), asyncio.timeout(RUN_TIMEOUT_S):
        with pytest.raises(zmtp.Broken):
            await zmtp.Connection.open(runtime_dir / "s", "DEALER", b"keeper")


@pytest.mark.parametrize("end", [b"", b"\x00", b"\x02\x00", b"\x00\x05abc", long_frame(1 << 20, 0)[:-1], READY])
async def test_an_end_within_a_message_is_an_error(runtime_dir: Path, end: bytes) -> None:
    """Half a message is none, and a command that nobody asked for is the end."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01a" + end)
        await writer.drain()

    async with spoken_to(runtime_dir, write) as connection:
        assert await connection.recv() == ([b"a"], 1, 1)
        with pytest.raises(zmtp.Broken):
            await connection.recv()


async def test_libzmq_and_it_understand_each_other(runtime_dir: Path) -> None:
    """Messages of any frames, in both directions, and nothing before it has subscribed."""
    messages = [
        [b"a"],
        [b""],
        [b"", b"x" * 255, b"y" * 256, b""],
        [b"z" * 70_000, b"b" * 3_000_000],
        [bytes([n % 256]) * n for n in range(900)],
        [b"c" * zmtp.MAX_MESSAGE_BYTES],
    ]
    context = zmq.asyncio.Context()
    try:
        publisher, router = context.socket(zmq.XPUB), context.socket(zmq.ROUTER)
        publisher.bind(f"ipc://{runtime_dir / 'p'}")
        router.bind(f"ipc://{runtime_dir / 'r'}")
        async with asyncio.timeout(RUN_TIMEOUT_S):
            heard = await zmtp.Connection.open(runtime_dir / "p", "SUB")
            asked = await zmtp.Connection.open(runtime_dir / "r", "DEALER", b"keeper")
            assert await publisher.recv_multipart() == [b"\x01"]
            for message in messages:
                publisher.send_multipart(message)
                assert await heard.recv() == (message, len(message), sum(map(len, message)))
                asked.send(message)
                assert await router.recv_multipart() == [b"keeper", *message]
                router.send_multipart([b"keeper", *message])
                assert (await asked.recv())[0] == message
            heard.close()
            asked.close()
    finally:
        context.destroy(0)


async def test_frames_without_bytes_cost_too(runtime_dir: Path) -> None:
    """A message of a thousand empty ones is no small message, and others get their turn between such."""
    spent: list[float] = []
    turns: list[float] = []
    ended = asyncio.Event()

    class Noted(Budget):
        def spend(self, seconds: float) -> None:
            spent.append(seconds)

        def delay(self, now: float) -> float:
            turns.append(now)
            return 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING + READY + (b"\x01\x00" * (zmtp.MAX_FRAMES - 1) + b"\x00\x00") * 20)
        writer.write_eof()
        await reader.read()
        writer.close()
        ended.set()

    async with await asyncio.start_unix_server(serve, runtime_dir / "s-2"), asyncio.timeout(RUN_TIMEOUT_S):
        client = JupyterClient(runtime_dir, "key", lambda *_: None, budget=Noted())
        try:
            with pytest.raises(zmtp.Broken):
                await client.wait_for_output()
        finally:
            await client.close()
        await ended.wait()
    assert len(spent) == 20
    assert sum(spent) > 20 * zmtp.MAX_FRAMES * 1e-6
    assert len(turns) >= 19
