"""What cells print arrives, whatever the pace, and never holds up the kernel that prints it."""

from __future__ import annotations

import pytest

from kernelrepl.outputs import passing
from tests.conftest import Sessions

pytestmark = pytest.mark.anyio

LINES = 6000
"""Several times what fits into the queue of the thread that sends."""


async def test_a_flood_of_flushed_lines_arrives_whole(sessions: Sessions) -> None:
    """The printing thread waits for the sending one, never the other way round as well."""
    execution = await sessions.run(f"for n in range({LINES}): print(n, flush=True)")
    assert execution.output.stdout.split() == [str(n) for n in range(LINES)]


async def test_threads_that_print_and_flush_lose_nothing(sessions: Sessions) -> None:
    """All streams share one sending thread."""
    execution = await sessions.run(f"""
import sys, threading
def talk(stream):
    for n in range({LINES // 2}): print(n, file=stream, flush=True)
threads = [threading.Thread(target=talk, args=(stream,)) for stream in (sys.stdout, sys.stderr)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""")
    wanted = [str(n) for n in range(LINES // 2)]
    assert (execution.output.stdout.split(), execution.output.stderr.split()) == (wanted, wanted)


async def test_what_a_cell_has_shown_is_decoded_once(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """For its row and for its reply, which comes before the kernel is at its end."""
    decoded: list[str] = []
    loads = passing.loads

    def counting(outputs: str, *, ours: bool = True) -> list[dict[str, object]]:
        decoded.append(outputs)
        return loads(outputs, ours=ours)

    monkeypatch.setattr(passing, "loads", counting)
    _, job = await sessions.submit("print('printed')\n6 * 7")
    await job.over.wait()
    output = job.result.result().output
    assert (output.stdout, output.result, len(decoded)) == ("printed\n", "42", 1)
    [[stored]] = await sessions.rows("SELECT outputs FROM executions")
    assert stored == decoded[0]
