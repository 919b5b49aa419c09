"""Wheels made by tests, and an index of them that needs no network."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self


def make_wheel(
    directory: Path,
    name: str,
    version: str,
    files: Mapping[str, str | bytes],
    *,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write a wheel and return its path. files: contents by path in the wheel; links: targets of symbolic links."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    contents = {
        **{path: text.encode() if isinstance(text, str) else text for path, text in files.items()},
        f"{info}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in contents.items()
    ]
    contents[f"{info}/RECORD"] = ("\n".join([*record, f"{info}/RECORD,,"]) + "\n").encode()
    wheel = directory / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
        for path, target in (links or {}).items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, target)
    return wheel


def index_of(directory: Path) -> dict[str, str]:
    """Return what makes uv take packages from a directory alone."""
    directory.mkdir(parents=True, exist_ok=True)
    return {"UV_FIND_LINKS": str(directory), "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}


WAIT_S = 180


class SlowIndex:
    """A package index on this machine that answers nothing before it is told to."""

    def __init__(self, wheels: Path) -> None:
        self.asked, self.open = threading.Event(), threading.Event()
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.set()
                index.open.wait(WAIT_S)
                name = self.path.strip("/").rpartition("/")[2]
                files = [wheel.name for wheel in wheels.iterdir()]
                if name in files:
                    self._answer((wheels / name).read_bytes(), "application/octet-stream")
                else:
                    links = [f'<a href="/files/{file}">{file}</a>' for file in files if file.startswith(f"{name}-")]
                    self._answer("\n".join(links).encode(), "text/html")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """A test prints nothing of it."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/simple"

    @contextlib.contextmanager
    def served(self) -> Iterator[Self]:
        """Answer in a thread, until the block ends."""
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.open.set()
            self.server.shutdown()
            self.server.server_close()
            thread.join()
