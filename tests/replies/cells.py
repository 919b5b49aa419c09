"""The cells: what agents run most, and what goes wrong most. They run in one session, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SESSION = "replies"
WAIT_S = 300
"""A cell is awaited to its end, however slow the machine: a reply that says "running" is not what is compared."""


SOURCES = """
import sys, stack_data
for name in ("pandas.core.frame", "pandas.core.indexes.base", "urllib.request", "http.client", "socket"):
    __import__(name)
    stack_data.Source.for_filename(sys.modules[name].__file__).pieces
del sys, stack_data, name
"""
"""Reads what IPython reads for the tracebacks below. A kernel gives it 5 seconds, else the traceback is a short one:
on a busy machine, replies would differ from run to run.
"""


@dataclass(frozen=True)
class Cell:
    """A piece of code, with the arguments of its call."""

    name: str
    code: str
    arguments: dict[str, Any] = field(default_factory=dict)
    restored: bool = False
    """Whether the kernel is ended before."""


CELLS = (
    Cell("numbers", "sum(range(101)) / 7"),
    Cell("prints", 'for year in (2023, 2024, 2025):\n    print("year", year, "total", year * 12)'),
    Cell(
        "pandas frame",
        "import pandas as pd\n"
        'frame = pd.DataFrame({"city": ["Oslo", "Rome", "Lima", "Cairo"], "sales": [12.5, 8.25, 31.0, 19.75]})\n'
        "frame",
    ),
    Cell("KeyError in pandas", 'frame["price"].mean()'),
    Cell("ZeroDivisionError", "total = frame['sales'].sum()\nint(total) / 0"),
    Cell(
        "error in nested functions",
        "def mean(values):\n    return sum(values) / len(values)\n\n"
        "def report(groups):\n    return {name: mean(values) for name, values in groups.items()}\n\n"
        'report({"first": [1, 2], "second": []})',
    ),
    Cell("URLError", 'import urllib.request\nurllib.request.urlopen("http://data.invalid/sales.csv")'),
    Cell("generator, not saved", "squares = (number**2 for number in range(10))\nnext(squares)"),
    Cell("figure", 'import matplotlib.pyplot as plt\nplt.bar(frame["city"], frame["sales"])\nplt.show()'),
    Cell(
        "two figures",
        'plt.plot([1, 3, 2])\nplt.title("first")\nplt.show()\nplt.plot([3, 1, 2])\nplt.title("second")\nplt.show()',
    ),
    Cell("large figure", "plt.figure(figsize=(24, 18), dpi=100)\nplt.plot(range(50))\nplt.show()"),
    Cell("plotly figure", "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1, 3, 2]))"),
    Cell("long output", "for number in range(4000):\n    print(number, number**2)"),
    Cell("stderr", 'import sys\nprint("careful: 3 rows were dropped", file=sys.stderr)'),
    Cell("%pip install, refused", "%pip install polars"),
    Cell("input()", 'name = input("Which city? ")'),
    Cell("timeout", 'import time\nprint("started")\ntime.sleep(60)', {"timeout": 1}),
    Cell("%whos", "%whos"),
    Cell(
        "class definition",
        "class Account:\n    def __init__(self, owner):\n        self.owner, self.total = owner, 0\n\n"
        "    def add(self, amount):\n        self.total += amount\n\n"
        'account = Account("Ada")\naccount.add(5)',
    ),
    Cell("SyntaxError", "for number in range(3)\n    print(number)"),
    Cell("numpy array", "import numpy as np\nnp.arange(20).reshape(4, 5)"),
    Cell(
        "display(HTML)",
        "from IPython.display import HTML, display\ndisplay(HTML('<h2>Sales</h2><p>They <b>rose</b>.</p>'))",
    ),
    Cell("restored session", 'frame["sales"].sum(), account.total', restored=True),
    Cell("sys.exit", "import sys\nsys.exit(3)"),
    Cell("warnings", 'import warnings\nwarnings.warn("sales have gaps")\nframe["sales"].mean()'),
    Cell("file written", 'frame.to_csv("sales.csv")'),
    Cell("dict", '{"rows": len(frame), "columns": list(frame), "most": dict(frame.iloc[2])}'),
    Cell("string with newlines", r'"first line\nsecond line\n\tthird"'),
    Cell(
        "progress bar",
        "from tqdm import tqdm\n"
        'for step in tqdm(range(200), bar_format="{l_bar}{bar:20}| {n_fmt}/{total_fmt}"):\n    time.sleep(0.005)',
    ),
    Cell("None", "None"),
    Cell("assertion", 'assert len(frame) == 5, "rows are missing"'),
)


def calls() -> list[tuple[Cell | None, dict[str, Any]]]:
    """Calls of tools, in their order, each with the cell whose reply it gets: None for one that prepares a cell."""
    found: list[tuple[Cell | None, dict[str, Any]]] = [(None, _call("python_repl", code=SOURCES, wait=WAIT_S))]
    for cell in CELLS:
        if cell.restored:
            found.append((None, _call("python_interrupt", force=True)))
        found.append((cell, _call("python_repl", code=cell.code, wait=WAIT_S, **cell.arguments)))
    return found


def _call(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"tool": tool, "arguments": {"session_id": SESSION, **arguments}}
