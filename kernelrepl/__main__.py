"""`kernelrepl`: with no arguments the front, which must start fast; otherwise the command line."""

from __future__ import annotations

import sys


def main() -> int:
    if len(sys.argv) == 1:
        from kernelrepl import front

        return front.main()
    from kernelrepl import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
