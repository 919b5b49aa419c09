"""A keeper of its own for a block of code, for tests of programs that use kernelrepl.

    from kernelrepl import testing

    with testing.keeper():
        ...  # what uses sessions here uses no session of yours, and leaves nothing

docs/testing.md has a fixture for pytest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernelrepl import discovery
from kernelrepl.workspaces import removal

END_TIMEOUT_S = 60.0
"""How long a keeper may take to end its kernels before it is killed."""
_CONFIG = discovery.PREFIX + "CONFIG"
_DEFAULTS = {"warm_start": "off", "standby": "0"}
"""A keeper that soon ends again starts kernels for those only who ask."""


@dataclass(frozen=True)
class TemporaryKeeper:
    """The keeper of a block. The first call to it starts it, and so does the first one after it was killed."""

    data_dir: Path

    @property
    def pid(self) -> int | None:
        """The process id of the keeper; None if none is running."""
        return discovery.pid_of_keeper(self.data_dir)

    def kill(self) -> None:
        """End the keeper with SIGKILL, as a crash would, and wait until it is gone; its sessions stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the keeper in an orderly way, as `kernelrepl stop` does, and wait until it is gone; its sessions stay."""
        if not self._end(signal.SIGTERM):
            self.kill()

    def _end(self, number: signal.Signals) -> bool:
        pid = self.pid
        if pid is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        ended = discovery.wait_for_end(pid, END_TIMEOUT_S)
        with contextlib.suppress(ChildProcessError):  # another process may have started it
            os.waitpid(pid, os.WNOHANG)
        return ended


@contextlib.contextmanager
def keeper(**settings: object) -> Iterator[TemporaryKeeper]:
    """Give the block a keeper with a data directory of its own; both are gone after the block, whatever happens in it.

    In the block, the variables of this process name that directory, so that the Python API and the programs that are
    started in it use it. Settings are those of `config.toml`, and those that are passed by their names in lower case:
    `keeper(max_live=2)`. Variables that are settings are set aside for the block. Do not use it in several threads at
    once: all threads of a process have the same variables.
    """
    base = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))  # short, for the paths of sockets
    found = TemporaryKeeper(base / "data")
    own = {name: str(value) for name, value in {**_DEFAULTS, **settings}.items()}
    own |= {"data_dir": str(found.data_dir), "runtime_dir": str(base / "run")}
    before = {name: os.environ[name] for name in discovery.settings_of(os.environ) if name != _CONFIG}
    for name in before:
        del os.environ[name]
    os.environ.update({discovery.PREFIX + name.upper(): value for name, value in own.items()})
    try:
        yield found
    finally:
        try:
            found.stop()
        finally:
            for name in discovery.settings_of(os.environ).keys() - {_CONFIG}:
                del os.environ[name]
            os.environ.update(before)
            removal.remove(base)
