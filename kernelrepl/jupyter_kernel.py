"""A Jupyter kernel for notebook hosts that passes each cell on to a session of the keeper.

What runs and what is saved is the keeper's business: this process may be killed and started again at any
time. One notebook has one session, by the path that the host gives; a host that gives none (nbclient,
papermill) expects a clean kernel and gets a session that is deleted with it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

from kernelrepl import __version__, api
from kernelrepl.errors import KernelReplError
from kernelrepl.result import Result, harmless

NOTEBOOK = "JPY_SESSION_NAME"
"""The environment variable in which Jupyter's server gives the path of the notebook."""


def session_of(notebook: str | None) -> str:
    """The session of a notebook, or a new name for a kernel that belongs to none."""
    if not notebook:
        return f"kernel-{secrets.token_hex(6)}"
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(notebook).stem)[:60].strip("-.")
    return f"notebook-{stem}-{hashlib.sha256(notebook.encode()).hexdigest()[:8]}"


class SessionKernel(Kernel):
    """Answers a Jupyter client with what the session says."""

    implementation = "kernelrepl"
    implementation_version = __version__
    language_info = {  # noqa: RUF012 - a trait of the base class
        "name": "python",
        "version": sys.version.split()[0],
        "mimetype": "text/x-python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "nbconvert_exporter": "python",
    }
    banner = f"kernelrepl {__version__}: a session that survives its kernel"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        notebook = os.environ.get(NOTEBOOK)
        self.session_id = session_of(notebook)
        self._throwaway = not notebook

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Run a cell in the session and show its outputs."""
        try:
            result = await api.python_repl(code, self.session_id)
        except KernelReplError as error:
            return self._failed(type(error).__name__, str(error), [str(error)], silent)
        if not silent:
            self._show(result)
        count = result["execution_count"]
        if result["status"] == "ok":
            return {"status": "ok", "execution_count": count, "payload": [], "user_expressions": {}}
        failure = result["error"] or {"name": result["status"], "message": result["note"] or "", "traceback": ""}
        shown = any(output["output_type"] == "error" for output in result.outputs)
        return self._failed(
            failure["name"], failure["message"], failure["traceback"].splitlines(), silent or shown, count
        )

    def _show(self, result: Result) -> None:
        for output in result.outputs:
            content = {key: value for key, value in output.items() if key != "output_type"}
            if "data" in content:
                content["data"] = harmless(content["data"])
            self.send_response(self.iopub_socket, output["output_type"], content)
        if result.remarks:
            text = "\n".join([*result.remarks, ""])
            self.send_response(self.iopub_socket, "stream", {"name": "stderr", "text": text})

    def _failed(self, name: str, message: str, trace: list[str], quiet: bool, count: int = 0) -> dict[str, Any]:
        content = {"ename": name, "evalue": message, "traceback": trace}
        if not quiet:
            self.send_response(self.iopub_socket, "error", content)
        return {"status": "error", "execution_count": count, **content}

    async def interrupt_request(self, stream: Any, ident: Any, parent: Any) -> None:
        """Interrupt what runs in the session. Comes in on the control thread, which has a loop of its own."""
        content: dict[str, Any] = {"status": "ok"}
        try:
            await api.python_interrupt(self.session_id)
        except KernelReplError as error:
            content = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
        assert self.session is not None
        self.session.send(stream, "interrupt_reply", content, parent, ident=ident)

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        """Leave the session as it is; one that belongs to no notebook goes with its kernel."""
        if self._throwaway and not restart:
            try:
                await api.python_delete_session(self.session_id)
            except KernelReplError as error:
                self.log.warning("the session of this kernel could not be deleted: %s", error)
        return {"status": "ok", "restart": restart}


def main(arguments: list[str]) -> None:
    """Serve the connection file that the host names, as every Jupyter kernel does: `-f FILE`."""
    IPKernelApp.launch_instance(arguments, kernel_class=SessionKernel)
