"""The kernel provisioner: what makes a Jupyter server attach to a session instead of starting a process.

The server asks for a kernel and gets one of the keeper's. Its restart is a new process with everything restored;
its shutdown only detaches. Several servers and an agent may be attached to one session.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from concurrent.futures import Future
from typing import Any

from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Unicode

from kernelrepl.errors import KernelReplError
from kernelrepl.jupyter.attachment import CALL_TIMEOUT_S, Attachment

NOTEBOOK = "JPY_SESSION_NAME"
"""The environment variable in which Jupyter's server gives the path of the notebook."""


class SessionProvisioner(KernelProvisionerBase):
    """Stands for the kernel of one session, as a server sees it."""

    session_id = Unicode("", config=True, help="The session to attach to. Empty: that of the notebook.")

    _attachment: Attachment | None = None
    _attached = False
    _launched = False

    @property
    def has_process(self) -> bool:
        return self._attached

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Nothing is to be formatted: there is no command."""
        prepared: dict[str, Any] = await super().pre_launch(cmd=[], **kwargs)
        return prepared

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Attach; from the second time on with a new kernel. Raises KernelReplError, which says what to do."""
        environ = kwargs["env"]
        if self._attachment is None:
            notebook = None if self.session_id else environ.get(NOTEBOOK) or None
            self._attachment = Attachment(
                environ, session_id=self.session_id or None, notebook=notebook, lost=self._on_lost
            )
        info = await asyncio.to_thread(self._attachment.open, restart=self._launched)
        self._launched = self._attached = True
        connection: Any = {**info, "key": info["key"].encode()}
        self.connection_info = connection
        return connection

    def _on_lost(self) -> None:
        self._attached = False  # the server looks, and starts it again

    async def poll(self) -> int | None:
        """None while it is attached."""
        if self._attached and self._attachment is not None:
            self._follow(self._attachment)
            return None
        return 0

    def _follow(self, attachment: Attachment) -> Future[Any] | None:
        """Tell the keeper if the notebook has been renamed: the server changes the environment of the next launch."""
        environ = (getattr(self.parent, "_launch_args", None) or {}).get("env") or {}
        return attachment.rename(environ[NOTEBOOK]) if environ.get(NOTEBOOK) else None

    async def wait(self) -> int | None:
        while await self.poll() is None:
            # It ends in another thread; and whoever waits has a time limit.
            await asyncio.sleep(0.1)
        return 0

    async def send_signal(self, signum: int) -> None:
        """SIGINT interrupts what the server's own clients run, and nothing when a notebook is only closed."""
        if (
            signum == signal.SIGINT
            and self._attachment is not None
            and not getattr(self.parent, "shutting_down", False)
        ):
            await asyncio.wrap_future(self._attachment.here("keeper_interrupt"))

    async def kill(self, restart: bool = False) -> None:
        self._attached = False

    async def terminate(self, restart: bool = False) -> None:
        self._attached = False

    async def shutdown_requested(self, restart: bool = False) -> None:
        self._attached = False

    async def cleanup(self, restart: bool = False) -> None:
        """Detach: the session is not the server's."""
        if not restart and self._attachment is not None:
            attachment, self._attachment = self._attachment, None
            self._launched = False
            # Without a thread of its own: where a program ends, none can be started any more.
            for asked in (self._follow(attachment), attachment.detach()):  # nobody may have polled since
                if asked is not None:
                    with contextlib.suppress(KernelReplError, TimeoutError):
                        await asyncio.wait_for(asyncio.wrap_future(asked), CALL_TIMEOUT_S)
            attachment.hang_up()
