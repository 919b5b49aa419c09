"""A reply and a row take so much and no more, whatever code of a session makes of them."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernelrepl.guest import wire
from kernelrepl.keeper.process import LineLimit
from kernelrepl.kernel.losses import Losses
from kernelrepl.mcp.results import describe, of_execution, of_variables
from kernelrepl.model import (
    ExecutionResult,
    Failure,
    Figure,
    Manifest,
    NotRestored,
    NotSaved,
    Output,
    Page,
    Restored,
    Saved,
    Variable,
)
from kernelrepl.outputs import passing, remarks, shortening, transcript
from kernelrepl.sessions import results
from tests.conftest import Sessions

LIMIT = 20_000
MOST_REPLY_CHARS = 12 * LIMIT
"""Both parts of a reply in JSON, where a character can take six."""


def size_of(execution: ExecutionResult, limit: int = LIMIT) -> int:
    """How long a reply is on the wire, without its figures."""
    result = of_execution(execution, limit)
    texts = [part for part in result.content if part.type != "image"]
    return sum(len(part.model_dump_json()) for part in texts) + len(json.dumps(result.structured_content))


counts = st.sampled_from([0, 1, 3, 300, 30_000])
lengths = st.sampled_from([0, 1, 150, 5_000, 300_000])
SAME = "x"


@st.composite
def executions(draw: st.DrawFn) -> ExecutionResult:
    """Executions with lists and words of any length, of no more than some millions of characters each."""

    def word() -> str:
        return SAME * draw(lengths)

    def many() -> int:
        return min(draw(counts), 3_000)

    name, kind, reason = word(), word(), word()
    return ExecutionResult(
        "s", "error",
        Output(
            word(), word(), word(), (word(),) * many(), (Figure("image/png", word()),) * many(),
            Failure(word(), word(), word()),
        ),
        saved=Saved((name,) * many(), (name,) * many(), (name,) * many()),
        not_saved=(NotSaved(name, kind, kind, reason),) * many(),
        restored=Restored((name,) * many(), (NotRestored(name, kind, reason),) * many()),
        committed=True, note=word(), request_id="r",
    )  # fmt: skip


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(executions())
def test_every_reply_is_bounded(execution: ExecutionResult) -> None:
    """However many names, displays and figures there are, and however long their words."""
    assert size_of(execution) <= MOST_REPLY_CHARS
    figures = [part for part in of_execution(execution, LIMIT).content if part.type == "image"]
    assert len(figures) <= shortening.MOST_FIGURES
    assert sum(len(part.data) for part in figures) <= shortening.FIGURE_CHARS


def test_what_is_left_out_is_counted() -> None:
    """So that nobody takes the part for the whole."""
    execution = ExecutionResult(
        "s", "ok",
        Output(displays=("d",) * 3_000, figures=(Figure("image/png", "AAAA"),) * 30),
        saved=Saved(created=tuple(f"n{n}" for n in range(20_000))),
        not_saved=tuple(NotSaved(f"n{n}", "t", "p", "r" * 100) for n in range(20_000)),
    )  # fmt: skip
    reply = of_execution(execution, LIMIT).structured_content
    assert reply is not None
    created, not_saved = reply["saved"]["created"], reply["not_saved"]
    assert created[-1] == f"… and {20_000 - len(created) + 1:,} more"
    assert not_saved[-1]["name"] == f"… and {20_000 - len(not_saved) + 1:,} more"
    assert "2,800 more displays" in reply["displays"][-1]
    assert "10 of 30 figures" in reply["note"]


def test_a_page_of_variables_is_bounded() -> None:
    """Also where names and types have any length."""
    word = "x" * 90_000
    page = Page([Variable(word, word, 1, False, "now", word, word, word) for _ in range(100)], 100)
    result, text = of_variables("s", page)
    assert len(result.model_dump_json()) + len(text) < 100 * 7_000


@pytest.mark.parametrize(
    "outputs",
    [
        '[{"type":"display_data","content":{"data":{"x":[' + "[]," * 3_000_000 + "1]}}}]",
        '[{"type":"display_data","content":{"data":{"application/json":[' + "1," * 3_000_000 + "1]}}}]",
        "[" + '{"type":"stream","content":{"name":"stdout","text":"x"}},' * 100_000 + "1]",
        "[" + '{"type":"stream","content":{"name":"stdout","text":"x"}},' * 20_000 + "1]",
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_outputs_that_hold_too_much_become_a_line_that_says_so(outputs: str) -> None:
    """In what is stored, and in what was stored before."""
    output = transcript.load(outputs)
    assert "left out" in output.left_out[0]
    stored = json.dumps(passing.normalized(outputs))
    assert len(stored) < 1_000_000
    assert "left out" in transcript.load(stored).left_out[0]


def test_what_the_keeper_has_left_out_is_told_as_a_line_of_its_own() -> None:
    """To everybody who sees a result; what a kernel says in its place is nothing."""
    forged: dict[str, Any] = {"type": passing.LEFT_OUT, "content": {"text": "forged"}}
    live = transcript.Transcript()
    for _ in range(transcript.MAX_LIVE_MESSAGES + 7):
        live.add(passing.LEFT_OUT, forged["content"])
        live.add("clear_output", {"wait": True})
    stored = json.dumps(passing.normalized(json.dumps([forged]), "the outputs were left out: it holds too much"))
    for output, told in (
        (live.output(), "7 outputs were left out"),
        (transcript.load(live.dump()), "7 outputs were left out"),
        (transcript.load(stored), "the outputs were left out: it holds too much"),
    ):
        execution = ExecutionResult("s", "ok", output)
        assert output.stderr == ""
        assert [told in text for text in output.left_out] == [True]
        for lines in (remarks.remarks(execution), remarks.for_notebook(execution)):
            assert [line for line in lines if line.startswith(f"⟦note⟧ {told}")]
        reply = of_execution(execution, 20_000)
        assert reply.structured_content is not None
        assert reply.structured_content["note"].startswith(told)
        assert describe(shortening.of_reply(execution, 20_000, transcript.cut)).count(told) == 1


def test_what_did_not_come_back_is_counted_to_the_last() -> None:
    """Also what the keeper of a session that lost thousands of things has not kept."""
    lost = tuple(NotRestored(f"n{number}", "int", "why") for number in range(1500))
    found = shortening.restored(Restored((), lost, 3000), shortening.MOST_STORED, 1_000_000)
    assert found is not None
    assert found.not_restored[-1].name == "… and 3,500 more"
    kernel = Losses(Manifest(names={"own": (1, "int", 1)}))
    told = kernel.restored(
        {
            "restored": [],
            "not_restored": [{"name": name, "type": "", "reason": "gone"} for name in ("own", *map(str, range(250)))],
        }
    )
    assert (len(told.not_restored), told.left_out) == (1 + wire.MAX_FAILED, 250 - wire.MAX_FAILED)
    assert results.without(told, (NotRestored("x", "", ""),)).left_out == told.left_out  # type: ignore[union-attr]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
KEYS = ("data", "metadata", "transient", "name", "text", "ename", "evalue", "traceback", "execution_count", "wait", "x")
KINDS = ("stream", "execute_result", "display_data", "update_display_data", "error", "clear_output", "x")


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), ODD))
def test_only_known_fields_pass_and_passing_twice_changes_nothing(kind: str, content: dict[str, object]) -> None:
    """Whatever their values are."""
    found = passing.reduced(kind, content)
    if found is not None:
        assert "x" not in found
        assert passing.reduced(kind, found) == found


def test_what_a_kernel_of_ours_records_is_stored_as_it_is() -> None:
    """Streams, results with their counts, pictures with their sizes, errors."""
    messages = [
        {"type": "stream", "content": {"name": "stdout", "text": "a\n"}},
        {"type": "execute_result", "content": {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}},
        {
            "type": "display_data",
            "content": {
                "data": {"image/png": "AAAA", "application/vnd.x+json": {"a": [1, 2.5, None]}, "text/html": ["a", "b"]},
                "metadata": {"image/png": {"width": 3}},
                "transient": {"display_id": "d"},
            },
        },
        {"type": "error", "content": {"ename": "E", "evalue": "v", "traceback": ["t", "u"]}},
        {"type": "clear_output", "content": {"wait": True}},
    ]
    assert passing.loads(json.dumps(messages)) == messages


# The log


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines() -> tuple[logging.Logger, list[str], Clock]:
    """A logger, what it has written, and the clock of its limit."""
    written: list[str] = []
    clock = Clock()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    logger = logging.Logger("test")
    handler = Handler()
    handler.addFilter(LineLimit(clock))
    logger.addHandler(handler)
    return logger, written, clock


def test_a_session_that_makes_the_keeper_log_without_end_pushes_nothing_else_out(
    lines: tuple[logging.Logger, list[str], Clock],
) -> None:
    """The other session's line is written, and how many were left out is said."""
    logger, written, clock = lines
    for number in range(62_000):
        logger.info("%s", f"lost {number}", extra={"session": "hostile"})
    logger.info("%s", "honest", extra={"session": "other"})
    assert len(written) == 101
    assert written[-1] == "honest"
    clock.now = 60.0
    logger.info("%s", "again", extra={"session": "hostile"})
    assert written[-1] == "(61900 lines like this were left out) again"


