"""The main job on real input, as a new user sees it: one analysis in one session that `kill -9` does not end.

Starts the MCP server the way a host does, loads, cleans, plots and models a data set that comes with
scikit-learn, and kills first the kernel and then the keeper on the way. Everything that was worked out
before a kill is asked for again after it and compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mcp import Client, MCPError, StdioServerParameters

from kernelrepl import __version__, discovery
from kernelrepl.cli.figures import write_figures
from kernelrepl.client import connection
from kernelrepl.errors import KernelReplError
from kernelrepl.outputs import terminal_text

SESSION = "demo"
PACKAGES = {"numpy": "numpy", "pandas": "pandas", "matplotlib": "matplotlib", "sklearn": "scikit-learn"}
"""Modules that the analysis imports, with the name to install each one by."""
CALL_S = 300.0
END_S = 20.0
_WIDTH = 100
_SHOWN_LINES = 14

COPY = """
import shutil
from pathlib import Path
import sklearn

source = Path(sklearn.__file__).parent / "datasets" / "data" / "breast_cancer.csv"
copied = Path(shutil.copy(source, "breast_cancer.csv"))
print(copied, copied.stat().st_size, "bytes, first line:", copied.read_text().splitlines()[0])
"""
READ = """
import pandas as pd

measures = ("radius texture perimeter area smoothness compactness concavity"
            " concave_points symmetry fractal_dimension").split()
columns = [f"{measure}_{kind}" for kind in ("mean", "error", "worst") for measure in measures]
raw = pd.read_csv(copied, skiprows=1, names=[*columns, "benign"])
promised = int(pd.read_csv(copied, nrows=0).columns[0])
print(f"{len(raw)} cell samples with {len(raw.columns)} columns, {promised} rows promised by the file")
"""
CLEAN = """
import numpy as np

def clean(frame):
    # A concavity of exactly 0 is one that could not be measured. Circles have area pi r^2, cells nearly so,
    # and the worst of many values cannot lie below their mean.
    measured = frame.replace({name: {0.0: np.nan} for name in frame if name.startswith("conca")})
    complete = measured.dropna().drop_duplicates()
    roundness = complete.area_mean / (np.pi * complete.radius_mean ** 2)
    ordered = np.all([complete[f"{m}_worst"] >= complete[f"{m}_mean"] for m in measures], axis=0)
    good = complete[roundness.between(0.85, 1.15) & ordered]
    return good.assign(diagnosis=np.where(good.benign == 1, "benign", "malignant")).drop(columns="benign")

cells = clean(raw)
print(f"{len(raw) - len(cells)} samples dropped, {len(cells)} kept")
cells.diagnosis.value_counts().to_dict()
"""
DESCRIBE = """
cells.groupby("diagnosis")[["radius_mean", "texture_mean", "concavity_mean"]].agg(["mean", "std"]).round(3)
"""
PLOT_DATA = """
import matplotlib.pyplot as plt

colors = {"benign": "tab:blue", "malignant": "tab:red"}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
for axis, name in zip(axes, ["radius_mean", "texture_mean", "concavity_mean"]):
    for diagnosis, group in cells.groupby("diagnosis"):
        axis.hist(group[name], bins=25, alpha=0.6, label=diagnosis, color=colors[diagnosis])
    axis.set_xlabel(name.replace("_", " "))
axes[0].set_ylabel("cell samples")
axes[0].legend();
"""
DEFINE = """
class Trial:
    \"\"\"A model with the data it is tried on.\"\"\"

    def __init__(self, model, frame, target):
        self.model, self.target = model, target
        self.features = frame.drop(columns=target)
        self.labels = frame[target]

    def split(self, split, **options):
        self.train_x, self.test_x, self.train_y, self.test_y = split(self.features, self.labels, **options)
        return len(self.train_x), len(self.test_x)

    def score(self):
        return round(self.model.score(self.test_x, self.test_y), 6)
"""
SPLIT = """
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

trial = Trial(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), cells, "diagnosis")
print("samples to train and to test with:", trial.split(train_test_split, test_size=0.25, random_state=7,
                                                        stratify=cells.diagnosis))
"""
FIT = """
trial.model.fit(trial.train_x, trial.train_y)
"""
SCORE = """
from sklearn.metrics import classification_report

print("accuracy", trial.score())
print(classification_report(trial.test_y, trial.model.predict(trial.test_x), digits=3))
"""
PLOT_MODEL = """
from sklearn.metrics import ConfusionMatrixDisplay

