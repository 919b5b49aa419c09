"""What a failed cell says: its own frames and not those of the kernel, a message even if the error has none
that can be read, and for some errors what to do. Runs in the kernel.
"""

from __future__ import annotations

import bdb
import os
import pdb
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import ipykernel
import IPython.core
import IPython.terminal

_FOLDERS = [__file__, *(str(module.__file__) for module in (ipykernel, IPython.core, IPython.terminal))]
_MACHINERY = (*(f"{Path(file).parent}{os.sep}" for file in _FOLDERS), str(bdb.__file__), str(pdb.__file__))
"""Where its files lie, or single files of it."""
_MOST_FRAMES = 24
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


def has_group(error: BaseException | None) -> bool:
    """Whether a group of exceptions is in the chain; IPython cannot format one."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            return True
        error = error.__cause__ or error.__context__
    return False


def with_groups(error: BaseException, cells: Mapping[str, int]) -> list[str]:
    """The traceback as Python writes it. `cells`: the execution count of each file name of a cell."""
    first = error.__traceback__
    while first is not None and first.tb_next is not None and _is_machinery(first.tb_frame):
        first = first.tb_next
    error.__traceback__ = first
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    for name, number in cells.items():
        text = text.replace(f'File "{name}"', f"Cell In[{number}]")
    return text.split("\n")


def shortened(frames: list[str]) -> list[str]:
    """The first and last frames of a traceback that nobody would read to its end."""
    if len(frames) <= _MOST_FRAMES:
        return frames
    half = _MOST_FRAMES // 2
    return [*frames[:half], f"[… {len(frames) - 2 * half} frames cut …]", *frames[-half:]]


def hint(error: BaseException) -> str | None:
    """What to do about an error that means something else here than in a script."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in sys.modules:
            return None
        return (
            f"if it is a package, install it into the environment that runs the kernels: "
            f"{sys.executable} -m pip install {_PACKAGES.get(package, package)}"
        )
    if isinstance(error, RuntimeError) and str(error).startswith(_ASYNCIO_RUN):
        return "the event loop runs already: use `await` at the top level of the code"
    if isinstance(error, SystemExit):
        return "the code ended here; the session goes on with all its variables"
    return None
