"""What Jupyter hosts do with a session: attach in both ways, run cells, look at what comes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelClient, AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager

from tests.support.mcp_hosts import DEADLINE_S, Place

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("provisioner", "command")
"""Jupyter's servers load the provisioner; VS Code and PyCharm run the command of the kernelspec."""


def folder_of(how: str, directory: Path) -> str:
    """A folder with the kernelspec, as one kind of host reads it."""
    spec = json.loads((ROOT / "kernel_spec/kernel.json").read_text())
    if how == "command":
        del spec["metadata"]["kernel_provisioner"]  # what such a host does not know
    place = directory / how / "kernelrepl"
    place.mkdir(parents=True, exist_ok=True)
    (place / "kernel.json").write_text(json.dumps(spec))
    return str(place.parent)


class Notebook:
    """An open notebook: a kernel as a host has it, and a client of it."""

    def __init__(self, manager: AsyncKernelManager, client: AsyncKernelClient) -> None:
        self.manager = manager
        self.client = client

    async def run(self, code: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The content of the reply, and of what was shown meanwhile."""
        shown: list[dict[str, Any]] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] not in ("status", "execute_input"):
                shown.append({"type": message["msg_type"], **message["content"]})

        hook = options.pop("output_hook", hook)
        reply = await self.client.execute_interactive(code, output_hook=hook, timeout=DEADLINE_S, **options)
        return reply["content"], shown

    async def value(self, code: str) -> str:
        """The text of the last expression. Fails the test if there is none."""
        reply, shown = await self.run(code)
        assert reply["status"] == "ok", reply
        return str(shown[-1]["data"]["text/plain"])

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message on iopub that is what is wanted."""
        while True:
            message = await self.client.get_iopub_msg(timeout=DEADLINE_S)
            if wanted(message):
                return message

    async def reply_to(self, request: str) -> dict[str, Any]:
        """The content of the reply to a request that has been sent."""
        while True:
            message = await self.client.get_shell_msg(timeout=DEADLINE_S)
            if message["parent_header"]["msg_id"] == request:
                return dict(message["content"])

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Notebook]:
        """Another client at the same place, as a console that somebody opens beside the notebook."""
        info = self.manager.get_connection_info(session=False)
        client = AsyncKernelClient()
        client.load_connection_info(info)
        async with _connected(client):
            yield Notebook(self.manager, client)


@asynccontextmanager
async def _connected(client: AsyncKernelClient) -> AsyncIterator[None]:
    client.start_channels(hb=False)
    try:
        await client.wait_for_ready(timeout=DEADLINE_S)
        yield
    finally:
        client.stop_channels()


@asynccontextmanager
async def notebook(place: Place, path: str | None, how: str = "provisioner") -> AsyncIterator[Notebook]:
    """A notebook as Jupyter's server opens it. path: None for a host that gives none."""
    specs = KernelSpecManager(kernel_dirs=[folder_of(how, place.data_dir.parent)], ensure_native_kernel=False)
    environ = {**place.environ, **({} if path is None else {"JPY_SESSION_NAME": path})}
    manager = AsyncKernelManager(kernel_name="kernelrepl", kernel_spec_manager=specs)
    await manager.start_kernel(env=environ, cwd="/")
    try:
        client = manager.client()
        async with _connected(client):
            yield Notebook(manager, client)
    finally:
        await manager.shutdown_kernel()
