"""What the store has of a session's kernel, and what it has not: each commit changes that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from kernelrepl.errors import StorageFailed
from kernelrepl.model import ChangedFile, Commit, NotRestored, Output
from kernelrepl.outputs import beside, passing, shortening, transcript
from kernelrepl.sessions import results
from kernelrepl.sessions.execution import Execution
from kernelrepl.sessions.recorder import Recorder
from kernelrepl.sessions.services import Emit
from kernelrepl.workspaces import changes


class Named(Protocol):
    """Whose it is, by the name that it has now."""

    @property
    def session_id(self) -> str | None: ...


class SaveState:
    """Of one session."""

    def __init__(self, recorder: Recorder, emit: Emit, owner: Named, workspace: Path) -> None:
        self.unsaved: set[str] = set()
        """The names whose values only the kernel has."""
        self.store_is_behind = False
        """The last commit failed: the kernel has changes that the store has not."""
        self._recorder = recorder
        self._emit = emit
        self._owner = owner
        self._files = changes.Watch(workspace)
        self._lost: tuple[NotRestored, ...] = ()  # what could not be loaded, and no result has told yet

    async def commit(self, execution: Execution | None, commit: Commit, stored: Callable[[Execution], None]) -> None:
        """Put a commit into the store; `stored` is called when its outcome is known, good or bad. Raises why not."""
        if execution is not None:
            shown, outputs = await beside.large(len(commit.outputs), _kept, commit)
            commit = replace(commit, outputs=outputs)
            lost, self._lost = self._lost, ()
            execution.take_commit(commit, shown, results.without(execution.restored, lost))
        looking = None if execution is None else asyncio.create_task(self.look(execution))
        self.store_is_behind = True
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            size = await self._recorder.publish(execution, commit)
        except Exception as error:
            self._emit("commit_failed", session=self._owner.session_id, reason=str(error))
            if execution is not None and looking is not None:
                execution.fail_commit(str(error) if isinstance(error, StorageFailed) else f"internal error: {error!r}")
                await looking
                stored(execution)
            raise
        if execution is not None and looking is not None:
            await looking
            stored(execution)
        self.store_is_behind = commit.failure is not None
        self._emit(
            "committed", session=self._owner.session_id, seconds=clock() - began, bytes=size, missed=commit.missed
        )
        self.unsaved.difference_update(commit.names, commit.deleted)
        self.unsaved.update(commit.unsaved)

    async def look(self, execution: Execution) -> None:
        """Note on an execution that has come to its end what it has written. Cells of notebooks are not asked.

        It is done while the store writes, and beside the event loop if there are many: nobody waits for it.
        """
        if execution.sent_at and execution.cell is None and not execution.is_answered:
            look, began = self._files.look, execution.sent_at
            found = look(began) if self._files.is_quick else await beside.apart(look, began)
            before = execution.files  # a kernel may commit twice
            written, put = _both(before.written, found.written), _both(before.put, found.put)
            execution.take_files(replace(found, written=written, put=put))

    def lose(self, names: tuple[NotRestored, ...]) -> None:
        """These could not be loaded when they were needed."""
        self._lost = (*self._lost, *names)[: shortening.MOST_STORED]
        if names:
            self._emit("lost", session=self._owner.session_id, names=len(names))

    def forget(self) -> None:
        """The kernel is gone."""
        self.unsaved.clear()
        self.store_is_behind, self._lost = False, ()


def _both(before: tuple[ChangedFile, ...], found: tuple[ChangedFile, ...]) -> tuple[ChangedFile, ...]:
    """The files of two looks, each once, and not more than of one."""
    return tuple({file.path: file for file in (*before, *found)}.values())[: changes.MOST_KEPT]


def _kept(commit: Commit) -> tuple[Output, str]:
    """The outputs of a commit, folded, and as they are stored."""
    shown = passing.normalized(commit.outputs, commit.left_out)
    return transcript.fold(shown), passing.dumps(shown)
