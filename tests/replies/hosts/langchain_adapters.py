"""langchain-mcp-adapters: the content of the `ToolMessage` that its tool makes, as an agent appends it.

Structured content goes into the `artifact` of the message, which no model reads. The tools are those of `get_tools`,
as its documentation begins with: each call starts the server anew.
"""

from __future__ import annotations

from typing import Any

from langchain_mcp_adapters.client import MultiServerMCPClient

from tests.replies.hosts.common import Plan, Seen, make, run


async def follow(plan: Plan) -> list[Seen]:
    server = {"transport": "stdio", "command": plan.command, "args": plan.arguments, "env": plan.environ}
    client = MultiServerMCPClient({"kernelrepl": server})
    tools = {tool.name: tool for tool in await client.get_tools()}

    async def call(tool: str, arguments: dict[str, Any]) -> Seen:
        request = {"type": "tool_call", "id": "1", "name": tool, "args": arguments}
        return of_message((await tools[tool].ainvoke(request)).content)

    return await make(plan, call)


def of_message(content: Any) -> Seen:
    """The content of a message: a text, or blocks."""
    seen = Seen()
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, str):
            seen.texts.append(block)
        elif block["type"] == "text":
            seen.texts.append(block["text"])
        elif block["type"] == "image" and "base64" in block:
            seen.images.append(block["base64"])
        elif block["type"] in ("image", "file") and "url" in block:
            seen.urls.append(block["url"])
        else:
            seen.add(block)
    return seen


if __name__ == "__main__":
    run("langchain-mcp-adapters", follow)
