"""The states of a session's kernel."""

from __future__ import annotations

import pytest

from kernelrepl.sessions.lifecycle import Event, IllegalTransition, State, advance

LEGAL = """
asleep    start    starting
asleep    stop     stopping
asleep    delete   deleted
starting  ready    idle
starting  died     asleep
starting  stop     stopping
idle      run      busy
idle      died     asleep
idle      stop     stopping
busy      done     idle
busy      died     asleep
busy      stop     stopping
stopping  died     stopping
stopping  stopped  asleep
"""
TABLE = {(row.split()[0], row.split()[1]): row.split()[2] for row in LEGAL.strip().splitlines()}


@pytest.mark.parametrize(("state", "event"), TABLE)
def test_a_legal_event_leads_to_its_state(state: str, event: str) -> None:
    """The table as it stands here is the one that is followed."""
    assert advance(State(state), Event(event)) is State(TABLE[state, event])


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_other_event_is_a_bug_that_names_itself(state: State, event: Event) -> None:
    """State and event stand in the error, as words and as values."""
    if (state.value, event.value) in TABLE:
        return
    with pytest.raises(IllegalTransition) as caught:
        advance(state, event)
    assert (caught.value.state, caught.value.event) == (state, event)
    assert repr(state.value) in str(caught.value)
    assert repr(event.value) in str(caught.value)


def test_nothing_leaves_deleted() -> None:
    """A deleted session does not come back; its id gets a new one."""
    assert not [event for state, event in TABLE if state == "deleted"]


def test_every_state_can_be_reached_and_every_event_has_a_use() -> None:
    """No state and no event stands in the table for nothing."""
    assert {*TABLE.values()} == {state.value for state in State}
    assert {event for _, event in TABLE} == {event.value for event in Event}
