"""What the keeper itself answers to Jupyter clients, in place of a kernel that may be asleep."""

from __future__ import annotations

import fnmatch
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kernelrepl import __version__
from kernelrepl.model import SessionInfo, counted
from kernelrepl.outputs import terminal_text
from kernelrepl.sessions.manager import Manager, Origin

PROTOCOL = "5.4"
MAX_HISTORY = 1000
"""Of how many inputs a client may ask for."""
MAX_HISTORY_CHARS = 4_000_000

PASSED_ON = (
    "execute_request", "complete_request", "inspect_request", "is_complete_request", "comm_info_request", "comm_open",
    "comm_msg", "comm_close",
)  # fmt: skip
"""What a kernel is asked, too."""

_COMMAND = re.compile(r"\s*%kernelrepl(?![\w-])[ \t]*([^\n]*?)\s*\Z")
_LEAVE = re.compile(r"\s*(?:exit|quit)(?:[ \t]*\([ \t]*\))?[ \t]*;?\s*\Z")
LEAVE = "exit"
_HELP = """\
%kernelrepl info      the session, its kernel, and how an agent gets to it
%kernelrepl unsaved   the names whose values are not stored, and why
%kernelrepl clear     forget all variables; history and files stay
%kernelrepl watch     show below this cell what others run in the session
%kernelrepl unwatch   no longer"""


@dataclass(frozen=True)
class Answer:
    """The content of a reply, and its metadata."""

    content: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


def failed(name: str, message: str, trace: str = "") -> Answer:
    """A reply that tells an error."""
    lines = trace.splitlines() or [f"{name}: {message}"]
    content = {"status": "error", "ename": name, "evalue": message, "traceback": lines}
    return Answer({**content, "execution_count": None, "user_expressions": {}, "payload": []})


def unsupported(kind: str) -> Answer:
    if kind == "debug_request":
        reason = "debugpy listens on the network, which a session has not"
        return failed("NotSupported", f"a kernelrepl session has no debugger: {reason}; %whos shows its variables")
    return failed("NotSupported", f"a kernelrepl session does not know {kind[:100]}")


def kernel_info(session_id: str, version: str) -> Answer:
    """version: of the Python that runs its kernels, if one is known."""
    version = version or platform.python_version()
    language = {
        "name": "python",
        "version": version,
        "mimetype": "text/x-python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "nbconvert_exporter": "python",
    }
    return Answer(
        {
            "status": "ok",
            "protocol_version": PROTOCOL,
            "implementation": "kernelrepl",
            "implementation_version": __version__,
            "language_info": language,
            "banner": f"Python {version} in kernelrepl session {session_id!r}, which outlives this window",
            "help_links": [],
            "debugger": False,
            "supported_features": [],
        }
    )


def history(inputs: Sequence[tuple[int, str]], asked: Mapping[str, Any]) -> Answer:
    """inputs: of executions, their count and code, in their order."""
    found = list(inputs)
    most = asked.get("n")
    match asked.get("hist_access_type"):
        case "range":
            start, stop = asked.get("start") or 0, asked.get("stop")
            if isinstance(start, int):
                found = [one for one in found if one[0] >= start and (not isinstance(stop, int) or one[0] < stop)]
            most = None
        case "search":
            pattern = str(asked.get("pattern") or "*")
            found = [one for one in found if fnmatch.fnmatchcase(one[1], pattern)]
            if asked.get("unique"):
                found = [
                    one for number, one in enumerate(found) if one[1] not in {code for _, code in found[number + 1 :]}
                ]
    if isinstance(most, int):
        found = found[-most:] if most > 0 else []
    budget_chars = MAX_HISTORY_CHARS
    found = [one for one in reversed(found) if (budget_chars := budget_chars - len(one[1])) >= 0][::-1]
    entries = [(1, count, (code, None) if asked.get("output") else code) for count, code in found]
    return Answer({"status": "ok", "history": entries})


def command(code: str) -> str | None:
    """The command of a cell that is a single `%kernelrepl` line, or by which a person leaves; None for another cell."""
    if _LEAVE.match(code):
        return LEAVE
    found = _COMMAND.match(code)
    return None if found is None else found[1] or "help"


async def tell(
    command: str, manager: Manager, session_id: str, origin: Origin, info: SessionInfo | None, trusted: bool
) -> str:
    """Do a command and say what came of it. Raises KernelReplError."""
    match command:
        case "info":
            return await _info(manager, session_id, origin, info, trusted)
        case "unsaved":
            lost = [entry for entry in await manager.list_variables(session_id) if not entry.saved]
            lines = [terminal_text.field(f"{entry.name} ({entry.type}): {entry.reason}") for entry in lost]
            if (await manager.session(session_id, origin)).store_is_behind:
                lines.append("the last changes could not be stored (is the disk full?); the next cell tries it again")
            return "\n".join(lines) or "all variables are stored"
        case "clear":
            count = await manager.clear(session_id, origin)
            return f"{counted(count, 'variable')} removed; files and history are kept"
        case "help":
            return _HELP
    return f"there is no %kernelrepl {terminal_text.field(command[:100])}; there are\n{_HELP}"


async def _info(manager: Manager, session_id: str, origin: Origin, info: SessionInfo | None, trusted: bool) -> str:
    session = await manager.session(session_id, origin)
    kernel = session.kernel_state if session.pid is None else f"{session.kernel_state}, process {session.pid}"
    outputs = "may act: a person trusts them" if trusted else f"cannot act; kernelrepl trust {session_id} lets them"
    count, size, executions = (
        (0, 0, 0) if info is None else (info.variable_count, info.size_bytes, info.total_executions)
    )
    since = "" if info is None else f" since {info.created_at}"
    lines = [
        f"session      {session_id}",
        f"kernel       {kernel}",
        f"variables    {count}, {size:,} bytes stored",
        f"executions   {executions}{since}",
        f"files        {await manager.workspace(session_id)}",
        f"sandbox      {manager.sandbox}",
        f"outputs      {outputs}",
        f"an agent     python_repl(code, session_id={session_id!r})",
    ]
    return "\n".join(lines)
