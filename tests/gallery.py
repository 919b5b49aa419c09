"""Example scripts of libraries, cell by cell: in a plain kernel, and in a session that is killed after every cell.

`python -m tests.gallery [-n SCRIPTS] [--cache DIR] [--only WORD] [--json FILE]`

The source distributions of the libraries bring the scripts; they are downloaded when this runs, and nothing of them
is kept here. Where there are none (networkx), the examples in the docstrings of a module are one. Each script runs
three times: twice in a plain ipykernel, which tells what of its output differs by itself, and once in a session whose
kernel is killed (SIGKILL) after each cell. A cell is the same if it prints, returns, shows (byte by byte of a picture)
and raises the same; it is told if a reply of the session said by then what was not saved or could not be restored.
Scripts of libraries that are not installed are skipped, and so are those that fetch data.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import contextlib
import doctest
import hashlib
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_async_kernel

from kernelrepl import python_delete_session, python_repl
from kernelrepl.sessions.confinement import base_environment

PROJECTS = {
    "scikit-learn": ("sklearn", "examples/"),
    "matplotlib": ("matplotlib", "galleries/"),
    "networkx": ("networkx", "networkx/"),
    "seaborn": ("seaborn", "examples/"),
    "statsmodels": ("statsmodels", "examples/python/"),
}
"""Distribution: the module that must be there, and where its scripts are."""
_FETCHES = re.compile(r"fetch_|urlopen|load_dataset|get_rdataset|requests|webuse|pooch|n_jobs|multiprocessing|input\(")
_HEX = re.compile(r"0x[0-9a-fA-F]+|at [0-9A-F]{8,}")
_CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")
_TIMEOUT_S = 600.0
_MOST_CHARS = 30_000
_STATEMENTS = 4
"""How many statements of a script without marks make a cell."""
_FEWEST_EXAMPLES = 8
"""A module with fewer examples in its docstrings is left out."""


@dataclass
class Shown:
    """What a cell came to."""

    text: str = ""
    results: list[str] = field(default_factory=list)
    """What it returned and displayed, in order: all forms that are text, and digests of pictures."""
    error: str = ""
    told: list[str] = field(default_factory=list)

    def agrees(self, first: Shown, second: Shown) -> bool:
        """Whether it is what two others are, wherever these agree: what differs between them differs by itself."""
        words, before, after = self._words(), first._words(), second._words()
        if len(before) != len(after):
            return words in (before, after)
        pairs = itertools.zip_longest(words, before, after)
        return all(one in (other, another) or other != another for one, other, another in pairs)

    def _words(self) -> list[str]:
        return [self.error, *re.split(r"(\W)", "\n".join([self.text, *self.results]))]

    def note(self, output_type: str, content: Mapping[str, Any]) -> None:
        """Take in an output, as Jupyter sends it and as a notebook keeps it."""
        if output_type == "stream" and content["name"] == "stdout":
            self.text += "".join(content["text"])
        elif output_type in ("execute_result", "display_data"):
            forms = content["data"]
            shown = "\n".join(_form(kind, forms[kind]) for kind in sorted(forms))
            if shown not in self.results or "<Figure" not in shown:  # a plain kernel shows a last figure twice
                self.results.append(shown)


def _form(kind: str, form: Any) -> str:
    text = form if isinstance(form, str) else json.dumps(form, sort_keys=True)
    if kind.startswith("image/"):
        return f"{kind} {hashlib.sha256(''.join(text.split()).encode()).hexdigest()[:12]}"
    return _plain(text)


def scripts(cache: Path, most: int, only: str) -> list[tuple[str, str]]:
    """Names and texts, as many from each project as there are, up to `most` in all."""
    found: list[list[tuple[str, str]]] = []
    for project, (module, folder) in PROJECTS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{project} is not installed: its scripts are skipped", file=sys.stderr)
            continue
        with tarfile.open(_sdist(project, cache)) as archive:
            members = sorted(
                (member for member in archive if member.isfile() and member.name.endswith(".py")),
                key=lambda member: member.name,
            )
            each = []
            for member in members:
                path = member.name.partition("/")[2]
                file = archive.extractfile(member)
                if not path.startswith(folder) or file is None or member.size > _MOST_CHARS:
                    continue
                text = file.read().decode(errors="replace")
                if project == "networkx":
                    text = examples_of(text, "import networkx as nx\n")
                if not text:
                    continue
                if only in path and not _FETCHES.search(text) and not path.endswith("conf.py"):
                    each.append((f"{project}/{path}", text))
        found.append(each)
    share = -(-most // max(1, len(found)))
    chosen = []
    for each in found:
        step = max(1, len(each) // share)
        chosen += each[::step][:share]
    return chosen[:most]


def _sdist(project: str, cache: Path) -> Path:
    page = f"https://pypi.org/pypi/{project}/json"
    with urllib.request.urlopen(page, timeout=60) as answer:
        files = json.load(answer)["urls"]
    chosen = next(file for file in files if file["packagetype"] == "sdist" and file["filename"].endswith(".tar.gz"))
    path = cache / str(chosen["filename"])
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(urllib.parse.urljoin(page, chosen["url"]), timeout=600) as answer:
            path.write_bytes(answer.read())
    return path


def examples_of(text: str, first: str) -> str:
    """The examples in the docstrings of a module, as a script that begins so; nothing if they are few."""
    found = [first]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            try:
                found += [each.source for each in doctest.DocTestParser().get_examples(ast.get_docstring(node) or "")]
            except ValueError:
                continue
    return "".join(found) if len(found) >= _FEWEST_EXAMPLES else ""


def cells_of(text: str) -> list[str]:
    """The cells of a script: as it is marked, or some statements each."""
    marked = [part for part in re.split(r"(?m)^# ?%%.*$|^#{20,}$", text) if part.strip()]
    if len(marked) > 2:
        return [part for part in marked if _has_code(part)]
    lines = text.splitlines(keepends=True)
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return [text]
    starts = [min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1 for node in body]
    bounds = [*starts[::_STATEMENTS], len(lines)]
    return ["".join(lines[start:end]) for start, end in itertools.pairwise(bounds)]


def _has_code(part: str) -> bool:
    try:
        return bool(ast.parse(part).body)
    except SyntaxError:
        return True


def _plain(text: str) -> str:
    return _CLOCK.sub("<time>", _HEX.sub("0x", re.sub(r"\x1b\[[0-9;]*m", "", text))).strip()


async def in_plain_kernel(cells: list[str], directory: str) -> list[Shown]:
    """Run cells in an ipykernel, as a notebook does, with the environment that kernels of sessions have."""
    environ = base_environment(os.environ, Path(os.environ["KERNELREPL_DATA_DIR"])) | {"HOME": directory}
    manager, client = await start_new_async_kernel(cwd=directory, env=environ, stderr=subprocess.DEVNULL)
    found = []
    try:
        for cell in cells:
            shown = Shown()

            def note(message: dict[str, Any], shown: Shown = shown) -> None:
                shown.note(message["msg_type"], message["content"])

            reply = await client.execute_interactive(cell, output_hook=note, timeout=_TIMEOUT_S, stop_on_error=False)
            shown.error = reply["content"].get("ename", "") or ""
            shown.text = _plain(shown.text)
            found.append(shown)
    except TimeoutError:
        found += [Shown(error="(timeout)") for _ in cells[len(found) :]]
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    return found


async def in_session(cells: list[str], session: str) -> list[Shown]:
    """Run cells in a session whose kernel dies after each."""
    found: list[Shown] = []
    told: list[str] = []
    for cell in cells:
        result = await python_repl(cell, session, timeout=_TIMEOUT_S)
        told += [f"{entry['name']}: {entry['reason']}" for entry in result.get("not_saved") or ()]
        restored = result.get("restored") or {}
        told += [f"{entry['name']}: {entry['reason']}" for entry in restored.get("not_restored") or ()]
        told += [line for line in result.remarks if "not saved" in line or "not restored" in line]
        error = result.get("error") or {}
        shown = Shown(told=list(dict.fromkeys(told)))
        shown.error = error.get("name", "") if result["status"] != "timeout" else "(timeout)"
        for output in result.outputs:
            shown.note(output["output_type"], output)
        shown.text = _plain(shown.text)
        found.append(shown)
        await python_repl("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", session)
    return found


async def compare(name: str, text: str) -> dict[str, Any]:
    """Run one script in all ways; how many cells are the same, told, different, or no steady ground."""
    cells = cells_of(text)
    session = re.sub(r"\W+", "-", name)[-60:].strip("-_")
    with tempfile.TemporaryDirectory() as directory:
        first = await in_plain_kernel(cells, directory)
        second = await in_plain_kernel(cells, directory)
    try:
        ours = await in_session(cells, session)
    finally:
        with contextlib.suppress(Exception):
            await python_delete_session(session)
    row: dict[str, Any] = {"script": name, "cells": len(cells), "same": 0, "told": [], "unsteady": [], "differ": []}
    for index, (cell, a, b, c) in enumerate(zip(cells, first, second, ours, strict=True)):
        if c.agrees(a, b):
            row["same"] += 1
            continue
        kind = "unsteady" if not a.agrees(b, b) else "told" if c.told else "differ"
        row[kind].append({"cell": index, "code": cell[-300:], "plain": vars(a), "again": vars(b), "session": vars(c)})
    return row


def numbers(row: Mapping[str, Any]) -> list[int]:
    return [row["cells"], row["same"], len(row["told"]), len(row["unsteady"]), len(row["differ"])]


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gallery")
    parser.add_argument("-n", type=int, default=50)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    line = "{:>6} {:>5} {:>5} {:>9} {:>7}  {}".format
    print(line("cells", "same", "told", "unsteady", "differ", "script"))
    for name, text in scripts(options.cache, options.n, options.only):
        row = await compare(name, text)
        rows.append(row)
        print(line(*numbers(row), name), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    for project in [*PROJECTS, ""]:
        of = [numbers(row) for row in rows if row["script"].startswith(project)]
        if of:
            print(line(*map(sum, zip(*of, strict=True)), f"{project or 'all'} ({len(of)} scripts)"))


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    os.environ.setdefault("KERNELREPL_DATA_DIR", tempfile.mkdtemp(prefix="kernelrepl-gallery-"))
    asyncio.run(main())
