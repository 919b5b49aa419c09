"""What a call of a tool may bring: looked at before the tool runs, and refused in words that name the remedy.

The SDK ignores arguments that a tool does not know, so a typing error in `session_id` would run the code in a
kernel that is thrown away; and what it says of a wrong type is its validator's report.
"""

from __future__ import annotations

import difflib
import functools
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from mcp.server import MCPServer
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, InputRequiredResult, TextContent
from pydantic import AnyUrl, BaseModel, ValidationError

from kernelrepl import errors
from kernelrepl.errors import InvalidArgument, KernelReplError, UnknownTool
from kernelrepl.mcp import files
from kernelrepl.model import PageRequest
from kernelrepl.sessions.services import Emit

MAX_PAGE = 1000
MAX_WAIT_S = 7 * 24 * 3600.0
_SHOWN_CHARS = 60
_WORDS = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
}


class Server(MCPServer[Any]):
    """The SDK's server, with calls checked first, errors of ours as answers, and calls told of as events."""

    def __init__(
        self,
        emit: Emit,
        structured: Callable[[Context[Any, Any] | None, str], bool],
        linked: Callable[[Context[Any, Any] | None], bool],
        **options: Any,
    ) -> None:
        """structured: whether the reply to the call of a tool has structured content. linked: whether it has links."""
        super().__init__("kernelrepl", **options)
        self._emit = emit
        self._structured = structured
        self._linked = linked

    def add_tool(self, fn: Callable[..., Awaitable[Any]], *options: Any, **named: Any) -> None:
        """Add a tool to the server, which may raise any KernelReplError: the client gets its text and its class.

        The SDK would take such an error for a crash, and withhold its text from the client.
        """
        super().add_tool(_refusing(fn), *options, **named)

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource; one that is a file gets the type that its name says."""
        found = await super().read_resource(uri, context)
        return found if isinstance(found, InputRequiredResult) else [files.typed(str(uri), each) for each in found]

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        began = time.monotonic()
        result = await self._call_tool(name, arguments, context)
        error = ((result.meta or {}).get(errors.WIRE_KEY) or {}).get("type")
        tool = name if error != UnknownTool.__name__ else "unknown"
        self._emit("called", tool=tool, seconds=time.monotonic() - began, error=error)
        if isinstance(result, CallToolResult) and not self._structured(context, tool):
            result.structured_content = None
        if isinstance(result, CallToolResult) and not self._linked(context):
            result.content = [block for block in result.content if block.type != "resource_link"]
        return result

    async def _call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None
    ) -> CallToolResult | InputRequiredResult:
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            names = [known.name for known in self._tool_manager.list_tools()]
            return refused(UnknownTool(name, names, difflib.get_close_matches(name, names, 1)))
        required = tool.parameters.get("required", ())
        arguments = {key: value for key, value in arguments.items() if value is not None or key in required}
        try:
            check(name, tool.parameters, arguments)
            tool.fn_metadata.validate_arguments(arguments)
        except InvalidArgument as error:
            return refused(error)
        except ValidationError as error:
            [problem, *_] = error.errors()
            return refused(_wrong_value(str(problem["loc"][0]), tool.parameters, arguments))
        return await super().call_tool(name, arguments, context)


def refused(error: KernelReplError) -> CallToolResult:
    """An error of ours as the result of a tool: its words, and its class for clients that are programs."""
    return CallToolResult(
        content=[TextContent(type="text", text=str(error))],
        is_error=True,
        _meta={errors.WIRE_KEY: errors.to_wire(error)},
    )


def answer(structured: BaseModel, text: str) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=structured.model_dump(mode="json")
    )


def _refusing(tool: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return the same tool, which answers with a refusal where it would raise a KernelReplError."""

    @functools.wraps(tool)
    async def answering(*args: Any, **kwargs: Any) -> Any:
        try:
            return await tool(*args, **kwargs)
        except KernelReplError as error:
            return refused(error)

    return answering


def request(limit: int, cursor: str | None, contains: str | None) -> PageRequest:
    """Raises InvalidArgument."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidArgument(f"limit is {limit}; it must be from 1 to {MAX_PAGE}")
    return PageRequest(limit, cursor, contains)


def check_wait(wait_s: float) -> None:
    """Raises InvalidArgument for a time that nobody can wait."""
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise InvalidArgument(f"wait is {wait_s:g} seconds; it must be from 0 to {MAX_WAIT_S:g}")


def check(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse what the SDK would ignore or take for something else. Raises InvalidArgument."""
    parameters: dict[str, Any] = schema.get("properties", {})
    for name in arguments:
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, 1)
            hint = f"did you mean {close[0]!r}?" if close else "it takes " + ", ".join(parameters)
            raise InvalidArgument(f"{tool} has no argument {_shown(name)}: {hint}")
    for name in schema.get("required", ()):
        if name not in arguments:
            raise InvalidArgument(f"{tool} needs the argument {name!r}")
    for name, value in arguments.items():
        kind = parameters.get(name, {}).get("type")
        if isinstance(value, bool) and kind in ("number", "integer"):
            raise _wrong_value(name, schema, arguments)
        if value == "null" and kind == "string" and name not in schema.get("required", ()):
            # The SDK would read it as JSON: as if it had not been given.
            raise InvalidArgument(f"{name} is the text 'null'; leave it out for none, or use another text")


def _wrong_value(name: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> InvalidArgument:
    wanted = _WORDS.get(schema.get("properties", {}).get(name, {}).get("type"), "something else")
    wanted += "" if name in schema.get("required", ()) else ", or left out"
    return InvalidArgument(f"{name} is {_shown(arguments.get(name))}; it must be {wanted}")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
