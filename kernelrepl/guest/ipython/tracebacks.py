"""What a failed cell says: its own frames and not those of the kernel, a message even if the error has none
that can be read, and for some errors what to do. Runs in the kernel.
"""

from __future__ import annotations

import bdb
import contextlib
import linecache
import os
import pdb
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import ipykernel
import IPython.core
import IPython.terminal

from kernelrepl.guest.ipython import console
from kernelrepl.guest.ipython.output import shortened as shortened_text

_FOLDERS = [str(Path(str(module.__file__)).parent) for module in (ipykernel, IPython.core, IPython.terminal)]
_FOLDERS.append(str(Path(__file__).parents[1]))
_MACHINERY = (*(f"{folder}{os.sep}" for folder in _FOLDERS), str(bdb.__file__), str(pdb.__file__))
"""Where its files lie, or single files of it."""
_MOST_FRAMES = 24
_ENDS = 16
"""How many frames at each end of a traceback are formatted: more than are shown, with those that IPython hides."""
_MOST_CHAINED = 8
_MOST_IN_GROUPS = 40
_SHOWN_OF_GROUP = 15
_SOURCE_CHARS = 400_000
_MOST_LINES = 10_000
"""IPython itself writes frames of longer files down as they are."""
_FRAME_CHARS = 8_000
_ERROR_CHARS = 300
_ASYNCIO_RUN = ("asyncio.run() cannot be called from a running event loop", "This event loop is already running")

_PACKAGES = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "bs4": "beautifulsoup4",
    "skimage": "scikit-image",
}
"""Where the name to install is not the one to import."""


def readable(error: BaseException) -> BaseException:
    """The error itself, or one of the same name in its stead if its text cannot be read."""
    try:
        str(error)
    except BaseException as broken:  # noqa: BLE001 - it is user code that runs here
        text = f"[its message cannot be read: __str__ raised {type(broken).__name__}]"
        kind: type[BaseException] = KeyboardInterrupt  # what stopped it stops the cell
        if not isinstance(broken, KeyboardInterrupt):
            kind = type(type(error).__name__, (Exception,), {"__module__": type(error).__module__})
        stand_in = kind(text).with_traceback(error.__traceback__)
        stand_in.__cause__, stand_in.__context__ = error.__cause__, error.__context__
        stand_in.__suppress_context__ = error.__suppress_context__
        return stand_in
    return error


def cut_machinery(error: BaseException) -> None:
    """Drop what the kernel did after the last line of the user's own code."""
    last, step = None, error.__traceback__
    while step is not None:
        if not _is_machinery(step.tb_frame):
            last = step
        step = step.tb_next
    if last is not None:
        last.tb_next = None


def _is_machinery(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_MACHINERY)


@dataclass
class LeftOut:
    """What of an error is not formatted."""

    frames: int = 0
    errors: int = 0


_TRACEBACK, _CAUSE, _CONTEXT, _SUPPRESS = (
    BaseException.__dict__[f"__{name}__"] for name in ("traceback", "cause", "context", "suppress_context")
)
"""As the interpreter knows them: a class may have properties of these names."""


def of(error: BaseException) -> TracebackType | None:
    """The traceback of an error of any class."""
    found: TracebackType | None = _TRACEBACK.__get__(error)
    return found


@contextlib.contextmanager
def bounded(error: BaseException) -> Iterator[LeftOut]:
    """Let an error look like one that is formatted in a moment: both ends of its tracebacks, the last of its chain.

    Endless recursion has as many frames as the limit says, and an error raised in a loop may have thousands before it.
    """
    left_out, before = LeftOut(), []
    one: BaseException | None = error
    seen: set[int] = set()
    while one is not None:
        seen.add(id(one))
        found = tuple(of.__get__(one) for of in (_TRACEBACK, _CAUSE, _CONTEXT, _SUPPRESS))
        before.append((one, found))
        shorter, frames = _both_ends(found[0])
        left_out.frames += frames
        earlier = _before(one)
        if earlier is not None and (id(earlier) in seen or len(before) == _MOST_CHAINED):
            left_out.errors = _length(earlier, seen)
            earlier = None
        cause = earlier if earlier is found[1] else None
        _put(one, (shorter, cause, earlier if cause is None else None, found[3] and cause is not None))
        one = earlier
    try:
        yield left_out
    finally:
        for one, found in before:
            _put(one, found)


def _put(error: BaseException, found: tuple[Any, ...]) -> None:
    for of, value in zip((_TRACEBACK, _CAUSE, _CONTEXT, _SUPPRESS), found, strict=True):
        of.__set__(error, value)


def _before(error: BaseException) -> BaseException | None:
    """The error that is shown before this one."""
    cause: BaseException | None = _CAUSE.__get__(error)
    if cause is not None or _SUPPRESS.__get__(error):
        return cause
    context: BaseException | None = _CONTEXT.__get__(error)
    return context


def _length(error: BaseException | None, seen: set[int]) -> int:
    """How many errors a chain has that were not seen yet."""
    seen, known = set(seen), len(seen)
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error = _before(error)
    return len(seen) - known


