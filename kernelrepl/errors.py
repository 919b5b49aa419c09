"""This module has an error class for each remedy of a failure. User code that fails is a result, not one of these.

The text of each error says what is wrong and what to do. Its attributes carry the data in the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TYPE_CHECKING = False  # without `typing`, which takes as long to load as all else here
if TYPE_CHECKING:
    from typing import Any

WIRE_KEY = "kernelrepl/error"
"""The key in `_meta` of a tool's result under which it carries an error as JSON."""


class KernelReplError(Exception):
    """This class is the base of all errors of this package."""


class InvalidSessionId(KernelReplError):
    """The session_id has a form that is not allowed. Attribute: session_id."""

    def __init__(self, session_id: str, why: str) -> None:
        shown = session_id if len(session_id) <= 40 else session_id[:40] + "…"
        super().__init__(
            f"session_id {shown!r} {why}; use 1 to 100 letters, digits and . _ - : @ + and start with a letter or digit"
        )
        self.session_id = session_id


class UnknownSession(KernelReplError):
    """No session has this id. Attributes: session_id, and close, a tuple of ids that may be meant."""

    def __init__(self, session_id: str, close: Iterable[str] = ()) -> None:
        self.session_id = session_id
        self.close = tuple(close)
        if self.close:
            hint = "did you mean " + " or ".join(repr(name) for name in self.close) + "?"
        else:
            hint = "python_list_sessions shows the ones there are; python_repl creates one"
        super().__init__(f"there is no session {session_id!r}: {hint}")


class SessionExists(KernelReplError):
    """A session cannot get the name of another one. Attribute: session_id."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is a session {session_id!r} already; choose another name, or delete that one first")
        self.session_id = session_id


class SessionInUse(KernelReplError):
    """A session cannot be renamed while code runs in it or a notebook is attached. Attributes: session_id, attached."""

    def __init__(self, session_id: str, attached: bool) -> None:
        super().__init__(
            f"session {session_id!r} cannot be renamed: a notebook or a console is attached, or a connection file"
            " leads to it; close it, or go on with this name"
            if attached
            else f"session {session_id!r} cannot be renamed now: code runs in it; wait or interrupt it first"
        )
        self.session_id = session_id
        self.attached = attached


class NoSessionYet(UnknownSession):
    """Files cannot be copied into a session that does not exist. Attributes: as UnknownSession."""

    def __init__(self, session_id: str, close: Iterable[str] = ()) -> None:
        self.session_id = session_id
        self.close = tuple(close)
        meant = f"did you mean {' or '.join(map(repr, self.close))}? " if self.close else ""
        KernelReplError.__init__(
            self,
            f"there is no session {session_id!r}: {meant}create it first by running code in it, for example"
            f" `kernelrepl exec -s {session_id} 1`",
        )


class WorkspaceFileRefused(KernelReplError):
    """A file in a workspace cannot be copied, or a file cannot be put there. Attributes: path, why."""

    def __init__(self, path: str, why: str, remedy: str) -> None:
        super().__init__(f"'{path}' {why}; {remedy}")
        self.path = path
        self.why = why


class WorkspaceFileTooLarge(WorkspaceFileRefused):
    """A file in a workspace is larger than who asks for it takes. Attributes: path, why."""


class CopyFailed(KernelReplError):
    """A file outside of the workspace cannot be read or written. Attributes: path, why."""

    def __init__(self, path: str, why: str, remedy: str) -> None:
        super().__init__(f"'{path}' {why}; {remedy}")
        self.path = path
        self.why = why


class HostFileRefused(KernelReplError):
    """The configuration file of an MCP host cannot be changed. Attributes: path, why."""

    def __init__(self, path: str, why: str, remedy: str) -> None:
        super().__init__(f"{path} {why}; {remedy}")
        self.path = path
        self.why = why


class InvalidArgument(KernelReplError):
    """An argument of a call has a value that is not allowed."""


class UnknownTool(KernelReplError):
    """No tool has this name. Attributes: name, tools, and close, a tuple of tools that may be meant."""

    def __init__(self, name: str, tools: Iterable[str], close: Iterable[str] = ()) -> None:
        self.name = name
        self.tools = tuple(tools)
        self.close = tuple(close)
        if self.close:
            hint = "did you mean " + " or ".join(repr(tool) for tool in self.close) + "?"
        else:
            hint = "there are " + ", ".join(self.tools)
        super().__init__(f"there is no tool {name[:100]!r}: {hint}")


class NothingRunning(KernelReplError):
    """A wait or an interrupt found a session in which nothing has run yet. Attribute: session_id."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"nothing has run in session {session_id!r} yet; run code with python_repl first")
        self.session_id = session_id


class KernelStartFailed(KernelReplError):
    """A kernel could not be started. Attribute: log, the last text that it printed."""

    def __init__(self, why: str, log: str = "") -> None:
        tail = f"\nLast words of the kernel:\n{log[-2000:]}" if log else ""
        super().__init__(
            f"the kernel could not be started: {why}; KERNELREPL_PYTHON must name a Python 3.11 or later with"
            " ipykernel, cloudpickle and xxhash; a session keeps the one it first ran with, `kernelrepl doctor` shows"
            f" yours{tail}"
        )
        self.log = log


class InterpreterLacks(KernelStartFailed):
    """The interpreter of a session lacks what kernels need. Attributes: python, log."""

    def __init__(self, python: str, version: str, lacks: Sequence[str]) -> None:
        if list(lacks) == ["python"]:
            remedy = f"is Python {version}, and kernels need 3.11 or later; set KERNELREPL_PYTHON to another one"
        else:
            packages = " ".join(f"'{name}'" for name in lacks)
            remedy = f"lacks what kernels need; install it with: {python} -m pip install {packages}"
        KernelReplError.__init__(self, f"{python} {remedy}")
        self.python = python
        self.log = ""


