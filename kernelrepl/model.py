"""The types that cross borders. Frozen; nothing here does anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Status = Literal["ok", "error", "timeout", "interrupted", "running", "crashed"]

MAX_HISTORY_BYTES = 100_000_000
"""What the earlier states of one session may take, if nobody says otherwise."""


@dataclass(frozen=True)
class Limits:
    """What one session may take. None lifts a byte limit."""

    variable_bytes: int | None = 10_000_000
    session_bytes: int | None = 100_000_000
    save_deadline_s: float = 10.0


@dataclass(frozen=True)
class Resources:
    """What one kernel with all its processes may use of the machine. None lifts a limit."""

    memory_bytes: int | None = 4_000_000_000
    processes: int | None = 512
    open_files: int = 512
    """Of each process; and as many descriptors of one user wait in queues of sockets before a session adds none."""
    workspace_bytes: int | None = 1_000_000_000
    workspace_files: int | None = 100_000
    tmp_bytes: int | None = 512_000_000
    """Of /tmp and of /dev/shm, each."""


@dataclass(frozen=True)
class NotSaved:
    """A name whose value is not in the store."""

    name: str
    type: str
    path: str
    reason: str


@dataclass(frozen=True)
class NotRestored:
    name: str
    type: str
    reason: str


@dataclass(frozen=True)
class Saved:
    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Restored:
    """What came back when a kernel took up a session again."""

    names: tuple[str, ...] = ()
    not_restored: tuple[NotRestored, ...] = ()
    left_out: int = 0
    """How many others did not come back either."""


@dataclass(frozen=True)
class Failure:
    """An exception in user code, as text without terminal codes."""

    name: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Figure:
    mime: str
    data: str
    """Base64."""
    size: tuple[int, int] = field(default=(0, 0), compare=False)
    """Width and height in pixels, as the picture itself says."""
    small: Figure | None = None
    """The same for a reply, if it is larger than a model sees."""


@dataclass(frozen=True)
class Output:
    """The outputs of one execution, folded."""

    stdout: str = ""
    stderr: str = ""
    result: str | None = None
    displays: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    error: Failure | None = None
    left_out: tuple[str, ...] = ()
    """What the keeper says of outputs that it has not kept."""
    cells: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), compare=False, repr=False)
    """Type and content of the messages that this was made of; `notebook.outputs` makes use of them."""


@dataclass(frozen=True)
class ChangedFile:
    path: str
    """As seen from the workspace, as the system has it: it may hold anything but a NUL."""
    size: int


@dataclass(frozen=True)
class FileChanges:
    """What happened to the files of a workspace until an execution had ended."""

    written: tuple[ChangedFile, ...] = ()
    """What was made or changed while it ran."""
    put: tuple[ChangedFile, ...] = ()
    """What a person has put there, and no result has told of."""
    may_be_more: bool = False
    """Whether something was written where nobody has looked, since there are so many files."""
    written_left_out: int = 0
    put_left_out: int = 0
    """How many are not listed here."""

    @property
    def are_more(self) -> bool:
        """Whether there are, or may be, others than those that are listed."""
        return bool(self.written_left_out or self.put_left_out or self.may_be_more)


@dataclass(frozen=True)
class ExecutionResult:
    """One execution, finished or not, as its session and its row know it."""

    session_id: str | None
    status: Status
    output: Output
    execution_count: int = 0
    duration_s: float = 0.0
    saved: Saved = Saved()
    not_saved: tuple[NotSaved, ...] = ()
    restored: Restored | None = None
    committed: bool = False
    sandbox: str = "off"
    note: str | None = None
    request_id: str = ""
    files: FileChanges = FileChanges()


@dataclass(frozen=True)
class JupyterRequest:
    """What a Jupyter client asks of the kernel of a session, as it came."""

    kind: str
    """The type of its message, for example execute_request."""
    header: Mapping[str, Any]
    content: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()

    @property
    def msg_id(self) -> str:
        return str(self.header["msg_id"])


@dataclass(frozen=True)
class Variable:
    name: str
    type: str
    size_bytes: int
    saved: bool
    updated_at: str
    reason: str | None = None
    path: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class SessionInfo:
    key: int
    session_id: str
    created_at: str
    last_used_at: str
    state: str
    variable_count: int
    total_executions: int
    execution_count: int
    size_bytes: int
    workspace: str
    damaged: bool = False
    """What is fixed for it, its name or its directory are not what was written."""
    miscounted: bool = False
    """Its counts and times are not what was written."""


@dataclass(frozen=True)
class SessionView:
    """A session as lists show it: its rows and, if it is awake, its kernel."""

    info: SessionInfo
    kernel: str
    pid: int | None
    sandbox: str


@dataclass(frozen=True)
class PageRequest:
    """Which part of a list somebody wants."""

    limit: int | None = None
    """The most entries of one page. None: all."""
    cursor: str | None = None
    """Where the page begins, as the page before said. None: at the beginning."""
    contains: str | None = None
    """Only entries whose name has this in it, upper and lower case being the same."""


ALL = PageRequest()


class Page(list[T]):
    """Some entries of a list."""

    def __init__(self, entries: Iterable[T], total: int, next_cursor: str | None = None) -> None:
        """total: how many there are on all pages. next_cursor: where the next page begins; None: this is the last."""
        super().__init__(entries)
        self.total = total
        self.next_cursor = next_cursor


Write = Callable[[memoryview, int], None]
"""Puts bytes to an offset."""
Portion = tuple[int, bool]
"""How many bytes have been written, and whether they are those that were stored. If not, they are zeros."""


@dataclass(frozen=True)
class StoredComponent:
    """A component as the store holds it; `segments` are the lengths of its parts in bytes."""

    row: int
    key: int
    roots: tuple[int, ...]
    references: tuple[int, ...]
    segments: tuple[int, ...]
    has_code: bool
    magic: str
    python: str
    blocked: str | None
    inert: bool
    """Whether it is data alone, which may be loaded at any time."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """The versions of libraries that it was saved with."""

    @property
    def size_bytes(self) -> int:
        return sum(self.segments)


@dataclass(frozen=True)
class Manifest:
    """Everything a kernel needs to take up a session again, except the bytes."""

    names: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    components: tuple[StoredComponent, ...] = ()
    stories: dict[str, str] = field(default_factory=dict)
    execution_count: int = 0
    damaged: tuple[NotRestored, ...] = ()
    """What the store has lost by itself, and no kernel can tell of."""


@dataclass(frozen=True)
class NewComponent:
    """A component version of a commit. Its new bytes are here, or were staged before under `index`."""

    index: int
    roots: tuple[int, ...]
    references: tuple[int, ...]
    segments: tuple[int, ...]
    has_code: bool
    data: bytes | None
    inert: bool
    runs: tuple[tuple[int, int, int], ...] | None = None
    """Where its chunks come from, in order: (key, start, count) for chunks of a component that the session has in the
    store, (-1, 0, count) for new ones; None if all are new."""


@dataclass(frozen=True)
class Commit:
    """One commit as it came over the channel, checked for form."""

    cause: str
    request: str
    names: dict[str, tuple[int, str, int]]
    unsaved: dict[str, tuple[str, str, str]]
    deleted: tuple[str, ...]
    summaries: Mapping[str, str]
    """A few words about the value of each of these names."""
    components: tuple[NewComponent, ...]
    closed: tuple[int, ...]
    magic: str
    python: str
    saved: Saved
    packages: str
    """The versions of the kernel's libraries, JSON."""
    outcome: dict[str, Any] | None
    outputs: str
    """The recorded messages, JSON."""
    left_out: str | None = None
    """What the keeper says of outputs that it did not take."""
    missed: int = 0
    """How many names a commit brings that the ones before should have brought."""
    failure: str | None = None
    """Why the kernel could not look for changes at all, if so: a bug. The outcome still counts."""


def counted(number: int, noun: str) -> str:
    """Return a number of things as people say it: 1 name, 2 names. noun: one whose plural ends in s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def amount(size: int) -> str:
    """A number of bytes as people say it, in powers of ten: 4 GB, 1.5 MB, 200 bytes."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return counted(size, "byte")
