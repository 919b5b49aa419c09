"""Of what a cell shows a model gets the form that says most, and what is recorded is what was sent."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelrepl.guest import wire
from kernelrepl.guest.display import html_text, plots
from kernelrepl.outputs import forms, transcript
from tests.conftest import Sessions
from tests.support.jupyter_hosts import notebook
from tests.support.mcp_hosts import Place, command, host

pytestmark = pytest.mark.anyio

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACAQAAAABnQ5yUAAAADElEQVR4nGNgYGAAAAAEAAGjChXjAAAAAElFTkSuQmCC"
NAME = "<IPython.core.display.X object>"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": "1"}, "1"),
        ({"text/plain": ["in ", "pieces"]}, "in pieces"),
        ({"text/markdown": "# hi"}, "# hi"),
        ({"text/plain": NAME, "text/markdown": "# hi", "text/html": "<h1>hi</h1>"}, "# hi"),
        ({"text/plain": NAME, "text/latex": "$x^2$"}, "$x^2$"),
        ({"text/plain": NAME, "application/json": {"a": [1, "ü"]}}, '{"a": [1, "ü"]}'),
        ({"application/geo+json": [None]}, "[null]"),
        ({"text/plain": "<__main__.A at 0x7f00>", "text/html": "<b>x</b>"}, "<b>x</b>"),
        ({"text/plain": "<a.B object at 0x7f00>", wire.REPLY: {"text": "x"}, "text/html": "<b>x</b>"}, "x"),
        ({"text/html": "<script>1</script>", wire.REPLY: {"text": ""}}, ""),
        ({"text/plain": "a table", "text/html": "<table>"}, "a table"),
        ({"text/plain": NAME, "image/svg+xml": "<svg/>"}, f"{NAME} [image/svg+xml]"),
        ({"application/pdf": "JVBE", "a/b": "c"}, "[application/pdf, a/b, which cannot be shown as text]"),
        ({"text/plain": NAME}, NAME),
        ({"text/plain": "", wire.REPLY: {"text": 7}}, ""),
        ({"text/plain": "", wire.REPLY: ["text"]}, ""),
        ({}, ""),
    ],
)
def test_the_text_of_a_display(data: dict[str, Any], text: str) -> None:
    """What says something, as it is; else what the kernel has made of it; else what there is is named."""
    assert forms.text_of(data, drawn=False) == text


def jpeg(width: int, height: int) -> bytes:
    """The head of a JPEG file, after a segment that tells of a smaller picture."""
    preview = b"\xff\xe1\x00\x0c\xff\xc0\x00\x0b\x08\x00\x01\x00\x01\x01"
    return b"\xff\xd8" + preview + b"\xff\xc2\x00\x0b\x08" + height.to_bytes(2) + width.to_bytes(2) + b"\x01"


@pytest.mark.parametrize(
    ("mime", "picture", "size"),
    [
        ("image/png", base64.b64decode(PNG), (3, 2)),
        ("image/jpeg", jpeg(300, 200), (300, 200)),
        ("image/jpeg", base64.b64decode(PNG), None),
        ("image/png", jpeg(3, 2), None),
        ("image/png", b"\x89PNG\r\n\x1a\n", None),
        ("image/png", b"\x89PNG\r\n\x1a\n" + b"x" * 40, None),
        ("image/png", base64.b64decode(PNG)[:16] + bytes(4) + b"\0\0\0\x02", None),
        ("image/png", base64.b64decode(PNG)[:16] + b"\0\0\0\x03" + bytes(4), None),
        ("image/jpeg", jpeg(0, 200), None),
        ("image/jpeg", jpeg(300, 0), None),
        ("image/jpeg", b"\xff\xd8\xff\xd9", None),
        ("image/jpeg", b"\xff\xd8" + b"\xff\xe1\x00\x00" * 9999, None),
        ("image/png", b"hi", None),
        ("image/gif", b"GIF89a\x03\x00\x02\x00", None),
    ],
)
def test_the_size_of_a_picture(mime: str, picture: bytes, size: tuple[int, int] | None) -> None:
    """As it says at its beginning; what does not is no picture."""
    found = forms.figure_of({mime: base64.b64encode(picture).decode()})
    assert (found and found.size) == size


@given(st.binary(max_size=80), st.sampled_from(["image/png", "image/jpeg"]))
def test_any_bytes_are_a_picture_or_none(tail: bytes, mime: str) -> None:
    """Whatever follows the mark of their kind."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" if mime == "image/png" else b"\xff\xd8\xff"
    found = forms.figure_of({mime: base64.b64encode(head + tail).decode()})
    assert found is None or all(0 < side < 1 << 32 for side in found.size)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<b>bold</b> and <i>more</i>", "bold and more"),
        ("<h2>Title</h2><p>one<br>two</p><ul><li>a<li>b</ul>", "## Title\none\ntwo\n- a\n- b"),
        ("<table><tr><th>&nbsp;<th>x<tr> <td>1 <td> &lt;2&gt; </table>", " | x\n1 | <2>"),
        ("<pre>def f():\n    pass</pre>", "def f():\n    pass"),
        ("<style>a{}</style><script>if (a < b) {}</script><svg><text>t</text></svg><p>seen", "seen"),
        ("<script>plot()</script>", ""),
        ("<link rel=x><style>a{}</style>", ""),
        ("<canvas></canvas>", "[HTML without text, 17 characters: what it shows is seen in a browser only]"),
        ("<img src=x alt='a cat'>", "[picture: a cat]"),
        ("<p>a</script>b</style>", "ab"),
        ("a < b", "a < b"),
    ],
)
def test_html_as_text(html: str, text: str) -> None:
    """What a reader would see, in lines."""
    assert html_text.text(html) == text


