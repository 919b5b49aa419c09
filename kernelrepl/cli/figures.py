"""Figures of a reply, as files of the person."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kernelrepl.workspaces import own_files


def write_figures(
    images: Iterable[tuple[str, str]], directory: Path, stem: str, places: Sequence[str] = ()
) -> list[Path]:
    """Write images as `directory/stem-NUMBER.EXTENSION`, and return the paths. Numbers that are taken are passed over.

    images: the MIME type and the data, in base64, of each. places: the directories that sessions may write to, where no
    link is followed. Raises OSError.
    """
    os.close(own_files.open_directory(directory, places, make=True))
    paths = []
    taken = {path.stem for path in directory.iterdir()}
    free = (number for number in itertools.count(1) if f"{stem}-{number}" not in taken)
    for number, (mime, data) in zip(free, images, strict=False):
        path = directory / f"{stem}-{number}.{mime.split('/')[1]}"
        own_files.write(path, base64.b64decode(data), places)
        paths.append(path)
    return paths
