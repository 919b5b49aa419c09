"""This module has the result of the Python API: a dict with the fields of a tool, which shows itself in a notebook."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernelrepl.outputs.terminal_text import coloured


class Result(dict[str, Any]):
    """A result is the structured answer of a tool: a dict of its fields, with these attributes beside.

    text: the reply as a person reads it in a terminal. images: the figures, in order, each as the bytes of a PNG or
    JPEG file. outputs: everything that the code showed, as a list of dicts of nbformat 4. remarks: lines that say what
    was restored, what could not be saved, and why the code ended.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        text: str = "",
        images: Sequence[bytes] = (),
        outputs: Sequence[Mapping[str, Any]] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        super().__init__(fields)
        self.text = text
        self.images = list(images)
        self.outputs = list(outputs)
        self.remarks = list(remarks)

    def _ipython_display_(self) -> None:
        """Show text, tables and figures where they belong in a notebook, without what could act in its page."""
        from IPython.display import display

        from kernelrepl.outputs import sanitize

        if "status" not in self:
            self._show_list()
            return
        for output in self.outputs:
            kind = output.get("output_type")
            if kind == "stream":
                (sys.stderr if output["name"] == "stderr" else sys.stdout).write(coloured(output["text"]))
            elif kind == "error":
                sys.stderr.write(coloured("\n".join([*output["traceback"], ""])))
            else:
                passive, _ = sanitize.shown(output)
                display(passive["data"], metadata=passive["metadata"], raw=True)
        if self.remarks:
            sys.stderr.write("\n".join([*self.remarks, ""]))

    def _show_list(self) -> None:
        from IPython.display import display

        rows = next((value for value in self.values() if isinstance(value, list)), None)
        shown = {"text/plain": self.text}
        if rows:
            shown["text/html"] = f"<p>{html.escape(self.text.splitlines()[0])}</p>{_table(rows)}"
        display(shown, raw=True)


def images(content: Iterable[Any]) -> list[bytes]:
    """Return the image blocks of a tool's result, decoded to bytes."""
    return [base64.b64decode(block.data) for block in content if block.type == "image"]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row.get(name, '')))}</td>" for name in columns) + "</tr>"
        for row in rows
    )
    return f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
