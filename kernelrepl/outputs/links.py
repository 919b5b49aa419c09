"""Which links of a session's HTML a person may follow: those that lead out of this machine and its surroundings. Pure.

A click goes with the person's cookies and from the person's network, to a Jupyter server, a router, the metadata of a
cloud. So what stays is what is certainly a public address, as every browser reads it; else there is no link.
"""

from __future__ import annotations

import ipaddress
import re

_LINK = re.compile(
    r"https?://(?P<host>[a-z0-9.-]{1,253})(?::[0-9]{1,5})?"
    r"(?:[/?#][^\s\x00-\x20\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\"'<>\\^`{|}]{0,2000})?",
    re.IGNORECASE | re.ASCII,
)
_MAIL = re.compile(r"mailto:[a-z0-9._+-]{1,64}@[a-z0-9.-]{1,253}", re.IGNORECASE | re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HERE = frozenset(
    {"localhost", "localdomain", "local", "internal", "lan", "home", "corp", "intranet", "private", "arpa", "test"}
    | {"invalid", "onion"}
)
"""The last parts of names that no public server answers for."""


def leads_out(link: str) -> bool:
    """Whether a link is the address of a public server, or of a mailbox."""
    if _MAIL.fullmatch(link):
        return True
    found = _LINK.fullmatch(link)
    return found is not None and _is_public(found["host"].lower().removesuffix("."))


def _is_public(host: str) -> bool:
    *labels, last = host.split(".")
    if not labels or not all(_LABEL.fullmatch(label) for label in (*labels, last)):
        return False
    if last[0].isdigit():  # browsers read it as a number of the fourth version, also in parts and with other bases
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            return False
        return address.is_global and not address.is_multicast
    return last not in _HERE
