"""The states of a session's kernel, as one table. Pure: nothing here acts."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    ASLEEP = "asleep"
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    DELETED = "deleted"


class Event(Enum):
    START = "start"
    READY = "ready"
    RUN = "run"
    DONE = "done"
    DIED = "died"
    STOP = "stop"
    STOPPED = "stopped"
    DELETE = "delete"


class IllegalTransition(AssertionError):
    """A bug: an event came in a state that does not know it."""

    def __init__(self, state: Enum, event: Enum) -> None:
        super().__init__(f"event {event.value!r} in state {state.value!r}")
        self.state = state
        self.event = event


_TABLE: dict[tuple[State, Event], State] = {
    (State.ASLEEP, Event.START): State.STARTING,
    (State.ASLEEP, Event.STOP): State.STOPPING,
    (State.ASLEEP, Event.DELETE): State.DELETED,
    (State.STARTING, Event.READY): State.IDLE,
    (State.STARTING, Event.DIED): State.ASLEEP,
    (State.STARTING, Event.STOP): State.STOPPING,
    (State.IDLE, Event.RUN): State.BUSY,
    (State.IDLE, Event.DIED): State.ASLEEP,
    (State.IDLE, Event.STOP): State.STOPPING,
    (State.BUSY, Event.DONE): State.IDLE,
    (State.BUSY, Event.DIED): State.ASLEEP,
    (State.BUSY, Event.STOP): State.STOPPING,
    (State.STOPPING, Event.DIED): State.STOPPING,
    (State.STOPPING, Event.STOPPED): State.ASLEEP,
}


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalTransition."""
    try:
        return _TABLE[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None
