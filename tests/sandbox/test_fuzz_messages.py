"""A real hostile kernel sends thousands of frames and messages that lie to a real keeper, which serves everybody else.

In the gate a fixed choice of examples; with `KERNELREPL_EXAMPLES=50` in the environment fifty times as many.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, example, given, note, settings
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import KernelConnectionInfo

from kernelrepl.jupyter.attachment import Attachment
from tests.support.hostile_messages import ACTIONS, LOADING_ACTIONS, PREAMBLE
from tests.support.mcp_hosts import DEADLINE_S, Place, Wire, by_hand

TIMES = int(os.environ.get("KERNELREPL_EXAMPLES", "1"))
EXAMPLES, RESTORES = 30, 10
MOST_GROWTH = 64 << 20
"""How much the keeper may grow for all that it is sent in one example."""
TIMEOUT_S = 5.0
UNEXPECTED = re.compile(r" ERROR | CRITICAL |Traceback|never retrieved|never awaited|Exception ")
"""What is in the log of a keeper that met what nobody has thought of."""
CALM = "import faulthandler; faulthandler.cancel_dump_traceback_later()\n"
SETUP = "kept = 8\nbig = bytes(3_000_000)"
many = settings(
    max_examples=EXAMPLES * TIMES,
    derandomize=TIMES == 1,
    database=None,
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # each example leaves its mark on the kernel and the keeper: there is nothing to shrink
    suppress_health_check=list(HealthCheck),
)


class Ground:
    """A keeper with two sessions: `hostile`, to which a notebook is attached, and `other`."""

    def __init__(self, place: Place, wire: Wire, attachment: Attachment, client: BlockingKernelClient) -> None:
        self.place = place
        self.wire = wire
        self.attachment = attachment
        self.client = client
        self.keeper = place.keeper
        self._read = 0
        self.run("kept = 7", "other")
        self.run(SETUP)

    def run(self, code: str, session_id: str = "hostile", **options: Any) -> dict[str, Any]:
        """The answer to code that an agent runs, which may be a refusal."""
        return self.answer(self.wire.ask_to_run(code, session_id, **options))

    def answer(self, identity: int) -> dict[str, Any]:
        """The answer to a request, also if it has come before another one that was waited for."""
        while True:
            for message in reversed(self.wire.messages):
                if message.get("id") == identity and "method" not in message:
                    result: dict[str, Any] = message["result"]
                    return result
            self.wire.next()

    def peak(self, *, reset: bool = False) -> int:
        """The most resident memory of the keeper, in bytes since it was reset."""
        about = Path(f"/proc/{self.keeper.pid}")
        if reset:
            (about / "clear_refs").write_text("5")
        lines = (about / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    def attack_by_agent(self, code: str) -> None:
        """Run code in the hostile session; meanwhile the other one is answered."""
        asked = self.wire.ask_to_run(code, "hostile", timeout=TIMEOUT_S)
        self.others_go_on()
        self.answer(asked)

    def attack_by_notebook(self, code: str) -> None:
        """The same by somebody who types what is asked for, and asks for help."""
        asked = [self.client.execute(code, allow_stdin=True), self.client.inspect("kept", 4)]
        self.others_go_on()
        until = time.monotonic() + DEADLINE_S
        while asked:
            assert time.monotonic() < until, "a notebook is not answered"
            with contextlib.suppress(Empty):
                while True:
                    self.client.get_iopub_msg(timeout=0)
            with contextlib.suppress(Empty):
                self.client.get_stdin_msg(timeout=0)
                self.client.input("typed")
            with contextlib.suppress(Empty):
                parent = self.client.get_shell_msg(timeout=0.02)["parent_header"].get("msg_id")
                asked = [other for other in asked if other != parent]

    def others_go_on(self) -> None:
        """Another session has its kernel, and what it knew."""
        found = self.run("kept + 1", "other")["structuredContent"]
        assert (found["status"], found["result"], found["restored"]) == ("ok", "8", None)

    def all_is_well(self) -> None:
        """Nothing has happened to the keeper that nobody had thought of; what it has stored can be read."""
        assert self.keeper.is_running()
        assert self.place.keeper == self.keeper
        for tool, arguments in (("python_list_variables", {"session_id": "hostile"}), ("python_list_sessions", {})):
            asked = self.wire.ask("tools/call", name=tool, arguments=arguments)
            assert not self.answer(asked).get("isError")
        self.attachment.call("keeper_history", session_id="hostile")
        log = self.place.log()
        new, self._read = log[self._read :], len(log)
        assert not UNEXPECTED.search(new), new[-5000:]

    def goes_on(self) -> None:
        """The hostile session itself is of use to its owner: at the latest when it has been cleared."""
        found = self.run(CALM + "1 + 1", timeout=TIMEOUT_S)
        if found.get("isError") or found["structuredContent"]["result"] != "2":
            asked = self.wire.ask("tools/call", name="python_clear_session", arguments={"session_id": "hostile"})
            self.answer(asked)
            found = self.run(SETUP + "\n1 + 1")
        assert found["structuredContent"]["result"] == "2"


@pytest.fixture(params=[False, True], ids=["as it comes", "trusted"])
def trusted(request: pytest.FixtureRequest) -> bool:
    """Whether a person trusts what the hostile session shows."""
    return bool(request.param)


@pytest.fixture
def ground(environ: dict[str, str], trusted: bool) -> Iterator[Ground]:
    place = Place(environ)
    with by_hand(environ) as wire:
        wire.result(wire.ask_to_run("1", "hostile"))
        attachment = Attachment(environ, session_id="hostile")
        client = BlockingKernelClient()
        client.load_connection_info(cast(KernelConnectionInfo, attachment.open()))
        attachment.call("keeper_trust", session_id="hostile", trusted=trusted)
        client.start_channels(hb=False)
        try:
            client.wait_for_ready(timeout=DEADLINE_S)
            yield Ground(place, wire, attachment, client)
        finally:
            client.stop_channels()
            attachment.close()


@pytest.mark.slow
def test_whatever_a_kernel_sends_is_its_own_loss(ground: Ground) -> None:
    """By an agent's call and by a notebook's in turn; the keeper does not grow and logs nothing unexpected."""
    turns = iter(range(1 << 30))

    @many
    @given(ACTIONS)
    @example("_publish('\\ud800')")
    def attempt(code: str) -> None:
        note(code)
        before = ground.peak(reset=True)
        (ground.attack_by_notebook if next(turns) % 2 else ground.attack_by_agent)(PREAMBLE + code)
        ground.goes_on()
        ground.others_go_on()
        ground.all_is_well()
        grown = ground.peak() - before
        assert grown <= MOST_GROWTH, f"{grown >> 20} MB"

    attempt()


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [False])
def test_whatever_a_kernel_sends_while_it_is_restored_is_its_own_loss(ground: Ground) -> None:
    """What is loaded is code of the session, too: before its kernel is ready, and when a value is needed."""

    @settings(many, max_examples=RESTORES * TIMES)
    @given(LOADING_ACTIONS)
    def attempt(code: str) -> None:
        note(code)
        before = ground.peak(reset=True)
        token = secrets.token_hex(4)
        ground.run(f"{PREAMBLE}\nhostile = _Loading({PREAMBLE + code!r})\ntoken = {token!r}", timeout=TIMEOUT_S)
        ground.run("import os; os.kill(os.getpid(), 9)", timeout=TIMEOUT_S)
        ground.others_go_on()
        ground.goes_on()
        ground.others_go_on()
        ground.all_is_well()
        grown = ground.peak() - before
        assert grown <= MOST_GROWTH, f"{grown >> 20} MB"

    attempt()
