"""What a model reads of a plotly figure, which is data for a script of the browser. Runs in the kernel."""

from __future__ import annotations

import base64
import functools
import importlib.util
import struct
from collections.abc import Iterator
from typing import Any

MIME = "application/vnd.plotly.v1+json"
_FORMATS = {
    "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d",
}  # fmt: skip
_SHOWN = 10
_MOST_TRACES = 20
_KEPT_OUT = frozenset({"type", "name", "bdata", "dtype", "hovertemplate", "template", "customdata"})
_failed: list[Exception] = []


@functools.cache
def _can_draw() -> bool:
    return importlib.util.find_spec("kaleido") is not None and importlib.util.find_spec("plotly") is not None


def picture(figure: Any) -> dict[str, str]:
    """Return a figure as a picture where kaleido can draw one; it is not asked again once it could not."""
    if not _can_draw() or _failed or not isinstance(figure, dict):
        return {}
    import plotly.io

    given = {name: figure[name] for name in ("data", "layout", "frames") if name in figure}
    try:
        drawn = plotly.io.to_image(given, format="png", validate=False)
    except Exception as error:  # noqa: BLE001 - it starts a browser, which may be missing or not let
        _failed.append(error)
        return {}
    return {"image/png": base64.b64encode(drawn).decode()}


def text(figure: Any) -> str:
    """Say what a figure shows: its title, its axes, and of each trace the first values."""
    figure = figure if isinstance(figure, dict) else {}
    traces = [trace for trace in _list(figure.get("data")) if isinstance(trace, dict)]
    layout = figure.get("layout")
    lines = [f"plotly figure, {len(traces)} {'trace' if len(traces) == 1 else 'traces'}"]
    lines += [f"{name}: {title}" for name, title in _titles(layout if isinstance(layout, dict) else {})]
    for trace in traces[:_MOST_TRACES]:
        kind, name = trace.get("type", "scatter"), trace.get("name")
        lines.append(f"{kind} {name!r}" if name else f"{kind}")
        series = {key: values for key, values in trace.items() if key not in _KEPT_OUT and _is_data(values)}
        lines += [f"  {key} = {_shown(values)}" for key, values in series.items()]
    if len(traces) > _MOST_TRACES:
        lines.append(f"… and {len(traces) - _MOST_TRACES} more traces")
    return "\n".join(lines)


def _titles(layout: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, part in (("title", layout), *((key, layout[key]) for key in layout if "axis" in key)):
        title = part.get("title") if isinstance(part, dict) else None
        title = title.get("text") if isinstance(title, dict) else title
        if isinstance(title, str) and title:
            yield name, title


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_data(values: Any) -> bool:
    """Whether this is a series of values, as it is or in bytes."""
    return (isinstance(values, list) and bool(values)) or (isinstance(values, dict) and "bdata" in values)


def _shown(values: Any) -> str:
    found = values if isinstance(values, list) else _unpacked(values)
    if found is None:
        return f"values of type {values.get('dtype')}"
    more = f", … {len(found)} values" if len(found) > _SHOWN else ""
    return ", ".join(_word(value) for value in found[:_SHOWN]) + more


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]


def _unpacked(values: dict[str, Any]) -> list[Any] | None:
    """The numbers of an array that plotly sends as bytes."""
    kind = _FORMATS.get(str(values.get("dtype")))
    if kind is None or not isinstance(values.get("bdata"), str):
        return None
    return [value for (value,) in struct.iter_unpack(f"<{kind}", base64.b64decode(values["bdata"]))]
