"""Workers that make attempts, as whoever runs this or as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kernelrepl.workspaces import removal
from tests.attacks import as_user
from tests.attacks.attempt import HARNESS, THROUGH, Outcome
from tests.attacks.configurations import Configuration

ROOT, USER = "root", "user"


def myself() -> str:
    """As whom this process would make attempts."""
    return ROOT if os.geteuid() == 0 else USER


class Worker:
    """One process that makes attempts. A context manager; it is started when it is first asked."""

    def __init__(self, who: str, *, forked: bool = False) -> None:
        """forked: in kernels that are forked, as those of a keeper are."""
        self.who = who
        self._forked = forked
        self._process: subprocess.Popen[str] | None = None
        self._home: Path | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None
        if self._home is not None:
            removal.remove(self._home)
            self._home = None

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.attacks.worker"]
        environment = {**os.environ, "PYTHONPATH": str(as_user.ROOT)}
        if self._forked:
            environment[as_user.FORKED] = "1"
        if self.who != myself():
            assert self.who == USER, "only root becomes somebody else"
            self._home = as_user.make_home()
            command = as_user.command(command, self._home)
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=as_user.ROOT, env=environment
        )

    def ask(self, attempt: str, configuration: Configuration) -> Outcome:
        """What comes of an attempt."""
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        told = {"attempt": attempt, "configuration": asdict(configuration)}
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            outcome = Outcome(attempt, f"{THROUGH}: the keeper ended with code {self._process.wait()}")
        else:
            answer: dict[str, Any] = json.loads(line)
            outcome = Outcome(answer["attempt"], answer["said"], tuple(answer["disturbed"]))
        if outcome.leaked or outcome.said.startswith(HARNESS):
            self._end()  # it may not be what it was
        return outcome
