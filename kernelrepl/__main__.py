"""`kernelrepl`: with no arguments and on pipes the proxy, which must start fast; otherwise the command line."""

from __future__ import annotations

import os
import sys


def _tell() -> None:
    """Say what nothing of ours can prevent any more: Python has looked there first."""
    given = os.environ.get("PYTHONPATH")
    if given and not sys.flags.ignore_environment and not all(map(os.path.isabs, given.split(os.pathsep))):
        print(  # noqa: T201 - stderr is the log of a stdio server
            "kernelrepl: an entry of PYTHONPATH is empty or relative, so Python takes code of this program from where"
            " it is started; give absolute directories",
            file=sys.stderr,
        )


def _for_a_person() -> bool:
    """Whether who starts it speaks no JSON: a person at a terminal, or the shell that completes what one types."""
    return (os.isatty(0) and os.isatty(1)) or "_KERNELREPL_COMPLETE" in os.environ


def main() -> int:
    _tell()
    if len(sys.argv) == 1 and not _for_a_person():
        from kernelrepl.mcp import proxy

        return proxy.main()
    from kernelrepl.cli import entry

    return entry.main()


if __name__ == "__main__":
    sys.exit(main())
