"""What the MCP tools return: models for structured content, and the short text a model reads.

Descriptions become the output schemas, written for a model that has never seen these tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import AfterValidator, BaseModel, Field

from kernelrepl.mcp import files
from kernelrepl.model import ExecutionResult, Figure, Page, Restored, SessionView, Variable, amount, counted
from kernelrepl.outputs import notebook, pieces, remarks, shortening, tracebacks, transcript
from kernelrepl.outputs.shortening import short
from kernelrepl.outputs.terminal_text import field, said
from kernelrepl.outputs.transcript import cut
from kernelrepl.sessions.results import DAMAGED

if TYPE_CHECKING:
    from kernelrepl.store.reading import ExecutionRow

TEXT_CHARS = 10_000
"""The most that the text part of a result takes. The structured part has its own, larger, setting."""
NOTHING_RAN = "nothing was running; python_wait returns the last outcome"
ENDED_BEFORE = "nothing was running any more; this is the outcome of the code that had run"
IDLE_ENDED = "nothing was running; the kernel was ended all the same, and the next call restores what is saved"
EARLIER_CHARS = 3000
OUTPUTS_KEY = "kernelrepl/outputs"
"""Where a result carries its outputs as a notebook would store them, for connections that asked for it."""
PIECES_KEY = "kernelrepl/pieces"
"""Where a result and a progress message carry outputs as pieces of text, for who shows them as they come."""
REMARKS_KEY = "kernelrepl/remarks"
"""What is to be said about outputs, line by line; with either of both."""
OUTPUT_URI = "kernelrepl://executions/{request_id}/{stream}"
FIGURE_URI = "kernelrepl://executions/{request_id}/figures/{number}.{kind}"

_DAMAGED_SESSION = "damaged in the database: what is listed here may be wrong"

Shown = Annotated[str, AfterValidator(field)]
"""A text of a kernel in a field: one line, nothing hidden."""


class SavedNames(BaseModel):
    created: list[Shown] = Field(description="names that are new")
    changed: list[Shown] = Field(description="names whose value changed")
    deleted: list[Shown] = Field(description="names that were deleted")


class NotSavedName(BaseModel):
    name: Shown
    type: Shown
    path: Shown = Field(description="where inside the value the part is that cannot be saved")
    reason: Shown = Field(description="why, and what to do instead")


class NotRestoredName(BaseModel):
    name: Shown
    type: Shown
    reason: Shown


class RestoredNames(BaseModel):
    names: list[Shown] = Field(description="names that came back with their values")
    not_restored: list[NotRestoredName]


class ErrorInfo(BaseModel):
    name: Shown = Field(description="class of the exception")
    message: str
    traceback: str


class FileInfo(BaseModel):
    path: Shown = Field(description="as seen from the working directory")
    size_bytes: int
    by: Literal["code", "person"] = Field(description="person: somebody has put it there since the last call")


class ReplResult(BaseModel):
    """The outcome of python_repl and python_wait."""

    session_id: str | None = Field(description="null for a call without a session")
    status: Literal["ok", "error", "timeout", "interrupted", "running", "crashed"] = Field(
        description="error: the code raised. running: it goes on, collect it with python_wait. crashed: the kernel"
        " died; variables are as they were before this code"
    )
    execution_count: int
    stdout: str
    stderr: str
    result: str | None = Field(description="repr of the last expression")
    displays: list[str] = Field(description="text of other displayed objects")
    error: ErrorInfo | None
    duration_s: float
    saved: SavedNames = Field(description="what this code changed in the session, now stored durably")
    not_saved: list[NotSavedName] = Field(
        description="names that live in the running kernel only and will be gone after a restart"
    )
    restored: RestoredNames | None = Field(description="set when this call brought the session back to life")
    figures: int = Field(description="how many figures are attached as images")
    truncated: bool = Field(description="whether stdout, stderr or result were cut")
    sandbox: str
    committed: bool = Field(description="whether the state after this code is stored durably")
    files: list[FileInfo] = Field(description="files in the working directory that are new or changed")
    more_files: bool = Field(description="whether others are, or may be")
    note: str | None


class VariableInfo(BaseModel):
    name: Shown
    type: Shown
    size_bytes: int
    saved: bool = Field(description="false: the value is not stored; it is gone when the kernel has been restarted")
    updated_at: str
    summary: Shown = Field(description="a few words about the value: shape, columns, signature, first characters")
    reason: Shown | None = Field(default=None, description="why it is not saved")


NextCursor = Annotated[str | None, Field(description="pass it as cursor to get the next page; null: there is no more")]


class VariablesResult(BaseModel):
    session_id: str
    variable_count: int = Field(description="how many there are, on all pages")
    variables: list[VariableInfo]
    next_cursor: NextCursor


class SessionEntry(BaseModel):
    session_id: str
    created_at: str
    last_used_at: str
    variable_count: int
    total_executions: int
    size_bytes: int = Field(description="bytes stored for its variables")
    state: str = Field(description="active or inactive")
    kernel: str = Field(description="asleep, starting, idle or busy; a sleeping session wakes at its next call")
    sandbox: str
    damaged: bool = Field(description="true: what is listed of it is damaged in the database and may be wrong")


class SessionsResult(BaseModel):
    session_count: int = Field(description="how many there are, on all pages")
    sessions: list[SessionEntry]
    next_cursor: NextCursor
    note: str | None = Field(description="what the database has lost, if it has")


class ChangedResult(BaseModel):
    session_id: str
    message: str


class HistoryResult(BaseModel):
    cells: list[dict[str, Any]] = Field(description="what has run, as cells of a notebook")
    next_cursor: int | None


class Attached(BaseModel):
    """Where a session is served to Jupyter clients."""

    session_id: str
    connection: dict[str, Any]
    """What a connection file of Jupyter says."""


class KeeperStatus(BaseModel):
    pid: int
    version: str
    data_dir: str
    runtime_dir: str
    sessions: int
    kernels: dict[str, int] = Field(description="process id of each live kernel, by session")
    busy: list[str] = Field(description="sessions in which code runs")
    connections: int
    sandbox: str
    groups: str = Field(default="", description="the control groups of kernels, or why they have none")
    python: str = Field(default="", description="the interpreter that the keeper itself runs in")
    python_version: str = ""
    sessions_python: str = Field(default="", description="the interpreter that new sessions of this client get")
    note: str = Field(default="", description="why that is not the one that the client runs in")
    settings: dict[str, Any] = Field(default_factory=dict, description="the settings that the keeper runs with")
    metrics: dict[str, Any] = Field(description="what was counted and measured since the keeper started")


def of_execution(
    execution: ExecutionResult,
    limit_chars: int,
    *,
    outputs: bool = False,
    live: bool = False,
    whole: bool = False,
) -> CallToolResult:
    """The reply for an execution: structured content, a text and every figure; and the outputs, if asked for.

    outputs: as a notebook stores them. live: as pieces of text. whole: figures as the code showed them, for no model.
    """
    meta: dict[str, Any] = {OUTPUTS_KEY: notebook.outputs(execution.output)} if outputs else {}
    if live:
        meta[PIECES_KEY] = pieces.pieces(execution.output.cells)
    figures = execution.output.figures
    execution = shortening.of_reply(execution, limit_chars, cut, whole=whole)
    output = execution.output
    texts = {"stdout": output.stdout, "stderr": output.stderr, "result": output.result or ""}
    truncated = [name for name, text in texts.items() if len(text) > limit_chars]
    error = output.error
    structured = ReplResult(
        session_id=execution.session_id,
        status=execution.status,
        execution_count=execution.execution_count,
        stdout=cut(output.stdout, limit_chars),
        stderr=cut(output.stderr, limit_chars),
        result=None if output.result is None else cut(output.result, limit_chars),
        displays=list(output.displays),
        error=None if error is None else ErrorInfo(name=error.name, message=error.message, traceback=error.traceback),
        duration_s=round(execution.duration_s, 6),
        saved=SavedNames(
            created=list(execution.saved.created),
            changed=list(execution.saved.changed),
            deleted=list(execution.saved.deleted),
        ),
        not_saved=[NotSavedName(name=e.name, type=e.type, path=e.path, reason=e.reason) for e in execution.not_saved],
        restored=_restored(execution.restored),
        figures=len(output.figures),
        truncated=bool(truncated),
        sandbox=execution.sandbox,
        committed=execution.committed,
        files=_files(execution),
        more_files=execution.files.are_more,
        note=execution.note,
    )
    content: list[ContentBlock] = [TextContent(type="text", text=cut(describe(execution, whole=whole), TEXT_CHARS))]
    content += [ImageContent(type="image", data=f.data, mime_type=f.mime) for f in output.figures]
    if execution.committed:
        content += _streams(execution.request_id, {name: len(texts[name]) for name in truncated})
        content += _figures(execution.request_id, figures, shortening.figures(figures, whole=whole))
    return CallToolResult(
        content=[*content, *files.links(execution.session_id, execution.files.written)],
        structured_content=structured.model_dump(mode="json"),
        _meta={**meta, REMARKS_KEY: remarks.remarks(execution)} if meta else None,
    )


def _streams(request_id: str, sizes: Mapping[str, int]) -> list[ContentBlock]:
    """Where those texts are whole that a reply has cut, by their length in characters."""
    return [
        ResourceLink(
            type="resource_link",
            name=f"whole {stream}",
            uri=OUTPUT_URI.format(request_id=request_id, stream=stream),
            mime_type="text/plain",
            description=f"{size} characters",
        )
        for stream, size in sizes.items()
    ]


def _figures(request_id: str, figures: Sequence[Figure], shown: Sequence[Figure | None]) -> list[ContentBlock]:
    """Where those figures are that a reply shows smaller."""
    return [
        ResourceLink(
            type="resource_link",
            name=f"figure {number} in its own size",
            uri=FIGURE_URI.format(request_id=request_id, number=number, kind=figure.mime.removeprefix("image/")),
            mime_type=figure.mime,
            description=f"{figure.size[0]} x {figure.size[1]} pixels, {amount(len(figure.data) * 3 // 4)}",
        )
        for number, (figure, as_shown) in enumerate(zip(figures, shown, strict=False), 1)
        if as_shown is not figure
    ]


def describe(execution: ExecutionResult, *, whole: bool = False) -> str:
    """An execution as one reads it in a terminal, with what matters about its durability.

    whole: for a person, who gets all of a traceback.
    """
    output = execution.output
    parts: list[str] = []
    if execution.restored is not None:
        parts.append(remarks.describe_restored(execution.restored))
    if output.stdout:
        parts.append(output.stdout.rstrip("\n"))
    parts.extend(output.displays)
    if output.result is not None:
        parts.append(output.result)
    if output.stderr:
        parts.append(said("stderr") + "\n" + output.stderr.rstrip("\n"))
    if output.error is not None:
        trace = output.error.traceback if whole else tracebacks.brief(output.error.traceback)
        parts.append(trace or f"{output.error.name}: {output.error.message}")
    figures = len(output.figures)
    shown = (f"{figures} figure" + "s" * (figures > 1)) if figures else "no output"
    return "\n".join(parts + remarks.endings(execution)) or said(shown)


def earlier(execution: ExecutionResult) -> str:
    """The outcome of code that its own call did not wait for, as a note to a later one."""
    number = len(execution.output.figures)
    figures = "\n" + said(f"{counted(number, 'figure')} left out here") if number else ""
    text = cut(describe(shortening.of_reply(execution, EARLIER_CHARS, cut)), EARLIER_CHARS)
    return f"code that an earlier call left running has ended since, with status {execution.status}:\n{text}{figures}"


def _files(execution: ExecutionResult) -> list[FileInfo]:
    """The files that a result lists. Those of a call without a session are gone."""
    if execution.session_id is None:
        return []
    put = [FileInfo(path=file.path, size_bytes=file.size, by="person") for file in execution.files.put]
    return put + [FileInfo(path=file.path, size_bytes=file.size, by="code") for file in execution.files.written]


def _restored(restored: Restored | None) -> RestoredNames | None:
    if restored is None:
        return None
    return RestoredNames(
        names=list(restored.names),
        not_restored=[NotRestoredName(name=e.name, type=e.type, reason=e.reason) for e in restored.not_restored],
    )


def of_variables(session_id: str, variables: Page[Variable]) -> tuple[VariablesResult, str]:
    entries = [
        VariableInfo(
            name=short(v.name, shortening.NAME_CHARS),
            type=short(v.type, shortening.NAME_CHARS),
            size_bytes=v.size_bytes,
            saved=v.saved,
            updated_at=v.updated_at,
            summary=short(v.summary, shortening.REASON_CHARS),
            reason=v.reason and short(v.reason, shortening.REASON_CHARS),
        )
        for v in variables
    ]
    lines = [
        f"{entry.name}: {entry.type}{f', {entry.size_bytes} bytes' if entry.saved else ''}"
        + (f": {entry.summary}" if entry.summary else "")
        + ("" if entry.saved else f", NOT SAVED: {entry.reason}")
        for entry in entries
    ]
    result = VariablesResult(
        session_id=session_id,
        variable_count=variables.total,
        variables=entries,
        next_cursor=variables.next_cursor,
    )
    return result, _listing("variable", f" in {session_id!r}", lines, variables)


def cells_of(rows: Sequence[ExecutionRow]) -> list[dict[str, Any]]:
    """Executions as cells of a notebook. Those that still run have no outputs yet."""
    found = []
    for row in rows:
        about: dict[str, Any] = {
            "status": "running" if row.status == "started" else row.status,
            "started_at": row.started_at,
        }
        about |= {"duration_s": round(row.duration_s, 6), "by": row.origin}
        if not row.kept:
            about["outputs"] = "removed for their age"
        if row.damaged:
            about["damaged"] = DAMAGED
        found.append(notebook.cell(row.id, row.code, row.execution_count, transcript.load(row.outputs), about))
    return found


def of_sessions(views: Page[SessionView], losses: str = "") -> tuple[SessionsResult, str]:
    entries = [
        SessionEntry(
            session_id=view.info.session_id,
            created_at=view.info.created_at,
            last_used_at=view.info.last_used_at,
            variable_count=view.info.variable_count,
            total_executions=view.info.total_executions,
            size_bytes=view.info.size_bytes,
            state=view.info.state,
            kernel=view.kernel,
            sandbox=view.sandbox,
            damaged=view.info.damaged or view.info.miscounted,
        )
        for view in views
    ]
    lines = [
        f"{e.session_id}: {counted(e.variable_count, 'variable')}, {counted(e.total_executions, 'execution')},"
        f" kernel {e.kernel}, sandbox {e.sandbox}" + (f", {_DAMAGED_SESSION}" if e.damaged else "")
        for e in entries
    ]
    result = SessionsResult(
        session_count=views.total, sessions=entries, next_cursor=views.next_cursor, note=losses or None
    )
    return result, "\n".join([_listing("session", "", lines, views), *([said("note", losses)] if losses else [])])


def _listing(noun: str, where: str, lines: list[str], page: Page[Any]) -> str:
    some = "" if len(page) == page.total else f"{len(page)} of "
    head = f"{some}{counted(page.total, noun)}{where}"
    more = [] if page.next_cursor is None else [said("more", f"the next page is at cursor {page.next_cursor!r}")]
    return "\n".join([head, *lines, *more])
