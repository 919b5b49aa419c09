"""Jupyter messages folded into the outputs of an execution, as a notebook would show them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.model import Failure, Figure, Output
from kernelrepl.outputs import notebook, transcript
from kernelrepl.outputs.terminal_text import carriage_returns
from kernelrepl.outputs.transcript import Transcript, cut, fold, load, plain

TEXTS = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(["\r", "\x1b[31m", "\n", "stdout"])
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**310) | st.floats() | TEXTS
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4))
KINDS = st.sampled_from(["stream", "execute_result", "display_data", "update_display_data", "clear_output", "error"])
KEYS = st.sampled_from(
    [
        "name",
        "text",
        "data",
        "transient",
        "display_id",
        "wait",
        "ename",
        "evalue",
        "traceback",
        "text/plain",
        "image/png",
    ]
)
PICTURES = {
    "image/png": base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02").decode(),
    "image/jpeg": base64.b64encode(b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x02\x00\x03\x01").decode(),
}
CONTENTS = st.dictionaries(KEYS, st.dictionaries(KEYS, JSON, max_size=3) | JSON, max_size=5)
MESSAGES = st.lists(st.fixed_dictionaries({"type": KINDS, "content": CONTENTS}), max_size=6)


def message(kind: str, **content: Any) -> dict[str, Any]:
    return {"type": kind, "content": content}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return message("stream", name=name, text=text)


def display(text: str, *, ident: str | None = None, kind: str = "display_data") -> dict[str, Any]:
    transient = {} if ident is None else {"display_id": ident}
    return message(kind, data={"text/plain": text}, metadata={}, transient=transient)


def test_the_parts_of_a_stream_are_joined() -> None:
    """Each stream on its own, in order; one that is neither is left out."""
    output = fold([stream("a"), stream("x", "stderr"), stream("b\n"), stream("no", "stdin"), stream("y", "stderr")])
    assert output == Output(stdout="ab\n", stderr="xy")


def test_the_last_expression_is_the_result() -> None:
    """Not a display."""
    output = fold([display("one"), message("execute_result", data={"text/plain": "42"}, execution_count=3)])
    assert (output.result, output.displays) == ("42", ("one",))


def test_no_result_is_not_an_empty_one() -> None:
    """None says that there was no expression."""
    assert fold([]).result is None
    assert fold([message("execute_result", data={"text/plain": ""})]).result == ""


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg"])
def test_a_figure_keeps_its_bytes_and_loses_its_text(mime: str) -> None:
    """`<Figure size …>` beside a picture says nothing; line breaks in base64 are no part of it."""
    picture = PICTURES[mime]
    lines = f"{picture[:16]}\n{picture[16:]}\n"
    output = fold([message("display_data", data={mime: lines, "text/plain": "<Figure size 640x480>"})])
    assert output == Output(figures=(Figure(mime, picture),))


def test_a_result_may_be_a_figure_too() -> None:
    """Then it is both: the picture and its repr."""
    output = fold([message("execute_result", data={"image/png": PICTURES["image/png"], "text/plain": "<PIL.Image>"})])
    assert (output.result, output.figures) == ("<PIL.Image>", (Figure("image/png", PICTURES["image/png"]),))


def test_an_update_replaces_the_display_with_its_id() -> None:
    """In its place, all with that id, no other; one that nobody showed is nothing."""
    output = fold(
        [
            display("0 %", ident="bar"),
            display("other", ident="x"),
            display("0 %", ident="bar"),
            display("without"),
            display("100 %", ident="bar", kind="update_display_data"),
            display("lost", ident="y", kind="update_display_data"),
            message("update_display_data", data={"text/plain": "nameless"}),
        ]
    )
    assert output.displays == ("100 %", "other", "100 %", "without")


def test_an_update_may_make_a_figure_of_a_text() -> None:
    """Live plots do."""
    updated = message("update_display_data", data={"image/png": PICTURES["image/png"]}, transient={"display_id": "p"})
    assert fold([display("empty", ident="p"), updated]) == Output(figures=(Figure("image/png", PICTURES["image/png"]),))


def test_clearing_forgets_what_came_before() -> None:
    """At once."""
    assert fold([stream("old"), display("old"), message("clear_output", wait=False)]) == Output()
    assert fold([stream("old"), message("clear_output", wait=False), stream("new")]).stdout == "new"


def test_clearing_with_wait_forgets_when_something_new_comes() -> None:
    """Not before: the last frame of an animation stays."""
    assert fold([stream("old"), message("clear_output", wait=True)]).stdout == "old"
    assert fold([stream("old"), message("clear_output", wait=True), display("new")]) == Output(displays=("new",))
    frames = [part for number in range(3) for part in (message("clear_output", wait=True), stream(f"frame {number}"))]
    assert fold(frames).stdout == "frame 2"


def test_an_error_is_text_without_terminal_codes() -> None:
    """Colours, cursor movements and links of a traceback are for terminals."""
    error = message(
        "error",
        ename="ValueError",
        evalue="\x1b[1mno\x1b[0m",
        traceback=["\x1b[0;31m---\x1b[0m", "\x1b[38;5;28;43m1\x1b[39m/\x1b]8;;file:///x\x07x\x1b]8;;\x07\x1b[K"],
    )
    assert fold([error]).error == Failure("ValueError", "no", "---\n1/x")


def test_text_without_codes_is_left_alone() -> None:
    """Brackets alone are no code."""
    assert plain("[31m and [0m") == "[31m and [0m"
    assert plain("a\x1b[?25lb\x1bMc\x1b(d") == "abc"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\nlines\n", "plain\nlines\n"),
        ("10%\r50%\r100%\n", "100%\n"),
        ("\r10%\r100%", "100%"),
        ("10%\r100%\r", "100%"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("a\rb\nc\rd", "b\nd"),
        ("\r\r\r", ""),
    ],
)
def test_of_a_progress_bar_the_last_state_is_kept(text: str, expected: str) -> None:
    """Each line as it would stand on a terminal in the end."""
    assert carriage_returns(text) == expected
    assert fold([stream(text)]).stdout == expected


def test_a_progress_bar_that_comes_in_parts_is_one_line() -> None:
    """A message may end in the middle of it."""
    assert fold([stream("epoch 1\n10"), stream("%\r5"), stream("0%\r100%"), stream("\ndone\n")]).stdout == (
        "epoch 1\n100%\ndone\n"
    )


@pytest.mark.parametrize("length", [0, 1, 99, 100])
def test_a_short_text_is_not_cut(length: int) -> None:
    """The limit itself is short enough."""
    assert cut("x" * length, 100) == "x" * length


def test_a_long_text_keeps_its_head_and_its_tail() -> None:
    """And says how much is missing."""
    text = "head" + "x" * 1000 + "tail"
    shown = cut(text, 100)
    assert shown.startswith("head" + "x" * 46 + "\n⟦… ")
    assert shown.endswith(" …⟧\n" + "x" * 46 + "tail")
    assert "908 of 1008 characters" in shown


@given(st.text(max_size=300), st.integers(2, 250))
def test_what_is_cut_is_bounded_and_counted(text: str, limit: int) -> None:
    """Head, tail and the number between them make up the text."""
    shown = cut(text, limit)
    if len(text) <= limit:
        assert shown == text
        return
    half = limit // 2
    head, _, tail = shown.partition(f"\n⟦… {len(text) - 2 * half} of {len(text)} characters cut …⟧\n")
    assert (head, tail) == (text[:half], text[-half:])


def test_live_and_recorded_messages_fold_to_the_same() -> None:
    """A transcript, its dump, and the dump read again."""
    live = Transcript()
    for entry in (stream("a"), display("b", ident="i"), display("c", ident="i", kind="update_display_data")):
        live.add(entry["type"], entry["content"])
    assert live.output() == Output(stdout="a", displays=("c",)) == load(live.dump())


def test_a_flood_of_live_messages_is_bounded() -> None:
    """In number and in characters; what came first stays."""
    many = Transcript()
    for number in range(transcript.MAX_LIVE_MESSAGES + 10):
        many.add("stream", {"name": "stdout", "text": f"{number}\n"})
    assert many.output().stdout.splitlines()[-1] == str(transcript.MAX_LIVE_MESSAGES - 1)
    long = Transcript()
    for _ in range(10):
        long.add("stream", {"name": "stdout", "text": "x" * 1_000_000})
    assert len(long.output().stdout) <= transcript.MAX_LIVE_CHARS + 1_000_000


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], ""),
        (["one\ntwo\n"], "two"),
        (["one\n", "\n"], "one"),
        (["10%\r20%\r30%"], "30%"),
        (["\x1b[32mgreen\x1b[0m\n"], "green"),
        (["x" * 500], "x" * 200),
    ],
)
def test_the_last_line_is_what_a_progress_message_says(texts: list[str], expected: str) -> None:
    """One line, without codes, not longer than anybody reads."""
    live = Transcript()
    for text in texts:
        live.add("stream", {"name": "stdout", "text": text})
    live.add("display_data", {"data": {"text/plain": "not printed"}})
    assert live.last_line() == expected


@pytest.mark.parametrize("outputs", ["", "nonsense", "{}", "3", "null", '"[]"', "[" * 10, "[" + "9" * 5000 + "]"])
def test_what_is_no_list_of_messages_folds_to_nothing(outputs: str) -> None:
    """A row that was damaged costs its outputs only."""
    assert load(outputs) == Output()


@pytest.mark.parametrize(
    "content",
    [
        {"name": ["stdout"], "text": "x"},
        {"name": {}, "text": "x"},
        {"name": "stdout", "text": ["x"]},
        {"name": "stdout"},
        {"data": [], "transient": []},
        {"data": {"text/plain": ["a", "b"], "image/png": 7}},
        {"data": None, "transient": {"display_id": ["unhashable"]}},
        {"ename": None, "evalue": {}, "traceback": "no list"},
        {"ename": [], "traceback": [None, {}]},
        {"wait": "yes"},
    ],
)
@pytest.mark.parametrize(
    "kind", ["stream", "execute_result", "display_data", "update_display_data", "clear_output", "error", "status", None]
)
def test_a_message_of_an_unexpected_form_costs_itself_only(kind: Any, content: dict[str, Any]) -> None:
    """What a kernel sends is not trusted, and the next message counts."""
    output = fold([{"type": kind, "content": content}, stream("after\n", "stderr")])
    assert output.stderr == "after\n"


def test_nesting_costs_nobody_a_reply() -> None:
    """Deeper than Python likes to print."""
    nested = json.loads("[" * 900 + "]" * 900)
    deeper: list[Any] = []
    for _ in range(100_000):
        deeper = [deeper]
    for content in (
        {"name": "stdout", "text": nested},
        {"data": {"text/plain": nested}},
        {"data": {"application/json": deeper}},
        {"traceback": [nested]},
    ):
        for kind in ("stream", "execute_result", "error"):
            assert fold([message(kind, **content), stream("after", "stderr")]).stderr == "after"


@given(st.lists(JSON | st.dictionaries(st.sampled_from(["type", "content"]), JSON | CONTENTS), max_size=5))
def test_arbitrary_json_never_raises(messages: list[Any]) -> None:
    """Whatever stands in the list."""
    assert isinstance(fold(messages), Output)
    assert isinstance(load(json.dumps(messages)), Output)


@given(MESSAGES)
def test_messages_with_arbitrary_contents_never_raise(messages: list[dict[str, Any]]) -> None:
    """The right types around anything, live and recorded; every text of the output is one."""
    live = Transcript()
    for entry in messages:
        live.add(entry["type"], entry["content"])
    live.last_line()
    output = live.output()
    texts = [output.stdout, output.stderr, output.result or "", *output.displays, *(f.data for f in output.figures)]
    if output.error is not None:
        texts += [output.error.name, output.error.message, output.error.traceback]
    assert all(isinstance(text, str) for text in texts)
    assert load(live.dump()).stdout == output.stdout


@pytest.mark.parametrize(
    "data",
    [{"text/plain": "\x1b[m" + "x" * 1_000_000}, {"image/png": PICTURES["image/png"], "a/b": "x" * 1_000_000}],
    ids=["text", "picture"],
)
def test_an_update_is_not_shown_without_end(data: dict[str, Any]) -> None:
    """Each display of its id has all of it: a few megabytes would become any number of them."""
    displays = [message("display_data", data={"text/plain": "before"}, transient={"display_id": "d"})] * 200
    update = message("update_display_data", data=data, transient={"display_id": "d"})
    output = load(json.dumps([*displays, update]))
    assert len(json.dumps(notebook.outputs(output))) < 8_000_000
    assert sum(map(len, output.displays)) < 8_000_000
    assert len(output.displays) + len(output.figures) == 200
    [said] = output.left_out
    shown = 200 - output.displays.count("before")
    assert shown >= 4
    assert said == (
        f"{200 - shown} outputs are shown as they were before an update that is too long to be shown in each"
    )


def test_what_has_no_id_is_not_updated() -> None:
    """Also where the id of an update is empty."""
    shown = [message("stream", name="stdout", text="a"), message("display_data", data={"text/plain": "b"})]
    update = message("update_display_data", data={"text/plain": "c"}, transient={"display_id": ""})
    found = load(json.dumps([*shown, update]))
    assert (found.stdout, found.displays, found.left_out) == ("a", ("b",), ())
