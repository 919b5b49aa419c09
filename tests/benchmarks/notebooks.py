"""How long a notebook waits: attach, restart and cells under a real Jupyter server, beside plain ipykernel, in one run.

`python -m tests.benchmarks.notebooks [-n TIMES] [--cells COUNT] [--json FILE]`

Everything goes the way that JupyterLab takes: the server's REST interface and its websocket. `attach` and `start` are
POST /api/kernels, `restart` is POST /api/kernels/ID/restart, which for us brings ten variables back, and the round trip
is from the execute_request to reply and idle. Ours is durable and confined; the peer is neither.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.benchmarks.session import machine

ROOT = Path(__file__).resolve().parent.parent.parent
FILL = "import pandas as pd, numpy as np; x = 0\n" + "\n".join(f"v{n} = np.arange({n} + 1)" for n in range(10))
CELLS = {
    "1+1": "1+1",
    "x += 1": "x += 1",
    "x += 1 by reflection": "globals()['x'] += 1",  # it may have changed anything: all is compared
}


class Server:
    """A Jupyter server, as its own page talks to it."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"token {token}"}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        request = HTTPRequest(
            f"{self.url}{path}",
            method=method,
            headers=self._headers,
            body=None if method in ("GET", "DELETE") else json.dumps(body or {}),
            request_timeout=120,
        )
        answer = await AsyncHTTPClient().fetch(request)
        return json.loads(answer.body) if answer.body else None

    @contextlib.asynccontextmanager
    async def channels(self, kernel: str) -> AsyncIterator[Channels]:
        url = f"{self.url.replace('http', 'ws')}api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
        connection = await websocket_connect(HTTPRequest(url, headers=self._headers))
        try:
            yield Channels(connection)
        finally:
            connection.close()


class Channels:
    """The websocket of one notebook."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._socket = connection

    def _acknowledge_at_once(self) -> None:
        """Otherwise the server's system keeps small messages back for 40 ms, whoever runs the cell."""
        protocol = self._socket.protocol
        assert protocol is not None
        assert protocol.stream is not None
        protocol.stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def run(self, code: str) -> float:
        """Seconds until the reply and the idle state are there. Fails if the code does."""
        identity = uuid.uuid4().hex
        header = {"msg_id": identity, "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
                   "stop_on_error": True}  # fmt: skip
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        began = time.perf_counter()
        await self._socket.write_message(json.dumps({**message, "buffers": []}))
        missing = {"reply", "idle"}
        while missing:
            self._acknowledge_at_once()
            raw = await self._socket.read_message()
            if not isinstance(raw, str):
                raise RuntimeError("the websocket ended")
            found = json.loads(raw)
            if found["parent_header"].get("msg_id") != identity:
                continue
            if found["msg_type"] == "execute_reply":
                if found["content"]["status"] != "ok":
                    raise RuntimeError(found["content"])
                missing.discard("reply")
            elif found["content"].get("execution_state") == "idle":
                missing.discard("idle")
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def server(directory: Path) -> AsyncIterator[Server]:
    """A Jupyter server of its own, with our kernelspec and the plain one."""
    kernels = directory / "share/kernels"
    shutil.copytree(ROOT / "kernel_spec", kernels / "kernelrepl")
    token = secrets.token_hex(16)
    runtime = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    environment = {
        **os.environ,
        "HOME": str(directory),
        "JUPYTER_PATH": str(kernels.parent),
        "JUPYTER_RUNTIME_DIR": str(directory / "runtime"),
        "JUPYTER_CONFIG_DIR": str(directory / "config"),
        "KERNELREPL_DATA_DIR": str(directory / "data"),
        "KERNELREPL_RUNTIME_DIR": str(runtime),
    }
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={directory}",
    ]  # fmt: skip
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *options], env=environment, stdout=log, stderr=log
        )
    try:
        info = None
        while info is None:
            if process.poll() is not None:
                raise RuntimeError((directory / "server.log").read_text())
            await asyncio.sleep(0.05)
            for file in (directory / "runtime").glob("jpserver-*.json"):
                with contextlib.suppress(ValueError):
                    info = json.loads(file.read_text())
        yield Server(info["url"], token)
    finally:
        process.terminate()
        process.wait()
        subprocess.run([sys.executable, "-m", "kernelrepl", "stop"], env=environment, check=False, capture_output=True)
        shutil.rmtree(runtime, ignore_errors=True)


async def measure(times: int, cells: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each thing, in turn for both."""
    found: dict[str, dict[str, list[float]]] = {"kernelrepl": {}, "python3": {}}
    with tempfile.TemporaryDirectory(prefix="kernelrepl-bench-") as scratch:
        async with server(Path(scratch)) as jupyter:
            for number in range(times + 1):
                for name, rows in found.items():
                    row = await _once(jupyter, name, f"{scratch}/{name}-{number}.ipynb", cells)
                    if number:  # the first of each warms up
                        for what, values in row.items():
                            rows.setdefault(what, []).extend(values)
                    await asyncio.sleep(1)
    return found


async def _once(jupyter: Server, name: str, path: str, cells: int) -> dict[str, list[float]]:
    async def timed(method: str, where: str, body: Any = None) -> tuple[float, Any]:
        began = time.perf_counter()
        answer = await jupyter.ask(method, where, body)
        return time.perf_counter() - began, answer

    session = {"kernel": {"name": name}, "name": path, "path": path, "type": "notebook"}
    start, model = await timed("POST", "api/sessions", session)
    kernel = model["kernel"]["id"]
    row: dict[str, list[float]] = {"attach": [start]}
    async with jupyter.channels(kernel) as channels:
        row["first cell"] = [await channels.run("1")]
        await channels.run(FILL)
        for what, code in CELLS.items():
            row[what] = [await channels.run(code) for _ in range(cells)]
    restart, _ = await timed("POST", f"api/kernels/{kernel}/restart")
    row["restart"] = [restart]
    async with jupyter.channels(kernel) as channels:
        row["first cell after it"] = [await channels.run("v9" if name == "kernelrepl" else "1")]
    await jupyter.ask("DELETE", f"api/sessions/{model['id']}")
    again, model = await timed("POST", "api/sessions", session)
    if name == "kernelrepl":
        row["attach to a live session"] = [again]
    await jupyter.ask("DELETE", f"api/sessions/{model['id']}")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--times", type=int, default=8)
    parser.add_argument("--cells", type=int, default=100, help="of each kind, each time")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = asyncio.run(measure(options.times, options.cells))
    print(machine())
    print(f"| median of {options.times} | kernelrepl | ipykernel | ratio |\n|---|---|---|---|")
    for what, ours in found["kernelrepl"].items():
        mine = statistics.median(ours) * 1e3
        theirs = statistics.median(found["python3"][what]) * 1e3 if what in found["python3"] else None
        beside = "|  |" if theirs is None else f"{theirs:.1f} ms | {mine / theirs:.2f}x |"
        print(f"| {what} | {mine:.1f} ms | {beside}")
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
