"""This module decides whether code of a session gets a package, by the setting `packages`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from kernelrepl.errors import InvalidArgument, PackagesNotInstalled

ASK = "ask"
OFF = "off"
ANY = "*"
MOST_REQUIREMENTS = 20
"""How many packages one request may name."""
MOST_CHARS = 200
"""How long one of them may be."""
_ARCHIVES = (".whl", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".egg", ".txt", ".toml")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,<>=!~*+\[\] -]*")


def parse(given: Sequence[str]) -> list[Requirement]:
    """Return what a request asks for. Raises InvalidArgument for what is no name of a package with a version.

    A file, an address or an option could make the installer read something else than the person's package index.
    """
    if not given:
        raise InvalidArgument("no package is named; name one, as in `%pip install seaborn`")
    if len(given) > MOST_REQUIREMENTS:
        raise InvalidArgument(f"{len(given)} packages are too many for one request; name at most {MOST_REQUIREMENTS}")
    found = []
    for text in given:
        try:
            if len(text) > MOST_CHARS or not _PLAIN.fullmatch(text):
                raise InvalidRequirement
            requirement = Requirement(text)
            if requirement.name.lower().endswith(_ARCHIVES):
                raise InvalidRequirement  # an installer takes it for the name of a file
        except InvalidRequirement:
            raise InvalidArgument(
                f"{text[:MOST_CHARS]!r} is no package that can be installed; give a name, with a version if it"
                " matters: 'seaborn', 'seaborn==0.13.2', 'polars[excel]>=1'"
            ) from None
        found.append(requirement)
    return found


@dataclass(frozen=True)
class Policy:
    """What code in sessions gets when it asks; the person can always install."""

    allowed: frozenset[str] | None = None
    """Names in the form of `canonicalize_name`; "*" is all of them. None: nothing, but the person can be asked."""
    is_off: bool = False

    @classmethod
    def of(cls, setting: str | Iterable[str]) -> Policy:
        """Return the policy of a value of the setting `packages`."""
        if setting == OFF:
            return cls(is_off=True)
        if setting == ASK:
            return cls()
        names = [setting] if isinstance(setting, str) else setting
        return cls(frozenset(name if name == ANY else canonicalize_name(name) for name in names))

    def refusal(self, session_id: str, wanted: Sequence[Requirement]) -> PackagesNotInstalled | None:
        """Return the error, which says what the person can do, for what code may not have installed."""
        names = [str(requirement) for requirement in wanted]
        if self.is_off:
            return PackagesNotInstalled(names, 'sessions install no packages here (packages = "off" in the settings)')
        allowed = self.allowed or frozenset()
        refused = [str(one) for one in wanted if not {ANY, canonicalize_name(one.name)} & allowed]
        if not refused:
            return None
        command = f"kernelrepl packages {session_id} add {' '.join(map(_quoted, names))}"
        return PackagesNotInstalled(
            names, f"a person has to agree to {', '.join(refused)}; they do with `{command}` in a terminal"
        )


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9._-]+", text) else f"'{text}'"
