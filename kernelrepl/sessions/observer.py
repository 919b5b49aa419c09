"""What somebody has to know how to do who sees all that goes on in a session."""

from __future__ import annotations

from typing import Any, Protocol

from kernelrepl.sessions.execution import Execution


class SessionObserver(Protocol):
    """This object is told what goes on in the kernel of a session."""

    def began(self, execution: Execution) -> None:
        """A kernel gets an execution."""

    def ended(self, execution: Execution) -> None:
        """An execution is over."""

    def published(self, message: dict[str, Any]) -> None:
        """The kernel has published a message of the Jupyter protocol."""

    def restarted(self) -> None:
        """The kernel is gone, without having been at rest: what only the kernel had is lost."""

    def deleted(self) -> None:
        """The session is gone. There may be another one with its name."""
