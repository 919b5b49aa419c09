"""What leads into a process before anything confines it: directories, variables, links. Says what no session may lead.

Standard library only: whoever starts a keeper needs it too.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping

_LINKS = 40
"""So many the system follows itself."""
_LOCALE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_ZONE = re.compile(r":?(?!.*\.\.)[A-Za-z0-9_<+-][A-Za-z0-9_<>+,./:-]{0,127}")
_ZONE_FILES = ("/usr/share/zoneinfo/", "/etc/localtime")
_NAME = re.compile(r"[^/\0\n]{1,256}")
_SEARCHED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")
_LEADING = (
    "GCONV_PATH", "GETCONF_DIR", "LD_AUDIT", "LD_PRELOAD", "LOCPATH", "NLSPATH", "OPENSSL_CONF", "OPENSSL_ENGINES",
    "OPENSSL_MODULES", "PYTHONHOME", "PYTHONUSERBASE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZDIR", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)  # fmt: skip
"""Variables of a keeper that name a file or a directory which is read as it starts."""
_OF_A_PERSON = ("PYTHONBREAKPOINT", "PYTHONEXECUTABLE", "PYTHONINSPECT", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP")
"""What a keeper, which nobody sits at, has no use for."""


def ways(path: str) -> list[str]:
    """Each link on the way to where an absolute path leads, and that place, which need not be there."""
    found, done = [], "/"
    rest = _backwards(path)
    while rest:
        name = rest.pop()
        if name == "..":
            done = os.path.dirname(done)  # noqa: PTH120 - at every start, for dozens of paths
            continue
        at = f"{done.rstrip('/')}/{name}"
        try:
            goal = os.readlink(at)  # noqa: PTH115
        except OSError:
            done = at
            continue
        found.append(at)
        if len(found) > _LINKS:
            break
        done = "/" if goal.startswith("/") else done
        rest += _backwards(goal)
    return [*found, done]


def _backwards(path: str) -> list[str]:
    """The names in a path, the last one first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def within(path: str, places: Iterable[str]) -> tuple[str, list[str]] | None:
    """Which of these places an absolute path leads into, and the names from there on; None: into none of them.

    The places are resolved, and so is what leads to them. In there no link is read: it may be another a moment later.
    """
    places = frozenset(places)
    names: list[str] = []
    depth, links = 0, 0  # of the place that has been entered; so many links have been followed
    rest = _backwards(path)
    while rest:
        name = rest.pop()
        names = names[:-1] if name == ".." else [*names, name]
        at = "/" + "/".join(names)
        if depth and len(names) >= depth:
            continue
        depth = len(names) if at in places else 0
        if not depth and links < _LINKS:
            with contextlib.suppress(OSError):
                goal = os.readlink(at)  # noqa: PTH115 - as in `ways`
                names = [] if goal.startswith("/") else names[:-1]
                rest += _backwards(goal)
                links += 1
    return ("/" + "/".join(names[:depth]), names[depth:]) if depth else None


def lies_in(path: str, place: str) -> bool:
    """Whether a path is a place or below it, as they are written."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def met(paths: Iterable[str], places: Iterable[str]) -> tuple[str, str] | None:
    """The first path that one of these places leads, holds, or lies in, and that place. They are resolved."""
    places = tuple(places)
    for path in paths if places else ():
        steps = ways(path)
        for place in places:
            if lies_in(place, steps[-1]) or any(lies_in(step, place) for step in steps):
                return path, place
    return None


def led_by(path: str, places: Iterable[str]) -> str | None:
    """The first of these places that a path leads into or through. They are resolved."""
    steps = ways(path)
    return next((place for place in places if any(lies_in(step, place) for step in steps)), None)


def searched(value: str, places: Iterable[str]) -> str:
    """Of a list of directories those that are the same for everybody, and that none of these places leads."""
    kept = [entry for entry in value.split(os.pathsep) if entry.startswith("/") and led_by(entry, places) is None]
    return os.pathsep.join(dict.fromkeys(kept))


def _is_zone(value: str) -> bool:
    """Whether a time zone is a rule, or one of the system's."""
    known = value.removeprefix(":").startswith(_ZONE_FILES) and ".." not in value
    return known or _ZONE.fullmatch(value) is not None


def of_kernels(environ: Mapping[str, str], places: Iterable[str]) -> dict[str, str]:
    """Of an environment what a kernel may start with: what Python needs to find its way, nothing of the person's.

    places: where sessions write. A value that is not what it should be is left out.
    """
    places = tuple(places)

    def elsewhere(value: str) -> bool:
        return value.startswith("/") and led_by(value, places) is None

    found = {name: searched(environ.get(name, ""), places) for name in ("PATH", "PYTHONPATH")}
    found["PYTHONPATH"] = os.pathsep.join(filter(os.path.exists, found["PYTHONPATH"].split(os.pathsep)))
    for name in ("HOME", "TMPDIR", "VIRTUAL_ENV"):
        found[name] = value if elsewhere(value := environ.get(name, "")) else ""
    for name in ("LANG", "LC_ALL", "LC_CTYPE"):
        found[name] = value if _LOCALE.fullmatch(value := environ.get(name, "")) else ""
    found["TZ"] = zone if _is_zone(zone := environ.get("TZ", "")) else ""
    for name in ("USER", "LOGNAME"):
        found[name] = value if _NAME.fullmatch(value := environ.get(name, "")) else ""
    said = {name for name in ("TZ", "LANG", "LC_ALL", "LC_CTYPE") if environ.get(name) == ""}
    return {name: value for name, value in found.items() if value or name in said}


def of_keeper(environ: Mapping[str, str], data_dir: str) -> dict[str, str]:
    """An environment without what leads a new keeper to code of a session, or to where it happens to be started."""
    places = [data_dir, os.path.realpath(data_dir)]
    found = {name: value for name, value in environ.items() if name not in _OF_A_PERSON}
    for name in _SEARCHED:
        if name in found and not (kept := searched(found[name], places)):
            del found[name]
        elif name in found:
            found[name] = kept
    if found.get("TZ") and not _is_zone(found["TZ"]):
        del found["TZ"]
    for name in [name for name in found if name == "LANG" or name.startswith("LC_")]:
        if found[name] and not _LOCALE.fullmatch(found[name]):
            del found[name]
    for name in _LEADING:
        parts = [part for part in re.split("[: ]", found.get(name, "")) if "/" in part or part.startswith(".")]
        if any(not part.startswith("/") or led_by(part, places) is not None for part in parts):
            del found[name]
    return found
