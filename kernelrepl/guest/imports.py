"""Modules in the session's own files: found as soon as they are written, and what is changed in them is told.

The working directory comes first on the import path, as it does for any Python that a person starts. Runs in the
kernel, once it is confined and has loaded its own code: before that nothing looks there.
"""

from __future__ import annotations

import importlib
import importlib.machinery as machinery
import os
import pickle
import sys
import time
import types
from collections.abc import Sequence
from typing import Any

LATE = frozenset(
    {
        "cProfile", "difflib", "doctest", "filecmp", "grp", "gzip", "mimetypes", "pkgutil", "pwd", "pydoc",
        "pydoc_data", "runpy", "sqlite3", "timeit", "tracemalloc", "unittest",
        "cffi", "debugpy", "executing", "jedi", "jupyter_ai", "matplotlib_inline", "nbformat", "nest_asyncio2", "parso",
        "pexpect", "psutil", "ptyprocess", "pygments", "pytest",
        "PIL", "cairosvg", "kaleido", "plotly",
        "IPython", "ipykernel", "ipywidgets", "kernelrepl", "matplotlib", "numpy", "pandas", "pyarrow", "scipy",
        "sklearn", "stack_data", "tqdm",
    }
)  # fmt: skip
"""What the kernel, and what it works with, may import while a session runs: no file of the session stands for it."""
_COARSE_S = 2.0
"""For how long a directory may look unchanged after a change: clocks of file systems tick."""
_MOST_BYTES = 1 << 20
_ATOMS = (str, bytes, int, float, complex, bool, type(None))
_CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


class Loader(machinery.SourceFileLoader):
    """Compiles what is there now: bytecode on the disk is told from older one by the second and the size only."""

    def get_code(self, fullname: str) -> types.CodeType:
        code: types.CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code

    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        _remember(module)


class Finder(machinery.FileFinder):
    """Looks into a directory that may change at any moment."""

    def find_spec(self, fullname: str, target: types.ModuleType | None = None) -> machinery.ModuleSpec | None:
        if fullname in LATE or _is_from_the_installation(sys._getframe(1)):
            installed = machinery.PathFinder.find_spec(fullname, _installed)
            if installed is not None:
                return installed
        found = super().find_spec(fullname, target)
        if (found is None or found.loader is None) and self._has_changed():
            self.invalidate_caches()
            found = super().find_spec(fullname, target)
        return found

    def _has_changed(self) -> bool:
        try:
            return abs(time.time() - os.stat(self.path).st_mtime) < _COARSE_S  # noqa: PTH116
        except OSError:
            return False


def _is_from_the_installation(frame: types.FrameType | None) -> bool:
    """Whether an import statement of the installation asks: it means what is installed."""
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    file = "" if frame is None else frame.f_code.co_filename
    return file.startswith(("<frozen ", *_installed)) and file != importlib.__file__


_LOADERS: Sequence[Any] = (
    (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    (Loader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)
_installed: list[str] = []
_fresh: dict[str, tuple[int, dict[str, Any]]] = {}
"""Of each module of the session's: when its file was written, and what its data was when its code had run."""


def find_in_working_directory() -> None:
    """Put it first on the import path. Once per process, after everything that the kernel loads at its start."""
    here = os.getcwd()  # noqa: PTH109
    _installed[:] = [entry for entry in sys.path if entry]

    def hook(path: str) -> Finder:
        ours = f"{path}/".startswith(f"{here}/") or not path.startswith(tuple(_installed))
        if not ours or not os.path.isdir(path):  # noqa: PTH112
            raise ImportError("no directory of the session", path=path)
        return Finder(path, *_LOADERS)

    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, "")
    process = sys.modules.get("multiprocessing.process")
    if process is not None:  # loaded elsewhere, and its children would look there
        process.ORIGINAL_DIR = here  # type: ignore[attr-defined]


def note_installed(place: str) -> None:
    """Take what is in a directory for installed, as what is in the environment: none of it is code of the session."""
    _installed.append(place)


def is_own(module: types.ModuleType | None) -> bool:
    """Whether a module is a file of the session's."""
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), Loader)


def changed() -> dict[str, Any]:
    """What is not as it was when its module was loaded, by `module.attribute`."""
    found: dict[str, Any] = {}
    for name in list(_fresh):
        module = sys.modules.get(name)
        if module is None:
            del _fresh[name]
            continue
        written, marks = _fresh[name]
        new = {key: value for key, value in _data(module) if key not in marks or _mark(value) != marks[key]}
        if new and "IPython.extensions.autoreload" in sys.modules and written != _written(module):
            _remember(module)  # it has brought in the values of the new text, without a word to the loader
        else:
            found |= {f"{name}.{key}": value for key, value in new.items()}
    return found


def _remember(module: types.ModuleType) -> None:
    _fresh[module.__name__] = _written(module), {name: _mark(value) for name, value in _data(module)}


def _written(module: types.ModuleType) -> int:
    try:
        return os.stat(module.__file__ or "").st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _data(module: types.ModuleType) -> list[tuple[str, Any]]:
    items = list(vars(module).items())
    return [(name, value) for name, value in items if not (name.startswith("__") or isinstance(value, _CODE))]


def _mark(value: Any) -> Any:
    """What tells a value from another one, and from itself before a change: equal for the same only."""
    if type(value) in _ATOMS:
        return type(value), value
    sink = _Sink()
    try:
        pickle.Pickler(sink, protocol=5).dump(value)
    except Exception:  # noqa: BLE001 - it is code of the session that is asked, and most of this is no data
        return id(value)
    return bytes(sink.written)


class _Sink:
    """Takes a megabyte; a larger value is known by which one it is alone."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        if len(self.written) + len(data) > _MOST_BYTES:
            raise ValueError("too large")
        self.written += data
        return len(data)
