"""The directory with the packages of one session, in which the session writes nothing.

Each installation is a directory of its own there, a layer, which has its name only when it is complete: a keeper that
is killed in between leaves nothing half done. A layer that is on the import path of a kernel never changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernelrepl.workspaces import directories, removal

_SITE = "site-packages"
"""A name by which everybody tells what is installed from what is a project of the user."""
_RECORD = ".kernelrepl.json"
_UNFINISHED = ".new-"


@dataclass(frozen=True)
class Package:
    """One distribution of a layer."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """Of the files that the index has of this version; the one that was installed is among them."""


@dataclass(frozen=True)
class Layer:
    """One installation."""

    number: int
    requested: tuple[str, ...]
    by: str
    """Who asked for it: "code" or "person"."""
    at: str
    size_bytes: int
    packages: tuple[Package, ...]


def home(workspace: Path) -> Path:
    """Return the directory for the packages of the session with this workspace. It need not be there."""
    return directories.packages(workspace) / _SITE


def prepare(workspace: Path) -> Path:
    """Make the directory for the packages of a session, before a kernel is confined to see it. Raises OSError.

    Raises FileNotFoundError if there is no workspace: the session has been deleted.
    """
    workspace.stat()
    place = home(workspace)
    place.parent.parent.mkdir(mode=0o700, exist_ok=True)
    for directory in (place.parent, place):
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)  # whoever the kernel runs as reads it
    return place


def numbers(place: Path) -> list[int]:
    """Return the numbers of the layers in a directory, the latest first: the order in which Python looks into them."""
    try:
        with os.scandir(place) as entries:
            found = [int(entry.name) for entry in entries if entry.name.isdecimal() and entry.is_dir()]
    except OSError:
        return []
    return sorted(found, reverse=True)


def read(place: Path) -> list[Layer]:
    """Return what is recorded of all layers in a directory, the latest first."""
    found = []
    for number in numbers(place):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_load(number, json.loads((place / str(number) / _RECORD).read_text())))
    return found


def _load(number: int, stored: dict[str, Any]) -> Layer:
    packages = tuple(Package(one["name"], one["version"], tuple(one["hashes"])) for one in stored["packages"])
    return Layer(number, tuple(stored["requested"]), stored["by"], stored["at"], int(stored["size_bytes"]), packages)


def begin(place: Path) -> Path:
    """Make a directory in which a layer may be put together. `finish` names it. Raises OSError."""
    unfinished = place / f"{_UNFINISHED}{secrets.token_hex(8)}"
    unfinished.mkdir(mode=0o755)
    unfinished.chmod(0o755)
    return unfinished


def finish(unfinished: Path, layer: Layer) -> None:
    """Give a directory with all that belongs to a layer its number, as the last step. Raises OSError."""
    record = unfinished / _RECORD
    record.unlink(missing_ok=True)  # a wheel may have brought one, which is the same file in other sessions
    with record.open("x") as file:
        json.dump(asdict(layer), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(unfinished.with_name(str(layer.number)))


def sweep(workspaces: Path) -> None:
    """Remove the layers that a keeper which was killed has not finished. No other keeper may be at work there."""
    for of_session in directories.packages(workspaces / "any").parent.glob("*"):
        for unfinished in (of_session / _SITE).glob(f"{_UNFINISHED}*"):
            removal.remove(unfinished)
