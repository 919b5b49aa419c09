"""Figures of matplotlib are shown once, whichever backend draws them. Runs in the kernel.

IPython's inline backend shows what is open at the end of a cell and closes it. A backend that only draws (Agg, and all
that write files) shows nothing by itself: there `plt.show()` shows what is open, the end of a cell what is new or has
changed, and nothing is closed.
"""

from __future__ import annotations

import sys
from typing import Any

from IPython.core.events import EventManager
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import print_figure
from IPython.display import display

from kernelrepl.guest.display import bundles

_RASTER = ("image/png", "image/jpeg")


class Figures:
    """Which figures a cell has shown."""

    def __init__(self) -> None:
        self._shown: list[Any] = []
        self._before: dict[Any, bool] = {}
        """Figures that were open before the cell, and whether they had changed since they were drawn."""

    def begin(self) -> None:
        """Before a cell. What broke off in the one before has shown nothing in this one."""
        self._shown.clear()
        self._before = {manager.canvas.figure: manager.canvas.figure.stale for manager in _open()}

    def note(self, figure: Any) -> None:
        """A figure has just been shown. What is changed in it from now on makes it stale again."""
        figure.stale = False
        self._shown.append(figure)

    def end(self) -> None:
        """At the end of a cell, before the inline backend has its turn: it would show everything."""
        try:
            managers = _open()
            if not managers:
                return
            matplotlib = sys.modules["matplotlib"]
            inline = sys.modules.get("matplotlib_inline.backend_inline")
            if inline is not None and "inline" in matplotlib.get_backend():
                if inline.show._draw_called:
                    self._keep_from(inline, managers)
                    return
                if not matplotlib.is_interactive():  # `plt.ioff()`: nothing without being asked for
                    return
            for manager in managers:
                figure = manager.canvas.figure
                was_stale = self._before.get(figure, False)
                is_new = figure not in self._before and not self._is_shown(figure)
                if _only_draws(manager) and (is_new or (figure.stale and not was_stale)):
                    display(figure)
        finally:
            self._shown.clear()
            self._before.clear()

    def _is_shown(self, figure: Any) -> bool:
        """Whether the cell has shown it as it is."""
        return not figure.stale and any(figure is one for one in self._shown)

    def _keep_from(self, inline: Any, managers: list[Any]) -> None:
        closes = inline.InlineBackend.instance().close_figures
        for manager in managers:
            figure = manager.canvas.figure
            if self._is_shown(figure):
                if closes:
                    sys.modules["matplotlib.pyplot"].close(figure)
                elif figure in inline.show._to_draw:
                    inline.show._to_draw.remove(figure)


class GuestEvents(EventManager):
    """Shows figures at the end of a cell, and sees when pyplot introduces itself to IPython."""

    def __init__(self, shell: Any, events: Any, figures: Figures) -> None:
        super().__init__(shell, events)
        self.register("pre_execute", figures.begin)
        self.register("post_execute", figures.end)

    def register(self, event: str, function: Any) -> None:
        super().register(event, function)
        if getattr(function, "__module__", None) == "matplotlib.pyplot":
            _teach()


class GuestFormatter(DisplayFormatter):
    """Makes the forms of objects; of a figure always one that a model sees."""

    def __init__(self, figures: Figures, **options: Any) -> None:
        super().__init__(**options)
        self._figures = figures
        # Without pyplot there is no backend that would have told how to draw one.
        self.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", print_figure)

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        __tracebackhide__ = True  # what an object does when it is shown is code of the session
        forms, metadata = super().format(obj, include, exclude)
        module = sys.modules.get("matplotlib.figure")
        if module is not None and isinstance(obj, getattr(module, "Figure", ())):
            if forms and not any(mime in forms for mime in _RASTER) and (png := print_figure(obj, "png")):
                forms |= bundles.picture(png)
            self._figures.note(obj)
        return forms, metadata


def _open() -> list[Any]:
    pyplot = sys.modules.get("matplotlib._pylab_helpers")
    return pyplot.Gcf.get_all_fig_managers() if pyplot is not None else []


def _only_draws(manager: Any) -> bool:
    """Whether there is no window or page in which somebody sees it."""
    return type(manager).show is _show


def _teach() -> None:
    """Have managers of figures show them where they have no window: `plt.show()` and `figure.show()` ask them to."""
    sys.modules["matplotlib.backend_bases"].FigureManagerBase.show = _show


def _show(self: Any) -> None:
    """Show the figure."""
    display(self.canvas.figure)