@given(st.text(alphabet="<>/=\"'& \n!-[]abprtdhlisvg") | st.text())
def test_any_html_has_a_text(html: str) -> None:
    """Or none, but it does not raise: it would cost the output its text."""
    assert isinstance(html_text.text(html), str)


def test_plotly_as_text() -> None:
    """Titles, traces and their first values, packed or not."""
    packed = {"dtype": "i2", "bdata": base64.b64encode(bytes([1, 0, 2, 1])).decode()}
    figure = {
        "data": [
            {"type": "bar", "name": "n", "x": ["a", "b"], "y": packed},
            {"y": list(range(30))},
            {"z": {"bdata": 1}},
        ],
        "layout": {"title": {"text": "T"}, "xaxis": {"title": "X"}, "template": {"data": {}}},
    }
    assert plots.text(figure) == (
        "plotly figure, 3 traces\ntitle: T\nxaxis: X\nbar 'n'\n  x = a, b\n  y = 1, 258\nscatter\n"
        "  y = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 30 values\nscatter\n  z = values of type None"
    )
    assert plots.text(None) == "plotly figure, 0 traces"


SHOWN = {
    "display({'text/markdown': '# hi'}, raw=True)": "# hi",
    "display({'text/html': '<h1>T</h1><p>x'}, raw=True)": "# T\nx",
    "display({'text/latex': '$x$'}, raw=True)": "$x$",
    "display({'application/json': {'a': float('nan')}}, raw=True)": '{"a": "nan"}',
    "display({'image/svg+xml': '<svg/>'}, raw=True)": "[image/svg+xml, which cannot be shown as text]",
    "from IPython.display import *; JSON({'a': (1, 2)})": '{"a": [1, 2]}',
    "type('H', (), {'_repr_html_': lambda self: '<i>h</i>'})()": "h",
    "type('M', (), {'_repr_markdown_': lambda self: '*m*'})()": "*m*",
    "HTML('<table><tr><td>1<td>2</table>')": "1 | 2",
    "import pandas as pd; pd.DataFrame({'a': [0.5]}).style.format('{:.2f}')": " | a\n0 | 0.50",
    "display({'text/plain': 'a\\udc80b', 5: 'x'}, raw=True)": "a?b",
    "1": "1",
}


async def test_a_model_reads_what_a_cell_shows(sessions: Sessions) -> None:
    """Also where an object has no text, and whichever way it is shown."""
    for code, text in SHOWN.items():
        output = (await sessions.run(code)).output
        shown = [text for text in (*output.displays, output.result) if text is not None]
        assert (shown, output.error) == ([text], None), code


async def test_plotly_is_text_where_no_picture_can_be_drawn(sessions: Sessions) -> None:
    """As a result and by `show`; the script that brings plotly to a page is nothing to read."""
    pytest.importorskip("plotly")
    await sessions.run("import plotly.express as px")
    for code in ("px.bar(x=['a', 'b'], y=[1, 2], title='T')", "px.bar(x=['a', 'b'], y=[1, 2], title='T').show()"):
        output = (await sessions.run(code)).output
        assert output.displays == ("plotly figure, 1 trace\ntitle: T\nxaxis: x\nyaxis: y\nbar\n  x = a, b\n  y = 1, 2",)


