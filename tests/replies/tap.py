"""A tap between a host and its server: it passes on every line, and notes each call with the reply to it.

`tap.py RECORD COMMAND...` is what the host starts instead of COMMAND. It imports the standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_CLIENT = "io.modelcontextprotocol/clientInfo"


def main() -> int:
    record, *command = sys.argv[1:]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    into, calls = server.stdin, dict[Any, dict[str, Any]]()
    client: dict[str, Any] = {}

    def pass_requests() -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            params = message.get("params") or {}
            client.update(params.get("clientInfo") or (params.get("_meta") or {}).get(_CLIENT) or {})
            if message.get("method") == "tools/call":
                calls[message["id"]] = {"client": client.get("name"), "tool": params["name"]}
            into.write(line)
            into.flush()
        into.close()

    threading.Thread(target=pass_requests, daemon=True).start()
    for line in server.stdout:
        message = json.loads(line)
        call = calls.pop(message.get("id"), None) if "method" not in message else None
        if call is not None:
            with Path(record).open("a") as file:  # before the host can ask for more, so the order is that of the calls
                file.write(json.dumps({**call, "reply": message.get("result") or message.get("error")}) + "\n")
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
