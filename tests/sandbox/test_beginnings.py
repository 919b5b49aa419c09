"""Nothing that a session could have written is looked at by a process that is not confined yet."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kernelrepl import python_repl
from tests.conftest import end_keeper
from tests.sessions.test_interpreters import NEEDED, make
from tests.support import beginnings

FORKED, COLD = {"KERNELREPL_STANDBY": "1", "KERNELREPL_WARM_START": "on"}, {"KERNELREPL_WARM_START": "off"}
WAYS: dict[str, dict[str, str]] = {
    "forked": {**FORKED, "KERNELREPL_PRELOAD": "numpy,matplotlib.pyplot"},
    "cold": COLD,
    "forked without a sandbox": {**FORKED, "KERNELREPL_PRELOAD": "json"},
    "cold without a sandbox": COLD,
    "foreign": {**FORKED, "KERNELREPL_PRELOAD": "json"},
}
MOST = 100


async def plant(places: list[str]) -> None:
    """Have a session write whatever a process that starts might take for its own."""
    result = await python_repl(code=beginnings.BAIT.format(places=places) + "x = 41", session_id="s")
    assert result["status"] == "ok", result


async def start_in_every_way(logs: Path, how: str) -> None:
    """The session that wrote the bait, new ones until there was one that is started so, and the first one again."""
    assert (await python_repl(code="x + 1", session_id="s"))["result"] == "42"
    for n in range(MOST):
        await python_repl(code="1", session_id=f"new-{n}")
        if any(f"how={how!r}" in log.read_text() for log in logs.glob("*.log")):
            break
    assert (await python_repl(code="import os; os.kill(os.getpid(), 9)", session_id="s"))["status"] == "crashed"
    assert (await python_repl(code="x + 1", session_id="s"))["result"] == "42"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_no_process_looks_at_what_a_session_wrote_before_it_is_confined(
    way: str, environ: dict[str, str], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced by the system, in every way that a kernel can start, with bait wherever a session writes."""
    if lacks := beginnings.lacks():
        pytest.skip(lacks)
    off, cold = "sandbox" in way, WAYS[way] == COLD
    how = "cold" if cold else "fork" if way == "foreign" else "standby"  # kernels stand by for the keeper's own Python
    config, granted, log = tmp_path / "config.toml", tmp_path / "granted", tmp_path / "trace"
    config.write_text('sandbox = "off"' if off else "")
    environ.update(WAYS[way], KERNELREPL_CONFIG=str(config))
    if way == "foreign":
        environ["KERNELREPL_PYTHON"] = make(tmp_path / "venv", NEEDED)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    granted.mkdir()
    granted.chmod(0o777)
    for above in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        above.chmod(above.stat().st_mode | 0o011)
    with monkeypatch.context() as patch:
        patch.setenv("KERNELREPL_ALLOW_WRITE", str(granted))
        asyncio.run(plant([".", str(granted)]))
    (workspace,) = [path.parent for path in data_dir.glob("workspaces/*/sitecustomize.py")]
    assert (granted / "sitecustomize.py").exists()
    end_keeper(data_dir)
    Path(environ["KERNELREPL_RUNTIME_DIR"], "sandbox.json").unlink(missing_ok=True)  # so that it is tried anew

    client = beginnings.traced(log, json.dumps(beginnings.hostile(environ, workspace, granted)), granted)
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == "connected\n"
        asyncio.run(start_in_every_way(data_dir / "logs", how))
    finally:
        assert client.stdin is not None
        client.stdin.close()  # first: a keeper that nobody waits for stays as a zombie of whoever has started it
        client.stdout.close()
        end_keeper(data_dir)
        client.wait(60)
    found = beginnings.looks(log, [workspace.parent, granted], granted, workspace.parent, off=off)
    assert not found.bad, "\n".join(found.bad[:20])
    expected = {"keeper", "describe", "kernelrepl.guest.start"}
    expected |= {"its own"} if off else {"confined", "kernelrepl.guest.selftest"}
    assert expected | (set() if cold else {"kernelrepl.guest.zygote"}) <= found.kinds