async def test_every_result_of_a_cell_is_there(sessions: Sessions) -> None:
    """In their order, the last one as the result."""
    await sessions.run("get_ipython().ast_node_interactivity = 'all'\nimport sys")
    output = (await sessions.run("1\ndisplay('d')\n'two'\n3")).output
    assert (output.displays, output.result) == (("1", "'d'", "'two'"), "3")
    output = (await sessions.run("for n in range(3): sys.displayhook(n)")).output
    assert (output.displays, output.result) == (("0", "1"), "2")


async def test_a_notebook_can_update_a_result(shared_environ: dict[str, str]) -> None:
    """The id under which it is updated reaches a notebook that does not trust the session, too."""
    content = {"data": {"text/plain": "old"}, "metadata": {}, "execution_count": 1, "transient": {"display_id": "r"}}
    code = (
        f"k = get_ipython().kernel; k.session.send(k.iopub_socket, 'execute_result', {content}, parent=k.get_parent())"
    )
    async with notebook(Place(shared_environ), "/work/update.ipynb") as opened:
        _, live = await opened.run(f"{code};\n6 * 7")
        assert live[0]["transient"] == {"display_id": "r"}
        assert "transient" not in live[-1]


def test_an_update_reaches_a_result() -> None:
    """As it reaches a display with that id."""
    result = {"data": {"text/plain": "old"}, "transient": {"display_id": "r"}, "execution_count": 1}
    update = {"data": {"text/plain": "new"}, "transient": {"display_id": "r"}}
    messages = [("execute_result", result), ("update_display_data", update)]
    output = transcript.load(json.dumps([{"type": kind, "content": content} for kind, content in messages]))
    assert output.result == "new"


RAW = """
import datetime
from IPython.display import publish_display_data as show
class Odd(str): pass
show({'text/plain': Odd('s'), 'application/json': {1: (2, {3}), 'when': datetime.date(2026, 1, 2), 'b': b'x'}},
     metadata={'application/json': {'expanded': True, 5: b'y'}}, transient={'display_id': Odd('i')})
show({'text/plain': ['in ', 'lines'], 7: 'v', 'text/html': 'a\\ud800b', 'application/pdf': b'%PDF', 'x': ['\\udc80']})
show({'image/png': b'\\x89PNG', 'text/html': '<b>x</b>'})
class Bad(Exception):
    def __str__(self): return 'half \\udcff of a letter'
raise Bad
"""


async def test_what_is_recorded_is_what_was_sent(shared_environ: dict[str, str]) -> None:
    """A notebook that is open gets the same data as the row has, whatever values code puts into them."""
    place = Place(shared_environ)
    async with host(shared_environ) as agent, notebook(place, "/work/same.ipynb") as opened:
        session_id = str((await opened.run("%kernelrepl info"))[1][0]["text"].split()[1])
        assert command(shared_environ, "trust", session_id).returncode == 0
        _, live = await opened.run(RAW)
        [content] = (await agent.read_resource(f"kernelrepl://sessions/{session_id}/notebook")).contents
        kept = json.loads(content.text)["cells"][-1]["outputs"]  # type: ignore[union-attr]
        fields = ("data", "metadata", "ename", "evalue", "traceback")
        assert [{name: entry[name] for name in fields if name in entry} for entry in live] == [
            {name: entry[name] for name in fields if name in entry} for entry in kept
        ]
        assert live[0]["data"]["application/json"] == {"1": [2, [3]], "when": "2026-01-02", "b": "eA=="}
        assert live[1]["data"]["text/html"] == "a?b"
        assert live[3]["evalue"] == "half ? of a letter"


async def test_what_cannot_be_sent_is_an_error_of_the_cell_and_nothing_of_it_is_kept(sessions: Sessions) -> None:
    """As in any kernel; the outputs around it are whole."""
    code = "print('before'); display({'application/json': object()}, raw=True)"
    execution = await sessions.run(code)
    assert execution.status == "error"
    assert (execution.output.stdout, execution.output.displays) == ("before\n", ())
    execution = await sessions.run(
        "from IPython.display import clear_output; print('kept'); clear_output(wait=object())"
    )
    assert (execution.status, execution.output.stdout) == ("error", "kept\n")
    assert execution.committed