def _steps(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


def _both_ends(step: TracebackType | None) -> tuple[TracebackType | None, int]:
    """A traceback without its middle, and how many frames that had. The given one stays as it is."""
    steps = list(_steps(step))
    if len(steps) <= 2 * _ENDS:
        return steps[0] if steps else None, 0
    shorter = steps[-_ENDS]
    for step in reversed(steps[:_ENDS]):
        shorter = TracebackType(shorter, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return shorter, len(steps) - 2 * _ENDS


def takes_long(error: BaseException) -> bool:
    """Whether it would take long to colour the source, and to find the part of it that failed, as in generated code."""
    one: BaseException | None = error
    while one is not None:
        for file in {step.tb_frame.f_code.co_filename for step in _steps(of(one)) if not _is_machinery(step.tb_frame)}:
            lines = linecache.getlines(file)
            if len(lines) < _MOST_LINES and sum(map(len, lines)) > _SOURCE_CHARS:
                return True
        one = _before(one)
    return False


def plain(error: BaseException, cells: Mapping[str, int]) -> list[str]:
    """The traceback without any of what takes time, and its last frames only."""
    parts = traceback.format_tb(_own_part(_TRACEBACK.__get__(error)), -_ENDS)
    return [_with_cells(shortened_text(part, _FRAME_CHARS), cells).rstrip() for part in parts] + [_in_a_line(error)]


def _in_a_line(error: BaseException) -> str:
    with contextlib.suppress(Exception):  # its text is code of the session
        return shortened_text(f"{type(error).__name__}: {error}", _ERROR_CHARS)
    return type(error).__name__


def has_group(error: BaseException | None) -> bool:
    """Whether a group of exceptions is in the chain; IPython cannot format one."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            return True
        error = _before(error)
    return False


def with_groups(error: BaseException, cells: Mapping[str, int]) -> list[str]:
    """The traceback as Python writes it. `cells`: the execution count of each file name of a cell."""
    first = _own_part(_TRACEBACK.__get__(error))
    _TRACEBACK.__set__(error, first)
    if _members(error) <= _MOST_IN_GROUPS:
        text = "".join(traceback.format_exception(error)).rstrip("\n")
    else:
        text = "".join([*traceback.format_tb(first), *_listed(error)]).rstrip("\n")
    return _with_cells(text, cells).split("\n")


def _own_part(step: TracebackType | None) -> TracebackType | None:
    """A traceback from where the kernel called the user's code."""
    while step is not None and step.tb_next is not None and _is_machinery(step.tb_frame):
        step = step.tb_next
    return step


def _with_cells(text: str, cells: Mapping[str, int]) -> str:
    for name, number in cells.items():
        text = text.replace(f'File "{name}"', f"Cell In[{number}]")
    return text


def _members(error: BaseException) -> int:
    """How many errors there are in a group with those before them; counts not far over the most that are formatted."""
    work, seen = [error], set[int]()
    while work and len(seen) <= _MOST_IN_GROUPS:
        one = work.pop()
        if id(one) not in seen:
            seen.add(id(one))
            work += [found for found in (_CAUSE.__get__(one), _CONTEXT.__get__(one)) if found is not None]
            if isinstance(one, BaseExceptionGroup):
                work += one.exceptions[: _MOST_IN_GROUPS + 1]
    return len(seen)


def _listed(error: BaseException | None) -> Iterator[str]:
    """Each error of a chain in a line, the first ones of a group below it."""
    while error is not None:
        yield f"{_in_a_line(error)}\n"
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions[:_SHOWN_OF_GROUP]:
                yield f"  | {_in_a_line(one)}\n"
            if len(error.exceptions) > _SHOWN_OF_GROUP:
                yield f"  | [… {len(error.exceptions) - _SHOWN_OF_GROUP} more …]\n"
        error = _before(error)
        if error is not None:
            yield "before it:\n"


def shortened(parts: list[str], left_out: LeftOut) -> list[str]:
    """The first and last frames of a traceback that nobody would read to its end, none of them a page long."""
    parts = [shortened_text(str(part), _FRAME_CHARS) for part in parts]
    half = _MOST_FRAMES // 2
    if len(parts) > _MOST_FRAMES:
        cut = len(parts) - 2 * half + left_out.frames
        parts = [*parts[:half], f"[… {cut} frames cut …]", *parts[-half:]]
    if left_out.errors:
        parts.insert(0, f"[… {left_out.errors} errors before these are left out …]")
    return parts


def hint(error: BaseException) -> str | None:
    """What to do about an error that means something else here than in a script."""
    text = _in_a_line(error)
    if isinstance(error, ImportError) and (found := _FOR_STYLES.search(text)):
        return f"df.style needs {found[1]}: {console.how_to_install(['jinja2'])}"
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str) and error.name:
        package = error.name.partition(".")[0]
        if package in sys.modules:
            return None
        return f"if it is a package: {console.how_to_install([_PACKAGES.get(package, package)])}"
    if (
        isinstance(error, SyntaxError)
        and isinstance(error.text, str)
        and error.text.lstrip().startswith(("```", "~~~"))
    ):
        return "the code has the marks of Markdown around it: send what stands between ``` and ```, without them"
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return _of_a_path(error)
    if isinstance(error, RuntimeError) and text.partition(": ")[2].startswith(_ASYNCIO_RUN):
        return "the event loop runs already: use `await` at the top level of the code"
    if isinstance(error, SystemExit):
        return "the code ended here; the session goes on with all its variables"
    return None


_FOR_STYLES = re.compile("(?i)(?:missing optional dependency|requires?) '?(jinja2)")


def _of_a_path(error: OSError) -> str | None:
    """A program that a session has not, or a file of the machine that it does not see."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if any(code.co_filename == subprocess.__file__ for code in _codes(of(error))):
        return console.instead(name)
    if name.startswith("/") and not os.path.exists(os.path.dirname(name)):  # noqa: PTH110, PTH120
        return f"{_OWN_FILES}; `kernelrepl put` brings a file in, and `kernelrepl grant` lets it see a directory"
    if name.startswith(f"{tempfile.gettempdir()}/") and isinstance(error, FileNotFoundError):
        return f"{_OWN_FILES}; its /tmp is its own as well, and is empty whenever a kernel starts"
    return None


_OWN_FILES = "a session sees the files of its own working directory"


def _codes(step: TracebackType | None) -> Iterator[CodeType]:
    return (step.tb_frame.f_code for step in _steps(step))
