"""The link of a client to its keepers: what a new keeper is sent, and when there are no more tries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kernelrepl.discovery.link import RECONNECTS, KeeperLink
from kernelrepl.errors import KeeperUnavailable

INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def say(link: KeeperLink, method: str, identity: Any = None, **params: Any) -> dict[str, Any]:
    """Pass a message of a client, a notification without an id, and return it."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    message |= {} if identity is None else {"id": identity}
    message |= {"params": params} if params else {}
    link.sent(message, json.dumps(message).encode() + b"\n")
    return message


def replayed(link: KeeperLink) -> list[dict[str, Any]]:
    """What the next keeper is sent."""
    lines = link.replay()
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    return [json.loads(line) for line in lines]


def test_the_next_keeper_gets_what_is_not_answered_in_its_order() -> None:
    """What is answered or cancelled must not run again."""
    link = KeeperLink()
    messages = [say(link, "tools/call", identity) for identity in (1, 2, 3, 4)]
    assert link.answered(2)
    say(link, "notifications/cancelled", requestId=3)
    assert replayed(link) == [messages[0], messages[3]]
    assert link.resumed() == [1, 4]
    assert [link.has(identity) for identity in (1, 2, 3, 4)] == [True, False, False, True]


def test_a_number_and_its_text_are_two_ids() -> None:
    """JSON-RPC tells them apart, and so do clients."""
    link = KeeperLink()
    say(link, "tools/call", 1)
    say(link, "tools/call", "1")
    assert link.answered("1")
    assert link.resumed() == [1]


def test_an_accepted_handshake_is_said_again_and_its_answer_is_not_for_the_client() -> None:
    """The client has introduced itself once, and knows of one keeper."""
    link = KeeperLink()
    hello = say(link, "initialize", 0, protocolVersion="2025-06-18")
    assert link.answered(0)
    say(link, "notifications/initialized")
    call = say(link, "tools/call", 1)
    again, *rest = replayed(link)
    assert again == {**hello, "id": again["id"]}
    assert again["id"] != 0
    assert rest == [INITIALIZED, call]
    assert not link.answered(again["id"])
    assert link.resumed() == [1]


def test_a_refused_handshake_is_never_said_again() -> None:
    """It would open the connection in a protocol that the client does not speak."""
    link = KeeperLink()
    say(link, "initialize", 0)
    assert link.answered(0, accepted=False)
    call = say(link, "tools/call", 1)
    assert replayed(link) == [call]


def test_a_client_that_did_not_wait_for_the_handshake_is_introduced_in_its_place() -> None:
    """Requests after an `initialize` that is not answered yet come after `initialized` again."""
    link = KeeperLink()
    hello = say(link, "initialize", 0)
    say(link, "notifications/initialized")
    call = say(link, "tools/call", 1)
    assert replayed(link) == [hello, INITIALIZED, call]


def test_a_request_that_no_keeper_survives_is_given_up() -> None:
    """Each keeper would end like the one before."""
    link = KeeperLink()
    say(link, "tools/call", "deadly")
    for _ in range(RECONNECTS):
        link.attempt()
    with pytest.raises(KeeperUnavailable, match=f"ended {RECONNECTS} times in a row"):
        link.attempt()
    assert link.give_up() == ["deadly"]
    assert not link.busy
    assert not replayed(link)
    link.attempt()  # the next request has all its tries


def test_only_an_answer_to_a_request_in_flight_gives_new_tries() -> None:
    """A keeper that has answered works; what nobody waits for says nothing of that."""
    link = KeeperLink()
    say(link, "tools/call", 1)
    say(link, "tools/call", 2)
    for _ in range(RECONNECTS):
        link.attempt()
    link.answered(2)
    for _ in range(RECONNECTS):
        link.attempt()
    link.answered(2)
    with pytest.raises(KeeperUnavailable):
        link.attempt()
