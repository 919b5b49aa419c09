"""Write a database with pyhub-mcptools itself: `python pyhub_writer.py DIRECTORY < sessions.json`.

This file is run by the Python of an environment that has pyhub-mcptools. Standard input has a list of session ids, each
with code that runs there one after the other; for an id that begins with "table", the code gives the values itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any


def sandbox(directory: Path) -> Any:
    """What runs code and stores what it has left, in pyhub-mcptools."""
    importlib.import_module("django.conf").settings.configure(APP_DATA_DIR=directory)
    # The package would load all its tools and an MCP server first, and what writes the database needs none of them.
    found = importlib.util.find_spec("pyhub.mcptools")
    assert found is not None
    assert found.submodule_search_locations is not None
    package = types.ModuleType("pyhub.mcptools.python")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "python")]
    sys.modules[package.__name__] = package
    return importlib.import_module("pyhub.mcptools.python.sandbox_session").SessionAwarePythonSandbox()


def main() -> None:
    ran = sandbox(Path(sys.argv[1]))
    for session_id, cells in json.load(sys.stdin):
        for code in cells:
            if session_id.startswith("table"):  # to import pandas anew for each piece of code would take seconds
                values: dict[str, Any] = {}
                exec(code, values)
                ran.session_manager.create_session(session_id)
                ran.session_manager.save_variables(session_id, values)
                ran.session_manager.save_execution(session_id, code, "", None, 1)
            else:
                done = ran.execute(code, session_id)
                assert done.get("session_id") == session_id, done


if __name__ == "__main__":
    main()
