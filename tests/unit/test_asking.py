"""What a person at a terminal answers is read whole, and no Ctrl-C is lost."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

ROUNDS = 1500
ASKS = f"""
from kernelrepl.cli.terminal import answer
for _ in range({ROUNDS}):
    try:
        answer("? [y/N]: ")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_no_interrupt_is_lost_whenever_it_comes() -> None:
    """From the moment of the question on: one in a hundred came before a plain read, and waited for ever."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", ASKS])
    shown = bytearray()

    def until_times(text: bytes, count: int) -> None:
        while shown.count(text) < count:
            assert select.select([terminal], [], [], 60)[0], bytes(shown[-300:])
            shown.extend(os.read(terminal, 4096))

    for number in range(ROUNDS):
        until_times(b"[y/N]", number + 1)
        until = time.perf_counter() + number % 100 * 2e-6
        while time.perf_counter() < until:
            pass
        os.write(terminal, b"\x03")
        until_times(b"interrupted", number + 1)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize(
    ("typed", "read"), [("y\n", "y\n"), ("no\nmore\n", "no\n"), ("", ""), ("y", "y"), ("é\n", "é\n")]
)
def test_an_answer_is_a_line(typed: str, read: str) -> None:
    """Through a pipe as well; the question goes where it is no output."""
    code = "from kernelrepl.cli.terminal import answer; print(ascii(answer('really? ')))"
    done = subprocess.run([sys.executable, "-c", code], input=typed, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{read!a}\n", "really? ")