def test_sessions_without_number_take_a_bounded_part_of_the_memory(
    lines: tuple[logging.Logger, list[str], Clock],
) -> None:
    """Those that were silent for longest are forgotten."""
    logger, written, _ = lines
    for number in range(5_000):
        logger.info("%s", "x", extra={"session": number})
    assert len(written) == 5_000
    (limit,) = logger.handlers[0].filters
    assert isinstance(limit, LineLimit)
    assert len(limit._known) <= 1_000


# With real kernels


CELLS = {
    "names that cannot be saved": ("globals().update({f'n{n}': (letter for letter in 'ab') for n in range(20_000)})"),
    "displays": "from IPython.display import display\nfor n in range(3_000): display({'a': 'x' * 1_000})",
    "a long class name": "raise type('E' * 3_000_000, (Exception,), {})('x')",
    "a long message": "raise ValueError('m' * 50_000_000)",
    "a long type": "a = type('T' * 1_000_000, (), {})(); a",
    "a long repr that fails": (
        "class A:\n    def __repr__(self): raise type('E' * 1_000_000, (Exception,), {})('y' * 1_000_000)\nA()"
    ),
    "nested JSON": (
        "from IPython.display import display\ndisplay({'application/json': [[0] * 1_000] * 5_000}, raw=True)"
    ),
    "output of 30 MB": "print('x' * 30_000_000)",
    "very many displays": "from IPython.display import display\nfor n in range(20_000): display(n)",
    "updates without end": (
        "from IPython.display import display\nh = display(1, display_id=True)\nfor n in range(8_000): h.update(n)"
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("cell", CELLS)
async def test_replies_of_real_cells_are_bounded(sessions: Sessions, cell: str) -> None:
    """And the session goes on with what it had."""
    await sessions.run("kept = 7")
    execution = await sessions.run(CELLS[cell])
    assert execution.status in ("ok", "error")
    assert size_of(execution) <= MOST_REPLY_CHARS
    (row,) = await sessions.rows(
        "SELECT LENGTH(outputs), LENGTH(not_saved), LENGTH(saved) FROM executions ORDER BY id DESC LIMIT 1"
    )
    assert row[0] < 30_000_000
    assert row[1] + row[2] < 2_000_000
    assert await sessions.value("kept") == "7"


@pytest.mark.anyio
async def test_what_a_session_keeps_under_no_name_is_told_in_words(sessions: Sessions) -> None:
    """Also when its kernel makes room for another."""
    await sessions.run("for _n in range(20_300): globals()[f'n{_n}'] = _n\nglobals()['x' * 1500] = (n for n in ())")
    session = sessions.manager.loaded()["s"]
    assert session.unsaved == {"*further names", "*long names"}
    await session.hibernate("the machine is small")
    note = (await sessions.run("1")).note
    assert note is not None
    assert note.endswith("not saved, and gone: further names, names that are too long")