weights = pd.Series(trial.model[-1].coef_[0], index=trial.features.columns).sort_values(key=abs).tail(10)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
weights.plot.barh(ax=left, color=[colors["malignant" if w > 0 else "benign"] for w in weights])
left.set_xlabel("weight in the model")
ConfusionMatrixDisplay.from_estimator(trial.model, trial.test_x, trial.test_y, ax=right, colorbar=False);
"""
FACTS = """
import hashlib, json

def checksum(frame):
    return hashlib.sha256(pd.util.hash_pandas_object(frame).to_numpy().tobytes()).hexdigest()[:16]

def facts():
    found = {
        "checksum of the raw frame": checksum(raw),
        "checksum of the clean frame": checksum(cells),
        "what the function clean() makes of the raw frame": checksum(clean(raw)),
        "the file in the working directory": hashlib.sha256(copied.read_bytes()).hexdigest()[:16],
    }
    if "trial" in globals():
        found["class of the trial is the class Trial"] = type(trial) is Trial
        found["weights of the fitted model"] = hashlib.sha256(trial.model[-1].coef_.tobytes()).hexdigest()[:16]
        found["score of the fitted model"] = trial.score()
    return found
"""
ASK = "print(json.dumps(facts()))"


class DemoFailed(KernelReplError):
    """A step of the demonstration did not work."""


def missing() -> list[str]:
    """The packages that the analysis needs and that are not installed."""
    return [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]


def lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What was there before and is not, or is not the same, after."""
    gone = [f"{what}: gone" for what in before if what not in after]
    return gone + [
        f"{what}: {value!r} before, {after[what]!r} after"
        for what, value in before.items()
        if what in after and after[what] != value
    ]


def run(figures: Path) -> int:
    """Show the analysis; 0 if everything survived both kills."""
    absent = missing()
    if absent:
        print(f"the demo needs {', '.join(absent)}: pip install 'kernelrepl[data]'", file=sys.stderr)
        return 1
    began = time.perf_counter()
    base = Path(tempfile.mkdtemp(prefix="kr-demo-", dir="/tmp"))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", str(base)),
        discovery.PREFIX + "DATA_DIR": str(base / "data"),
        discovery.PREFIX + "RUNTIME_DIR": str(base / "run"),
        discovery.PREFIX + "CONFIG": str(base / "config.toml"),
    }
    try:
        with _environment(environment):
            problems = asyncio.run(_demonstrate(environment, figures))
    except* (KernelReplError, MCPError, OSError) as group:
        problems = [str(error) or type(error).__name__ for error in _leaves(group)]
    finally:
        _end_keeper(base / "data")
        shutil.rmtree(base, ignore_errors=True)
    print(f"\n{time.perf_counter() - began:.1f} s in all; processes and data directory are gone, the figures stay")
    for problem in problems:
        print(f"  - {problem}")
    print("result: the demo FAILED" if problems else "result: everything survived both kills")
    return 1 if problems else 0


