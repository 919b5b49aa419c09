"""The process of a peer: runs cells in IPython, makes its checkpoint after each one, and says what both took.

Started by path under the Python of the peer, so it imports nothing of ours. Commands come as JSON lines on
stdin, answers go as JSON lines to what was stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

Marks = dict[str, float]


class Peer:
    """A shell with something that saves its namespace after each cell."""

    packages: tuple[str, ...] = ()

    def __init__(self, shell: Any, directory: Path) -> None:
        self.shell = shell
        self.directory = directory
        self.file = directory / "state"
        self.marks: Marks = {}
        shell.events.register("pre_run_cell", self._before_all)
        shell.events.register("post_run_cell", self._after_cell)
        self.prepare()
        shell.events.register("pre_run_cell", self._before_cell)
        shell.events.register("post_run_cell", self._after_all)

    # What hooks of a peer do is between the first and the second mark, and between the third and the fourth.

    def _before_all(self, *_: Any) -> None:
        self.marks["before hooks"] = time.perf_counter()

    def _before_cell(self, *_: Any) -> None:
        self.marks["before cell"] = time.perf_counter()

    def _after_cell(self, *_: Any) -> None:
        self.marks["after cell"] = time.perf_counter()

    def _after_all(self, *_: Any) -> None:
        self.marks["after hooks"] = time.perf_counter()

    def prepare(self) -> None:
        """Import what is needed, and install hooks."""

    def run(self, code: str) -> dict[str, float]:
        """Run a cell and save; milliseconds of both, of the cell alone and of what saving took."""
        began = time.perf_counter()
        self.shell.run_cell(code, store_history=True).raise_error()
        saving = time.perf_counter()
        self.save()
        ended = time.perf_counter()
        hooks = self.marks["before cell"] - self.marks["before hooks"]
        hooks += self.marks["after hooks"] - self.marks["after cell"]
        return {
            "total": (ended - began) * 1000,
            "cell": (self.marks["after cell"] - self.marks["before cell"]) * 1000,
            "part": (ended - saving + hooks) * 1000,
        }

    def save(self) -> None:
        """Make the checkpoint, unless a hook has made it."""

    def load(self) -> None:
        """Bring the last checkpoint back, in a fresh process."""

    def loop(self, code: str) -> float:
        """Run a cell whose last value is a time in seconds; nothing is saved."""
        result = self.shell.run_cell(code, store_history=False)
        result.raise_error()
        return float(result.result)

    def value(self, code: str) -> str:
        """What an expression is, or how it fails."""
        try:
            return repr(eval(code, self.shell.user_ns))
        except Exception as error:  # noqa: BLE001 - it is the answer
            return f"{type(error).__name__}: {error}"

    def users(self) -> dict[str, Any]:
        """The names of the user and their values."""
        hidden = self.shell.user_ns_hidden
        return {k: v for k, v in self.shell.user_ns.items() if k not in hidden and not k.startswith("_")}


class Written(Peer):
    """One file for everything, written anew each time and moved in place when it is on the disk."""

    def dump(self, file: Any) -> None:
        raise NotImplementedError

    def save(self) -> None:
        fresh = self.file.with_suffix(".new")
        with fresh.open("wb") as file:
            self.dump(file)
            file.flush()
            os.fdatasync(file.fileno())
        fresh.replace(self.file)


class Dill(Written):
    packages = ("dill",)

    def prepare(self) -> None:
        self.dill = importlib.import_module("dill")

    def dump(self, file: Any) -> None:
        self.dill.dump_module(file, module=self.shell.user_module)

    def load(self) -> None:
        self.dill.load_module(str(self.file), module=self.shell.user_module)


class Cloudpickle(Written):
    packages = ("cloudpickle",)

    def prepare(self) -> None:
        self.cloudpickle = importlib.import_module("cloudpickle")

    def dump(self, file: Any) -> None:
        self.cloudpickle.dump(self.users(), file)

    def load(self) -> None:
        with self.file.open("rb") as file:
            self.shell.user_ns.update(pickle.load(file))


class Kishu(Peer):
    """Its own hooks on a shell, as its `init_kishu` sets them up; without a notebook server there is a notebook
    file that nobody saves, which its test mode allows."""

    packages = ("kishu", "dill")

    def prepare(self) -> None:
        self.notebook = self.directory / "notebook.ipynb"
        os.environ["ENV_KISHU_TEST_MODE"] = "1"
        os.environ["TEST_NOTEBOOK_PATH"] = str(self.notebook)
        os.environ["KISHU_PATH_ROOT"] = str(self.directory)
        self.kishu = importlib.import_module("kishu")
        if not self.notebook.exists():
            notebooks = importlib.import_module("nbformat")
            notebooks.write(notebooks.v4.new_notebook(), self.notebook)
            self.begin()

    def begin(self) -> None:
        with self.shell.builtin_trap:
            self.kishu.init_kishu(str(self.notebook))

    def load(self) -> None:
        branches = importlib.import_module("kishu.storage.branch").KishuBranch
        paths = importlib.import_module("kishu.storage.path").KishuPath
        head = self.directory / "head"
        if not head.exists():  # to begin forgets it
            head.write_text(branches(paths.database_path(self.notebook)).get_head().commit_id)
        self.begin()
        self.shell.user_ns["_kishu"].checkout(head.read_text(), skip_notebook=True)


PEERS: dict[str, type[Peer]] = {"dill": Dill, "cloudpickle": Cloudpickle, "kishu": Kishu}


def answer(peer: Peer, command: dict[str, str]) -> dict[str, Any]:
    """Do what one line asks for."""
    match command["do"]:
        case "run":
            return dict(peer.run(command["code"]))
        case "loop":
            return {"seconds": peer.loop(command["code"])}
        case "value":
            return {"value": peer.value(command["code"])}
        case "load":
            began = time.perf_counter()
            peer.load()
            return {"ms": (time.perf_counter() - began) * 1000}
    raise ValueError(command["do"])


def main() -> None:
    """Serve one peer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    shell = InteractiveShell.instance(config=config)
    chosen = PEERS[sys.argv[1]]
    peer = chosen(shell, Path(sys.argv[2]))
    packages = (*chosen.packages, "ipython", "numpy", "pandas")
    reply({"versions": {name: version(name) for name in packages}, "python": sys.version.split()[0]})
    for line in sys.stdin:
        try:
            reply(answer(peer, json.loads(line)))
        except Exception as error:  # noqa: BLE001 - whoever measures prints it
            reply({"error": f"{type(error).__name__}: {error}"[:300]})


if __name__ == "__main__":
    main()
