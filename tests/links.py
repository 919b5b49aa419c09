"""Print the links of the README that put kernelrepl into a host with a click: `python -m tests.links`.

They lead to pages of the hosts' makers, which open the host: GitHub shows no links with schemes of programs. What
they carry is what `kernelrepl config HOST` prints under `uvx`.
"""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

from kernelrepl.cli.mcp_hosts import NAME, UVX, entry


def links() -> dict[str, str]:
    """The link of each host that has one."""
    found = {host: entry(host, [UVX, NAME], {}) for host in ("cursor", "vscode", "lmstudio")}
    packed = {host: base64.b64encode(_json(each).encode()).decode() for host, each in found.items()}
    vscode = f"vscode:mcp/install?{quote(_json({'name': NAME, **found['vscode']}), safe='')}"
    return {
        "cursor": f"https://cursor.com/en/install-mcp?name={NAME}&config={quote(packed['cursor'], safe='')}",
        "vscode": f"https://insiders.vscode.dev/redirect?url={quote(vscode, safe='')}",
        "lmstudio": f"https://lmstudio.ai/install-mcp?name={NAME}&config={quote(packed['lmstudio'], safe='')}",
    }


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    for host, link in links().items():
        print(f"[{host}]: {link}")
