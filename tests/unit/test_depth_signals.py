"""A deadline that passes while a deep value is pickled ends that, wherever the signal arrives."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import faulthandler, random, sys, threading
from kernelrepl.guest.depth import deeper
from kernelrepl.guest.interrupts import DeadlinePassed, Interrupts

faulthandler.dump_traceback_later(100, exit=True)
interrupts, limit, size = Interrupts(), sys.getrecursionlimit(), threading.stack_size()
passed, threads, random_ = 0, [], random.Random(7)


def takes_a_while():
    threads.append(sum(range(random_.randrange(20_000))))


for _ in range(4_000):
    try:
        with interrupts.deadline(random_.uniform(1e-6, 5e-4)):
            deeper(takes_a_while)
    except DeadlinePassed:
        passed += 1
    assert (sys.getrecursionlimit(), threading.stack_size()) == (limit, size)
print(passed)
"""


def test_a_deadline_that_passes_in_the_moment_a_thread_ends_is_not_waited_out_for_ever() -> None:
    """The lock may have been taken when the signal is handled: nobody would release it again."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout) > 0
