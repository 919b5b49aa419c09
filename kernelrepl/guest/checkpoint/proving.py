"""Find out whether what was pickled can be loaded again, in a copy of the kernel that ends with the answer.

Pickling says little about loading: constructors, `__setstate__` and what `__reduce__` names run only then, and may
fail, end the process, or change what the session has. So the first value of a kind that nobody here vouches for is
loaded once from its bytes, in a fork, before the commit says that it is saved. Runs in the kernel, main thread only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from kernelrepl.guest.pickling.library import is_bare
from kernelrepl.guest.pickling.stream import Stream
from kernelrepl.guest.restore.loader import MAGIC, Loader, Stored

MAX_BYTES = 64 << 20
"""What is larger is not tried: it would take its memory a second time."""
PATIENCE_S = 2.0
"""How long a reply waits for the answer."""
MOST_S = 10
"""How long a copy lives, and how much of a processor it may take."""

_OF_OURS = 113
"""What a copy ends with that failed for a reason of ours."""


class Trial:
    """The loading of some values in a copy of this process."""

    def __init__(self, streams: Mapping[int, Stream], loader: Loader) -> None:
        """streams: each root alone. loader: what they are loaded with, in the copy. Raises OSError if there is none."""
        self.left = list(streams)
        """The roots of which nothing is known yet, in the order in which they are tried."""
        self.reasons: dict[int, str] = {}
        self.loaded: list[int] = []
        self.slow: list[int] = []
        """Those of which nobody has waited for the answer: they count as loaded."""
        self.lacks: dict[type, frozenset[str]] = {}
        """Of each kind that comes back without some of its attributes, which."""
        self._kinds = {root: list(stream.doubtful) for root, stream in streams.items()}
        self._unread = b""
        self._reader, writer = os.pipe()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # other threads are not needed in the copy
                self._pid = os.fork()
        except OSError:
            os.close(self._reader)
            os.close(writer)
            raise
        if not self._pid:
            _be_the_copy(streams, loader, writer)
        os.close(writer)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the trial; whether it has come."""
        end = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return False
            answers = os.read(self._reader, 1 << 16)
            if not answers:
                self._conclude()
                return True
            *lines, self._unread = (self._unread + answers).split(b"\n")
            for line in lines:
                reason, lacks = json.loads(line)
                root = self.left.pop(0)
                self.lacks |= {self._kinds[root][int(index)]: frozenset(names) for index, names in lacks.items()}
                if reason is None:
                    self.loaded.append(root)
                else:
                    self.reasons[root] = reason

    def give_up(self) -> None:
        """End the copy. What it has not tried by now is not known."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        while not self.wait(1.0):
            pass

    def _conclude(self) -> None:
        os.close(self._reader)
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:
            return  # code of the session waits for all children
        code = os.waitstatus_to_exitcode(status)
        if self.left and code not in (0, _OF_OURS, -signal.SIGKILL, -signal.SIGALRM, -signal.SIGXCPU):
            how = f"code {code}" if code > 0 else signal.strsignal(-code) or f"signal {-code}"
            self.reasons[self.left.pop(0)] = f"loading it ended the process: {how}"


def tried_all(streams: Mapping[int, Stream], loader: Loader) -> Iterator[tuple[Trial, Mapping[int, Stream]]]:
    """Trials of values, each with those that it was for: where one has ended the copy, another tries those after it."""
    end, left = time.monotonic() + PATIENCE_S, streams
    while left and time.monotonic() < end:
        try:
            trial = Trial(left, loader)
        except OSError:
            return  # no process may be made, or there is no memory for it: the next change is another chance
        if not trial.wait(end - time.monotonic()):
            trial.give_up()
            trial.slow = trial.left
            trial.loaded += trial.slow
        yield trial, left
        left = {root: left[root] for root in trial.left} if trial.reasons and not trial.slow else {}


def possible() -> bool:
    """Whether a copy can be made unnoticed: no code of the session is told of the end of children."""
    return signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN, None)


def _be_the_copy(streams: Mapping[int, Stream], loader: Loader, writer: int) -> NoReturn:
    """Load one after the other and say what came of it. Never returns."""
    try:
        gc.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, MOST_S)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_S, MOST_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
        sys.modules["__main__"] = loader.main_module
        for root, stream in streams.items():
            loader.load({root: _stored(root, stream)}, lambda part: None)
            reason = loader.failures.get(root)
            lacks = {} if reason else {index: _lacking(one) for index, one in enumerate(stream.doubtful.values())}
            answer = reason, {index: names for index, names in lacks.items() if names}
            os.write(writer, json.dumps(answer).encode() + b"\n")
        os._exit(0)
    finally:
        os._exit(_OF_OURS)


def may_lack(obj: Any) -> bool:
    """Whether an object might come back without some of its attributes: what it is pickled by mentions none."""
    try:
        return is_bare(obj, obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL))
    except Exception:  # noqa: BLE001 - it is pickled in another way
        return False


def _lacking(obj: Any) -> list[str]:
    """The attributes that an object has, and not what is made of all that it says to be pickled by."""
    try:
        reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if not is_bare(obj, reduced):
            return []
        make, given = reduced[:2]
        lacking = vars(obj).keys() - vars(make(*given)).keys()
        return sorted(name for name in lacking if "cache" not in name)  # that is made again when it is missing
    except Exception:  # noqa: BLE001 - it is pickled in another way
        return []


def _stored(root: int, stream: Stream) -> Stored:
    return Stored(
        key=root,
        roots=(root,),
        references=(),
        source=_Here(stream),
        size_bytes=stream.size_bytes,
        has_code=stream.has_code,
        magic=MAGIC,
        python="",
        packages={},
        skip=None,
    )


class _Here:
    """The bytes of a stream that was made in this process."""

    damaged = False
    again = True

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def data(self) -> Any:
        return self._stream.data

    def buffer(self, index: int) -> Any:
        return self._stream.buffers[index]

    def sums(self) -> tuple[bytes, ...]:
        return ()

    def finish(self) -> None:
        return None
