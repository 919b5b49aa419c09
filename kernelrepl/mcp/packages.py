"""How the packages of a session are told to the person who runs the keeper."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel

from kernelrepl.model import counted
from kernelrepl.packages.installation import Installed
from kernelrepl.packages.layers import Layer


class PackageInfo(BaseModel):
    """One distribution that was installed for a session."""

    name: str
    version: str
    hashes: list[str]
    requested: bool
    """Whether somebody asked for it by name; else another package needs it."""
    by: str
    """Who asked: "code" or "person"."""
    at: str


class PackagesResult(BaseModel):
    session_id: str
    size_bytes: int
    packages: list[PackageInfo]


class InstalledPackage(BaseModel):
    name: str
    version: str


class InstalledResult(BaseModel):
    session_id: str
    installed: bool
    """Whether anything was installed; else all was there already."""
    packages: list[InstalledPackage]


def of_installed(session_id: str, found: Installed) -> tuple[InstalledResult, str]:
    """Return what an installation has brought."""
    packages = [InstalledPackage(name=one.name, version=one.version) for one in found.packages]
    listed = ", ".join(f"{one.name} {one.version}" for one in packages)
    result = InstalledResult(session_id=session_id, installed=found.layer is not None, packages=packages)
    return result, f"installed {listed}" if result.installed else f"already there: {listed}"


def of_packages(session_id: str, layers: Sequence[Layer]) -> tuple[PackagesResult, str]:
    """Return the packages of a session, without those that a later installation has replaced."""
    latest: dict[str, PackageInfo] = {}
    for layer in layers:
        asked = {_canonical(re.split(r"[^A-Za-z0-9._-]", text)[0]) for text in layer.requested}
        for one in layer.packages:
            requested = _canonical(one.name) in asked
            info = PackageInfo(**vars(one), requested=requested, by=layer.by, at=layer.at)
            latest.setdefault(one.name, info)
    size = sum(layer.size_bytes for layer in layers)
    result = PackagesResult(session_id=session_id, size_bytes=size, packages=sorted(latest.values(), key=_by_name))
    lines = [
        f"{one.name} {one.version}, asked for by {one.by}" if one.requested else f"{one.name} {one.version}"
        for one in result.packages
    ]
    head = f"{counted(len(lines), 'package')} in {session_id!r}, {size} bytes"
    return result, "\n".join([head, *lines])


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _by_name(package: PackageInfo) -> str:
    return package.name
