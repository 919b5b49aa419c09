"""A picture that a cell shows is the same picture wherever it is seen, and a model gets one that it can see."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import CallToolResult, ImageContent, ResourceLink

from kernelrepl.mcp.results import of_execution
from kernelrepl.model import ExecutionResult, Figure, Output
from kernelrepl.outputs.shortening import FIGURE_CHARS, MOST_PIXELS
from tests.conftest import Sessions
from tests.support.jupyter_hosts import notebook
from tests.support.mcp_hosts import FIELDS, Place, command, host, text_of

Image = pytest.importorskip("PIL.Image", reason="pictures are compared by Pillow")
pytestmark = pytest.mark.anyio

SETUP = """
import io, matplotlib.pyplot as plt, PIL.Image
from IPython.display import Image, display
def made(kind, size=(30, 20), mode='RGB'):
    picture = PIL.Image.linear_gradient('L').resize(size).convert(mode)
    picture.save(out := io.BytesIO(), kind)
    return out.getvalue()
class Shown:
    def __init__(self, form, value): setattr(self, f'_repr_{form}_', lambda: value)
"""
PICTURES = {
    "an_image_of_pillow": "PIL.Image.linear_gradient('L').resize((30, 20))",
    "png_in_bytes": "Shown('png', made('PNG'))",
    "jpeg_in_bytes": "Shown('jpeg', made('JPEG'))",
    "png_with_a_size_beside": "Shown('png', (made('PNG'), {'width': 15, 'height': 10}))",
    "png_from_data": "Image(made('PNG'))",
    "raw_bytes": "display({'image/png': made('PNG')}, raw=True, metadata={'image/png': {'width': 3}})",
    "a_bytearray_that_changes": "display({'image/png': bytes(bytearray(made('PNG')))}, raw=True)",
    "lines_of_base64": "import base64; display({'image/png': base64.encodebytes(made('PNG')).decode()}, raw=True)",
    "a_mimebundle": "Shown('mimebundle', None) if 0 else type('M', (), {'_repr_mimebundle_': "
    "lambda self, **k: {'image/png': made('PNG'), 'text/plain': 'm'}})()",
    "an_update": "_ = display({'text/plain': 'before'}, raw=True, display_id='u'); "
    "display({'image/png': made('PNG')}, raw=True, display_id='u', update=True);",
    "pyplot": "plt.figure(); _ = plt.plot([1, 2])",
    "a_large_one": "Shown('png', made('PNG', (2000, 1000)))",
    "a_wide_jpeg": "Shown('jpeg', made('JPEG', (1600, 40)))",
}


def pixels(encoded: str) -> Any:
    """A picture in base64, decoded."""
    return Image.open(io.BytesIO(base64.b64decode("".join(encoded.split()), validate=True))).convert("RGB")


def same(one: Any, other: Any) -> bool:
    return bool(one.size == other.size and one.tobytes() == other.tobytes())


def picture_in(data: dict[str, Any]) -> str:
    """The picture of a display that a model gets: PNG, if there is one."""
    return str(data.get("image/png") or data["image/jpeg"])


@pytest.fixture
def place(shared_environ: dict[str, str]) -> Place:
    return Place(shared_environ)


@pytest.fixture
async def client(shared_environ: dict[str, str]) -> AsyncIterator[Client]:
    async with host({**shared_environ, **FIELDS}) as connected:
        yield connected


async def ran(client: Client, code: str, session_id: str) -> CallToolResult:
    result = await client.call_tool("python_repl", {"code": code, "session_id": session_id})
    assert (result.structured_content or {}).get("status") == "ok", text_of(result)
    return result


async def test_every_way_to_see_a_picture_shows_the_same(place: Place, client: Client, tmp_path: Path) -> None:
    """The reply, the resource, the notebook that is exported, and a notebook that is open."""
    await ran(client, SETUP, "p")
    shown = {name: [b for b in (await ran(client, code, "p")).content if b.type != "text"]
             for name, code in PICTURES.items()}  # fmt: skip
    file = tmp_path / "p.ipynb"
    done = command(place.environ, "export", "p", "-o", str(file))
    assert done.returncode == 0, done.stderr
    exported = [cell["outputs"] for cell in json.loads(file.read_text())["cells"]][1:]
    [content] = (await client.read_resource("kernelrepl://sessions/p/notebook")).contents
    assert [cell["outputs"] for cell in json.loads(content.text)["cells"]][1:] == exported  # type: ignore[union-attr]
    async with notebook(place, "/work/pictures.ipynb") as opened:
        await opened.run(SETUP)
        for (name, code), outputs in zip(PICTURES.items(), exported, strict=True):
            _, live = await opened.run(code)
            data = next(
                entry["data"]
                for entry in reversed(live)
                if "image/png" in entry["data"] or "image/jpeg" in entry["data"]
            )
            assert len(outputs) == 1, (name, outputs)
            recorded = outputs[0]["data"]
            assert recorded.keys() <= {"text/plain", "image/png", "image/jpeg"}, name
            original = pixels(picture_in(recorded))
            assert same(original, pixels(picture_in(data))), name
            image, *links = shown[name]
            assert isinstance(image, ImageContent)
            if not links:
                assert same(original, pixels(image.data)), name
                continue
            assert max(pixels(image.data).size) == 1568, name
            assert isinstance(links[0], ResourceLink)
            [whole] = (await client.read_resource(links[0].uri)).contents
            assert (whole.mime_type, whole.mime_type) == (links[0].mime_type, image.mime_type), name
            assert same(original, pixels(whole.blob)), name  # type: ignore[union-attr]


async def test_a_reply_says_what_it_shows_smaller(client: Client) -> None:
    """How large it is there, how large it was, and where that is; beside a figure there is no word of no output."""
    await ran(client, SETUP, "smaller")
    large = await ran(client, "display(PIL.Image.effect_noise((3000, 2000), 90))", "smaller")
    [image] = [block for block in large.content if block.type == "image"]
    [link] = [block for block in large.content if block.type == "resource_link"]
    assert pixels(image.data).size == (1568, 1045)
    assert len(image.data) < 2_000_000
    assert "figure 1 is shown at 1568 x 1045 of 3000 x 2000 pixels" in text_of(large)
    assert re.fullmatch(r"3000 x 2000 pixels, [\d.]+ MB", link.description or "")
    plain = await ran(client, "plt.figure(); _ = plt.plot([1, 2])", "smaller")
    assert text_of(plain) == "⟦1 figure⟧"
    two = await ran(client, "for n in (1, 2): plt.figure(); _ = plt.plot([1, n])", "smaller")
    assert text_of(two) == "⟦2 figures⟧"
    assert text_of(await ran(client, "pass", "smaller")) == "⟦no output⟧"


async def test_who_is_no_model_gets_figures_as_they_are(place: Place, client: Client, tmp_path: Path) -> None:
    """`exec --save-figures` writes what the code drew."""
    code = SETUP + "\nShown('png', made('PNG', (2000, 100)))"
    done = command(place.environ, "exec", "--session", "whole", "--save-figures", str(tmp_path), code)
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.glob("*.png")
    with Image.open(file) as picture:
        assert picture.size == (2000, 100)


async def test_pictures_of_other_kinds_are_drawn_for_a_model(sessions: Sessions) -> None:
    """GIF, WebP, and what stands in HTML; one that is none is named and no image."""
    await sessions.run(SETUP)
    for code in (
        "Image(made('GIF'), format='gif')",
        "display({'image/webp': made('WEBP')}, raw=True)",
        "display({'image/bmp': made('BMP')}, raw=True)",
        "import base64; from IPython.display import HTML\n"
        'HTML(f\'<img src="data:image/png;base64,{base64.b64encode(made("PNG")).decode()}">\')',
    ):
        [figure] = (await sessions.run(code)).output.figures
        assert pixels(figure.data).size == (30, 20), code
    for value in ("b'no picture'", "'no base64!'", "made('PNG')[:20]", "''", "b''", "7", "['a']", "made('JPEG')[:3]"):
        execution = await sessions.run(f"display({{'image/png': {value}, 'image/gif': {value}}}, raw=True)")
        assert execution.status == "ok", execution.output.error
        assert execution.output.figures == (), value
        kept = len(execution.output.cells[0][1]["data"]) if execution.output.cells else 0
        assert len(execution.output.displays) == bool(kept), value


@pytest.mark.parametrize("size", [(MOST_PIXELS + 1, 10), (10, 2**32 - 1)])
def test_a_picture_that_hosts_refuse_stays_out(size: tuple[int, int]) -> None:
    """One of that size would end the conversation that it came into; a smaller one in its place is welcome."""
    huge = Figure("image/png", "A" * 100, size)
    result = of_execution(ExecutionResult("s", "ok", Output(figures=(huge,)), committed=True, request_id="r"), 1000)
    assert not [block for block in result.content if block.type == "image"]
    [link] = [block for block in result.content if block.type == "resource_link"]
    assert link.uri == "kernelrepl://executions/r/figures/1.png"
    assert "1 of 1 figures are left out" in text_of(result)
    small = Figure("image/png", "BBBB", (5, 5))
    output = Output(figures=(Figure("image/png", "A" * 100, size, small), Figure("image/png", "C" * FIGURE_CHARS)))
    result = of_execution(ExecutionResult("s", "ok", output), 1000)
    assert [block.data for block in result.content if block.type == "image"] == ["BBBB"]
    assert not [block for block in result.content if block.type == "resource_link"]  # it is not stored
