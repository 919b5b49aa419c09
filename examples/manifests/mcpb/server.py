"""The entry point of the bundle: its host runs this file with uv, which installs what pyproject.toml names."""

from __future__ import annotations

import sys

from kernelrepl.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
