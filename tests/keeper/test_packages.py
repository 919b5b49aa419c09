"""A package as an agent and its person get it: asked for, agreed to in a terminal, used, killed, used again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Literal

import anyio
import pytest
from mcp_types import ElicitRequestParams, ElicitResult

from kernelrepl.packages import uv
from tests.support.mcp_hosts import MODES, Place, call, command, host, kill_9, run, says, until
from tests.support.wheels import index_of, make_wheel

pytestmark = pytest.mark.anyio


@pytest.fixture
def with_index(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a program whose keeper takes packages from a directory of this test."""
    index = tmp_path / "index"
    make_wheel(index, "tidy", "1.1", {"tidy/__init__.py": "def tidied(text): return ' '.join(text.split())\n"})
    return {**environ, **index_of(index), "PATH": f"{Path(uv.find()).parent}:{environ['PATH']}"}


async def test_a_person_agrees_to_a_package(with_index: dict[str, str]) -> None:
    """The command of the reply, typed as it stands there, is enough; a kill of everything changes nothing."""
    async with host(with_index) as client:
        await run(client, "kept = 1")
        failed = await run(client, "%pip install tidy")
        assert failed["error"]["name"] == "NotInstalled"
        asked = re.search("`kernelrepl (.*?)`", failed["error"]["message"])
        assert asked is not None
        done = command(with_index, *shlex.split(asked[1]))
        assert (done.returncode, done.stdout, done.stderr) == (0, "installed tidy 1.1\n", "")
        used = await run(client, "import tidy\nclean = tidy.tidied\nclean(' a   b ')")
        assert (used["status"], used["result"]) == ("ok", "'a b'")
        place = Place(with_index)
        kill_9(place.keeper)
        again = await until(lambda: run(client, "clean(' c  d '), kept"))
        assert again["result"] == "('c d', 1)"
    listed = command(with_index, "packages", "s")
    assert "tidy 1.1, asked for by person" in listed.stdout
    pinned = command(with_index, "packages", "s", "--requirements").stdout
    assert re.fullmatch(r"tidy==1\.1 \\\n    --hash=sha256:[0-9a-f]{64}\n", pinned)
    other = command({**with_index, "KERNELREPL_PACKAGES": "tidy"}, "exec", "-s", "s2", "import tidy")
    assert other.returncode == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("action", "installs"), [("accept", True), ("decline", False), ("cancel", False)])
async def test_the_host_asks_its_person(
    with_index: dict[str, str], mode: str, action: Literal["accept", "decline", "cancel"], installs: bool
) -> None:
    """Where it can: the call that runs the code goes on with the answer, and the code runs once."""
    asked = []

    async def decide(context: object, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action=action, content={} if action == "accept" else None)

    async with host(with_index, mode, asks=decide) as client:
        code = f"{says('ran')}\n%pip install tidy\nimport tidy\ntidy.tidied(' a  b')"
        got = await run(client, code, "asked")
        assert asked == ["Code in session 'asked' asks for packages: tidy. Install them?"]
        assert Place(with_index).said("ran", "asked") == 1
        if installs:
            assert (got["status"], got["result"]) == ("ok", "'a b'")
        else:
            assert "the person was asked, and did not agree" in got["error"]["message"]
        assert (await run(client, "1 + 1", "asked"))["result"] == "2"


@pytest.mark.parametrize("mode", MODES)
async def test_code_that_is_interrupted_waits_for_nobody(with_index: dict[str, str], mode: str) -> None:
    """Whoever is asked may take an hour: the code can be stopped, and a later call asks again."""
    asking, asked = anyio.Event(), []

    async def decide(context: object, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        asking.set()
        if len(asked) == 1:
            await anyio.sleep_forever()
        return ElicitResult(action="accept", content={})

    async with host(with_index, mode, asks=decide) as client, host(with_index, mode) as other:
        async with anyio.create_task_group() as group:
            group.start_soon(run, client, "%pip install tidy")
            await asking.wait()
            stopped = await call(other, "python_interrupt", session_id="s")
            assert stopped["status"] == "interrupted"
            group.cancel_scope.cancel()
        got = await run(client, "%pip install tidy\nimport tidy\ntidy.tidied(' a')")
        assert (got["status"], got["result"]) == ("ok", "'a'")
        assert len(asked) == 2


async def test_a_setting_agrees_to_packages(with_index: dict[str, str]) -> None:
    """What it names is installed without a question."""
    async with host({**with_index, "KERNELREPL_PACKAGES": "tidy, other"}) as client:
        got = await run(client, "%pip install tidy")
        assert (got["status"], got["stdout"]) == ("ok", "installed tidy 1.1\n")
        assert (await run(client, "import tidy; tidy.tidied(' a')"))["result"] == "'a'"


def test_what_is_typed_wrong_is_told(with_index: dict[str, str]) -> None:
    """A session that is not there, a word that is none, a package that is none."""
    assert command(with_index, "exec", "-s", "s", "1").returncode == 0
    for words, said in (
        (("nobody",), "there is no session 'nobody'"),
        (("nobody", "add", "tidy"), "there is no session 'nobody'"),
        (("s", "remove", "tidy"), "give `add` and the names"),
        (("s", "add"), "give `add` and the names"),
        (("s", "add", "nowhere"), "nowhere was not found"),
        (("s", "add", "./tidy"), "is no package that can be installed"),
    ):
        done = command(with_index, "packages", *words)
        assert done.returncode in (1, 2), words
        assert said in done.stderr, done.stderr
    assert command(with_index, "packages", "s").stdout == "0 packages in 's', 0 bytes\n"
