"""Figures of matplotlib are seen once, whichever backend draws them and however they are shown."""

from __future__ import annotations

import pytest

from tests.conftest import Sessions

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.anyio


async def counts(sessions: Sessions, *cells: str) -> list[int]:
    """How many pictures each of these cells shows."""
    found = []
    for code in cells:
        execution = await sessions.run(code)
        assert execution.status == "ok", execution.output.error
        assert execution.output.stderr == ""
        found.append(len(execution.output.figures))
    return found


@pytest.mark.parametrize("backend", ["Agg", "svg", "pdf", "ps", "cairo", "template"])
async def test_a_backend_that_only_draws_shows_as_well(sessions: Sessions, backend: str) -> None:
    """By `show`, by the end of a cell, by name; what is open stays open and comes again when it has changed."""
    if backend == "cairo":
        pytest.importorskip("cairo")
    assert await counts(
        sessions,
        f"import matplotlib; matplotlib.use({backend!r})\nimport matplotlib.pyplot as plt",
        "plt.plot([1, 2]); plt.show()",
        "1",
        "plt.title('changed');",
        "plt.gcf()",
        "plt.show(); plt.close()",
        "plt.figure(); plt.plot([1]); plt.close()",
        "for n in range(3): plt.figure(); plt.plot([n])",
        "plt.close('all'); figure = plt.figure(); figure.add_subplot(); figure.show()",
        "print('printed')",
    ) == [0, 1, 0, 1, 1, 1, 0, 3, 1, 0]


async def test_a_figure_is_shown_once(sessions: Sessions) -> None:
    """As the last expression, by `display`, by `show`; twice only if it was another one in between."""
    assert await counts(
        sessions,
        "import matplotlib.pyplot as plt",
        "figure, axes = plt.subplots(); axes.plot([1, 2]); figure",
        "plt.plot([1, 2]); plt.gcf()",
        "figure, axes = plt.subplots(); display(figure)",
        "figure, axes = plt.subplots(); axes.plot([1]); display(figure); axes.set_title('changed');",
        "plt.plot([1]); plt.show()",
        "plt.plot([1])",
        "figure",
        "for n in range(2): plt.figure(); plt.plot([n])",
        "first, _ = plt.subplots(); second, _ = plt.subplots(); first",
        "plt.ioff(); plt.plot([1]);",
        "plt.show(); plt.ion();",
    ) == [0, 1, 1, 1, 2, 1, 1, 1, 2, 2, 0, 1]


async def test_figures_that_stay_open_are_shown_when_they_change(sessions: Sessions) -> None:
    """`close_figures = False` of the inline backend."""
    assert await counts(
        sessions,
        "%config InlineBackend.close_figures = False\nimport matplotlib.pyplot as plt",
        "figure, axes = plt.subplots(); axes.plot([1]); figure",
        "1",
        "axes.set_title('t');",
        "plt.figure(); plt.plot([1]);",
    ) == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("backend", ["", "import matplotlib; matplotlib.use('agg')\n"])
async def test_a_figure_without_pyplot_is_a_picture(sessions: Sessions, backend: str) -> None:
    """Nobody has asked for a backend there."""
    code = f"{backend}from matplotlib.figure import Figure\nf = Figure(); f.subplots().plot([1, 2]); f"
    assert await counts(sessions, code, "f", "display(f)", "Figure()") == [1, 1, 1, 0]


@pytest.mark.parametrize("form", ["svg", "pdf", "retina", "jpg"])
async def test_a_model_sees_a_figure_in_any_format(sessions: Sessions, form: str) -> None:
    """Also in one that it does not know; a notebook gets what was asked for."""
    setup = f"%config InlineBackend.figure_format = {form!r}\nimport matplotlib.pyplot as plt"
    assert await counts(sessions, setup, "plt.plot([1, 2]);", "plt.figure(); plt.plot([1]); plt.gcf()") == [0, 1, 1]
    execution = await sessions.run("plt.plot([1, 2]);")
    wanted = {"svg": "image/svg+xml", "pdf": "application/pdf", "retina": "image/png", "jpg": "image/jpeg"}[form]
    assert wanted in execution.output.cells[-1][1]["data"]


async def test_open_figures_come_back_without_being_shown_again(sessions: Sessions) -> None:
    """After a kill; what changes is seen."""
    assert await counts(
        sessions, "import matplotlib; matplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    ) == [1]
    await sessions.kill()
    assert await counts(sessions, "1", "plt.figure(); plt.plot([3]);") == [0, 1]


async def test_an_animation_is_its_first_picture(sessions: Sessions) -> None:
    """And not its script."""
    code = """
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation
from IPython.display import HTML
figure, axes = plt.subplots(); line, = axes.plot([1, 2])
shown = HTML(FuncAnimation(figure, lambda n: line.set_ydata([n, 2]), frames=3).to_jshtml()); plt.close(); shown
"""
    output = (await sessions.run(code)).output
    assert len(output.figures) == 1
    assert output.result is not None
    assert len(output.result) < 100


async def test_what_a_figure_calls_when_it_changes_comes_back_with_it(sessions: Sessions) -> None:
    """What code has registered, and what parts of the figure do for each other."""
    await sessions.run(
        "import matplotlib; matplotlib.use('agg')\n"
        "import matplotlib.pyplot as plt\n"
        "from matplotlib.widgets import Slider\n"
        "fig, (ax, other) = plt.subplots(1, 2); plt.close(fig)\n"
        "image = ax.imshow([[0, 1]]); bar = fig.colorbar(image)\n"
        "seen = []\n"
        "number = ax.callbacks.connect('xlim_changed', lambda axes: seen.append(axes.get_xlim()[0]))\n"
        "slider = Slider(other, 's', 0, 1); slider.on_changed(seen.append)"
    )
    await sessions.kill()
    assert await sessions.value(
        "ax.set_xlim(7, 8), image.set_clim(0, 3), slider.set_val(0.5), [float(one) for one in seen], float(bar.vmax)"
    ) == ("((7.0, 8.0), None, None, [7.0, 0.5], 3.0)")
    await sessions.run("ax.callbacks.disconnect(number)")
    await sessions.kill()
    assert await sessions.value("ax.set_xlim(1, 2), len(seen)") == "((1.0, 2.0), 2)"
