"""What a session has set in its libraries, and which extensions of IPython it has loaded. Runs in the kernel."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

MATPLOTLIB = "*matplotlib"
PANDAS = "*pandas"
EXTENSIONS = "*extensions"

_OF_THE_KERNEL = ("backend", "interactive", "figure.hooks", "webagg.", "toolbar")
"""Settings of matplotlib that belong to the process which draws."""


class Options:
    """Only what differs from a library's own defaults belongs to the session."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._given = frozenset(self._extensions())
        self._told: set[str] = set()
        """Of what there was something to tell once: that there is nothing any more has to be told as well."""

    def own_values(self) -> dict[str, Any]:
        """By name of the library that is loaded; nothing for one that is as it comes."""
        values: dict[str, Any] = {}
        with contextlib.suppress(Exception):  # a library of another version, or half imported
            matplotlib = sys.modules.get("matplotlib")
            if matplotlib is not None:
                values[MATPLOTLIB] = _matplotlib(matplotlib)
        with contextlib.suppress(Exception):
            if "pandas" in sys.modules:
                values[PANDAS] = dict(_pandas())
        values[EXTENSIONS] = sorted(set(self._extensions()) - self._given)
        self._told.update(name for name, found in values.items() if found)
        return {name: found for name, found in values.items() if name in self._told}

    def apply(self, values: dict[str, Any]) -> list[tuple[str, str]]:
        """Set them again. Returns what failed, as (what, why)."""
        failed: list[tuple[str, str]] = []
        self._told.update(values.keys() & {EXTENSIONS, MATPLOTLIB, PANDAS})
        for name in values.get(EXTENSIONS, ()):
            _try(failed, f"the IPython extension {name}", self._load, name)
        for name, value in values.get(MATPLOTLIB, {}).items():
            _try(failed, f"matplotlib's setting {name}", _set_matplotlib, name, value)
        for name, value in values.get(PANDAS, {}).items():
            _try(failed, f"the option {name} of pandas", _set_pandas, name, value)
        return failed

    def _extensions(self) -> set[str]:
        return set(getattr(getattr(self._shell, "extension_manager", None), "loaded", ()))

    def _load(self, name: str) -> None:
        said = self._shell.extension_manager.load_extension(name)
        if said == "no load function":
            raise ImportError("it is no extension any more")


def _try(failed: list[tuple[str, str]], what: str, act: Any, *arguments: Any) -> None:
    try:
        act(*arguments)
    except Exception as error:  # noqa: BLE001 - another version may have other settings
        failed.append((what, f"{type(error).__name__}: {str(error)[:200]}"))


def _matplotlib(matplotlib: Any) -> dict[str, Any]:
    defaults = matplotlib.rcParamsDefault
    return {
        name: value
        for name, value in dict.items(matplotlib.rcParams)
        if not name.startswith(_OF_THE_KERNEL) and dict.get(defaults, name) != value
    }


def _set_matplotlib(name: str, value: Any) -> None:
    import matplotlib

    matplotlib.rcParams[name] = value


def _pandas() -> Iterator[tuple[str, Any]]:
    config = sys.modules["pandas._config.config"]
    for name, option in config._registered_options.items():
        value: Any = config._global_config
        for part in name.split("."):
            value = value[part]
        if value is not option.defval and value != option.defval:
            yield name, value


def _set_pandas(name: str, value: Any) -> None:
    import pandas

    pandas.set_option(name, value)
