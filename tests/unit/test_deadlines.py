"""What has a deadline is stopped inside its block; no timer and no handler is left behind, however the signals fall."""

import subprocess
import sys

import pytest

_SETUP = """
import os, signal, threading, time
from kernelrepl.guest.interrupts import DeadlinePassed, Interrupts
interrupts = Interrupts()
interrupts.install()
own = signal.getsignal(signal.SIGALRM)

def is_clean():
    return signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and signal.getsignal(signal.SIGALRM) == own
"""
_SHORT = """
passed = 0
for n in range(8000):
    try:
        with interrupts.deadline(1e-6 + n % 300 * 1e-7):
            for _ in range(n % 2000):
                pass
    except DeadlinePassed:
        passed += 1
    assert is_clean(), n
assert passed
"""
_NESTED = """
inner = 0
for n in range(200):
    try:
        with interrupts.deadline(0.0005 + n % 7 * 0.0003):
            try:
                with interrupts.deadline(1e-5 + n * 1e-5):
                    while True:
                        pass
            except DeadlinePassed:
                inner += 1
            assert inner <= n + 1
            while True:
                pass
    except DeadlinePassed:
        pass
    assert is_clean(), n
assert inner
"""
_INTERRUPTED = """
ended = threading.Event()

def interrupt():
    while not ended.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.0001)

threading.Thread(target=interrupt, daemon=True).start()
raised = n = 0
while raised < 100:
    n += 1
    try:
        with interrupts.interruptible(), interrupts.deadline(5):
            for _ in range(n % 50):
                pass
    except KeyboardInterrupt:
        raised += 1
    assert is_clean(), n
ended.set()
"""
_OF_THE_USER = """
alarms = []
signal.signal(signal.SIGALRM, lambda number, frame: alarms.append(frame))
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
for n in range(2000):
    try:
        with interrupts.deadline(1e-5 + n % 300 * 1e-5):
            for _ in range(20_000):
                pass
    except DeadlinePassed:
        pass
while not alarms:
    pass
_, interval = signal.setitimer(signal.ITIMER_REAL, 0)
assert abs(interval - 0.002) < 1e-5, interval
"""
_IN_A_CALLBACK = """
import weakref
class C: pass

def computes(*of_whatever):
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass

try:
    with interrupts.deadline(0.01):
        c = C()
        dies = weakref.ref(c, computes)
        del c
        while True:
            pass
except DeadlinePassed:
    assert is_clean()
else:
    raise AssertionError
"""


def test_a_deadline_that_nobody_can_catch_is_no_error_of_the_cell() -> None:
    """It passes while a weak reference dies, comes again and ends the block; other errors there are told of."""
    done = subprocess.run([sys.executable, "-c", _SETUP + _IN_A_CALLBACK], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    told = "\nimport weakref\nc = type('C', (), {})()\nr = weakref.ref(c, lambda _: 1 / 0)\ndel c\n"
    done = subprocess.run([sys.executable, "-c", _SETUP + told], capture_output=True, text=True, timeout=120)
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("code", [_SHORT, _NESTED, _INTERRUPTED, _OF_THE_USER])
def test_nothing_is_left_behind(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", _SETUP + code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