class InterpreterExposed(KernelStartFailed):
    """A session may write where an interpreter of kernels takes its code from. Attributes: python, path, place, log."""

    def __init__(self, python: str, path: str, place: str) -> None:
        KernelReplError.__init__(
            self,
            f"the kernel could not be started: code in a session may write to {place}, and could change what {python}"
            f" runs from {path} before it is confined; set KERNELREPL_PYTHON to an interpreter elsewhere, or take the"
            f" folder from the session that has it with `kernelrepl grant SESSION --revoke {place}`",
        )
        self.python = python
        self.path = path
        self.place = place
        self.log = ""


class PackagesNotInstalled(KernelReplError):
    """Packages were not installed for a session. Attributes: names, why."""

    def __init__(self, names: Sequence[str], why: str) -> None:
        super().__init__(f"{', '.join(names)} not installed: {why}")
        self.names = tuple(names)
        self.why = why


class InstallFailed(KernelReplError):
    """The installer did not do what it was asked for. The text says why."""


class InstallerMissing(KernelReplError):
    """There is no installer for packages of sessions."""

    def __init__(self) -> None:
        super().__init__(
            "packages of sessions are installed by uv, which is not here; `pip install uv` beside kernelrepl"
        )


class AccessRefused(KernelReplError):
    """A path cannot be granted to sessions. Attribute: path."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path!r} cannot be granted: it {why}")
        self.path = path


class SandboxUnavailable(KernelReplError):
    """This system cannot confine a kernel, so no kernel was started. Attribute: why."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"no kernel was started, because it could not be confined: {why}. What helps: on Ubuntu 24.04 and later"
            " `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; in Docker or Podman the options in"
            " examples/docker/README.md; elsewhere Linux 5.13 or later with user namespaces. `kernelrepl doctor` shows"
            ' what is missing; sandbox = "off" in config.toml runs code with your own rights instead'
        )
        self.why = why


class SandboxTooWeak(KernelReplError):
    """A session was made in a stronger sandbox than there is now. Attributes: session_id, made_in."""

    def __init__(self, session_id: str, made_in: str, now: str) -> None:
        super().__init__(
            f"session {session_id!r} was made with sandbox {made_in} and is not opened with {now}: what its code left"
            " behind would run with less in its way; start the keeper where that sandbox is possible, or remove"
            ' sandbox = "off" from config.toml'
        )
        self.session_id = session_id
        self.made_in = made_in


class SessionDeleted(KernelReplError):
    """The session was deleted while the call waited. Attribute: session_id."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} was deleted while this call was waiting; nothing of the call ran")
        self.session_id = session_id


class StorageFailed(KernelReplError):
    """The database cannot be read or written."""


class DatabaseTooNew(StorageFailed):
    """A newer kernelrepl wrote this database. Attribute: path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} was written by a newer kernelrepl; upgrade with `pip install -U kernelrepl`")
        self.path = path


class DirectoryFailed(StorageFailed):
    """A directory for a session cannot be made."""

    def __init__(self, path: object, why: str | None) -> None:
        super().__init__(
            f"the directory {path} cannot be made: {why}; free some space or make the one above it writable"
        )


class SessionDamaged(StorageFailed):
    """The database has changed what is fixed for a session. Attribute: session_id."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"session {session_id!r} is damaged in the database: its name, its directory or what it may do is not what"
            " was stored, so nothing runs in it; put back a copy of the database, or delete the session"
        )
        self.session_id = session_id


class KeeperRunning(KernelReplError):
    """Another keeper owns the data directory. Attributes: data_dir, and pid, an int or None."""

    def __init__(self, data_dir: str, pid: int | None = None) -> None:
        remedy = "`kernelrepl stop` ends it" if pid is None else f"`kernelrepl stop` or `kill {pid}` ends it"
        super().__init__(f"another keeper serves {data_dir}; {remedy}")
        self.data_dir = data_dir
        self.pid = pid


class KeeperUnavailable(KernelReplError):
    """No keeper could be reached or started."""


class NoKeeper(KeeperUnavailable):
    """No keeper runs, and the call was not to start one."""

    def __init__(self) -> None:
        super().__init__("no keeper is running; the next call starts one")


class KeeperSilent(KeeperUnavailable):
    """A keeper runs but does not answer. Attribute: pid."""

    def __init__(self, pid: int, waited_s: float) -> None:
        super().__init__(
            f"the keeper, process {pid}, has not answered for {waited_s:g} s; `kill -CONT {pid}` lets it go on if it"
            f" was stopped, and `kill -9 {pid}` ends it: what is saved stays"
        )
        self.pid = pid


class InvalidSettings(KernelReplError):
    """A setting has a value that cannot be used."""


class ToolFailed(KernelReplError):
    """A tool failed with an error that is none of the others. The text says why, and what to do."""


def to_wire(error: KernelReplError) -> dict[str, Any]:
    """Return an error as a dict for JSON: its type, message and data. Its attributes must be JSON values."""
    return {"type": type(error).__name__, "message": str(error), "data": dict(vars(error))}


def from_wire(found: Any) -> KernelReplError | None:
    """Return the error that another process described with `to_wire`, or None if its class is not known here."""
    if not isinstance(found, dict):
        return None
    kind = globals().get(str(found.get("type")))
    if not (isinstance(kind, type) and issubclass(kind, KernelReplError)):
        return None
    error = kind.__new__(kind)
    Exception.__init__(error, str(found.get("message")))
    data = found.get("data")
    if isinstance(data, dict):
        vars(error).update({key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
    return error