@contextlib.contextmanager
def _environment(ours: Mapping[str, str]) -> Iterator[None]:
    """Settings of this process as those of the server, so that the operator's connection finds its keeper."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(discovery.PREFIX)]:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _end_keeper(data: Path) -> None:
    found = discovery.read_keeper(data)
    if found is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["pid"], signal.SIGTERM)
            discovery.wait_for_end(found["pid"], END_S)


async def _demonstrate(environment: dict[str, str], figures: Path) -> list[str]:
    print(f"kernelrepl {__version__}: one analysis in one session, with kill -9 for its kernel and for its keeper")
    print(f"data directory: {environment[discovery.PREFIX + 'DATA_DIR']} (removed at the end)\n")
    began = time.perf_counter()
    server = StdioServerParameters(command=sys.executable, args=["-P", "-m", "kernelrepl"], env=environment, cwd="/")
    async with Client(server, read_timeout_seconds=CALL_S) as host:
        tools = (await host.list_tools()).tools
        _say("start the MCP server, as a host does", time.perf_counter() - began)
        _detail(f"tools: {', '.join(tool.name for tool in tools)}")
        return await Demonstration(host, figures, Path(environment[discovery.PREFIX + "DATA_DIR"])).show()


class Demonstration:
    """One client, one session, and what is known to be in it."""

    def __init__(self, host: Client, figures: Path, data: Path) -> None:
        self._host = host
        self._figures = figures
        self._data = data
        self._names: set[str] = set()
        self._before: dict[str, Any] = {}
        self._restored: Mapping[str, Any] | None = None
        self._problems: list[str] = []

    async def show(self) -> list[str]:
        """Everything, in order; returns what was lost."""
        result = await self._run("copy the data set out of scikit-learn into the working directory", COPY)
        _detail(f"sandbox: {result['sandbox']}")
        await self._run("read it", READ)
        await self._run("clean it with a function of our own", CLEAN)
        await self._run("describe it", DESCRIBE)
        await self._run("plot it", PLOT_DATA, figure="measurements")
        await self._run("define a class for the trial of a model", DEFINE)
        await self._run("note what has to survive", FACTS)
        await self._note()
        await self._kill("kernel", await self._kernel_pid())
        await self._check("kernel")
        await self._run("go on in the same session: split", SPLIT)
        await self._run("fit", FIT)
        await self._run("score", SCORE)
        await self._note()
        keeper = discovery.read_keeper(self._data)
        if keeper is None:
            raise DemoFailed("the keeper has not said where it is")
        await self._kill("keeper", keeper["pid"])
        await self._check("keeper")
        await self._run("go on once more: plot the model that was fitted before", PLOT_MODEL, figure="model")
        return self._problems

    async def _call(self, code: str) -> Any:
        result = await self._host.call_tool("python_repl", {"code": code, "session_id": SESSION, "wait": CALL_S})
        if result.is_error:
            raise DemoFailed(_text(result))
        reply: Any = result.structured_content
        if reply["status"] != "ok" or not reply["committed"]:
            raise DemoFailed(
                f"a step ended with status {reply['status']}, committed {reply['committed']}: {_text(result)}"
            )
        self._names.update(reply["saved"]["created"], reply["saved"]["changed"])
        self._names.difference_update(reply["saved"]["deleted"])
        if reply["restored"] is not None:
            self._restored = reply["restored"]
        return result

    async def _run(self, title: str, code: str, *, figure: str | None = None) -> Any:
        """Run a step in the session and show what the reply said."""
        began = time.perf_counter()
        result = await self._call(code.strip())
        _say(title, time.perf_counter() - began)
        reply = result.structured_content
        for line in f"{reply['stdout'].rstrip()}\n{reply['result'] or ''}".strip("\n").splitlines()[:_SHOWN_LINES]:
            print(terminal_text.safe(f"      | {line[:_WIDTH]}".rstrip()))
        saved = [f"{kind} {', '.join(names)}" for kind, names in reply["saved"].items() if names]
        _detail("saved: " + ("; ".join(saved) or "nothing changed"))
        for entry in reply["not_saved"]:
            self._problems.append(f"{entry['name']} was not saved: {entry['reason']}")
        if figure is not None:
            images = [(block.mime_type, block.data) for block in result.content if block.type == "image"]
            paths = write_figures(images, self._figures, figure)
            if not paths:
                raise DemoFailed(f"the step {title!r} brought no figure")
            _detail(f"figures: {', '.join(str(path) for path in paths)}")
        return reply

    async def _facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self._call(ASK)).structured_content["stdout"])
        return found

    async def _note(self) -> None:
        known, self._before = self._before, await self._facts()
        for what, value in self._before.items():
            if what not in known:
                _detail(f"{what}: {value}")

    async def _kernel_pid(self) -> int:
        async with connection.connect(operator=True, start=False) as keeper:
            status: Any = (await connection.call(keeper, "keeper_status")).structured_content
        return int(status["kernels"][SESSION])

    async def _kill(self, what: str, pid: int) -> None:
        print(f"\n  >>  kill -9 {pid}, the {what}")
        os.kill(pid, signal.SIGKILL)
        if not await asyncio.to_thread(discovery.wait_for_end, pid, END_S):
            raise DemoFailed(f"the {what} did not end")

    async def _check(self, what: str) -> None:
        """Ask again for everything that was noted, and show what came back."""
        names = sorted(self._names)
        self._restored = None
        began = time.perf_counter()
        after = await self._facts()
        _say(f"the same client asks again after the end of the {what}", time.perf_counter() - began)
        restored: Mapping[str, Any] = self._restored or {"names": [], "not_restored": []}
        _detail(f"restored: {len(restored['names'])} of {len(names)} names: {', '.join(restored['names'])}")
        failed = [f"{entry['name']} ({entry['reason']})" for entry in restored["not_restored"]]
        _detail(f"not restored: {', '.join(failed) or 'none'}")
        problems = lost(self._before, after)
        _detail(f"compared: {len(self._before)} values from before, {len(problems) or 'none'} lost")
        problems += lost(dict.fromkeys(names, "restored"), dict.fromkeys(restored["names"], "restored"))
        self._problems += [f"after the kill of the {what}, {problem}" for problem in problems]
        print()


def _text(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def _say(title: str, seconds: float) -> None:
    print(f"{title:.<76} {seconds:6.2f} s", flush=True)


def _detail(text: str) -> None:
    print(textwrap.fill(text, _WIDTH, initial_indent="      ", subsequent_indent="        "), flush=True)
