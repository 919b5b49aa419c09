"""openai-agents: the output of a function call as it goes into the next request to a model."""

from __future__ import annotations

import json
from typing import Any

from agents import Agent, RunContextWrapper
from agents.items import ItemHelpers
from agents.mcp import MCPServerStdio, MCPUtil
from agents.tool_context import ToolContext
from openai.types.responses import ResponseFunctionToolCall

from tests.replies.hosts.common import TIMEOUT_S, Plan, Seen, make, run


async def follow(plan: Plan) -> list[Seen]:
    server = {"command": plan.command, "args": plan.arguments, "env": plan.environ}
    async with MCPServerStdio(server, client_session_timeout_seconds=TIMEOUT_S) as connected:
        agent = Agent(name="replies", mcp_servers=[connected])
        found = await MCPUtil.get_function_tools(connected, False, RunContextWrapper(None), agent)
        tools = {tool.name: tool for tool in found}

        async def call(tool: str, arguments: dict[str, Any]) -> Seen:
            text = json.dumps(arguments)
            request = ResponseFunctionToolCall(type="function_call", call_id="1", name=tool, arguments=text)
            context = ToolContext(None, tool_name=tool, tool_call_id="1", tool_arguments=text)
            output = await tools[tool].on_invoke_tool(context, text)
            return of_item(ItemHelpers.tool_call_output_item(request, output)["output"])

        return await make(plan, call)


def of_item(output: Any) -> Seen:
    """The output of an item of a request: a text, or parts."""
    seen = Seen()
    for part in [output] if isinstance(output, str) else output:
        if isinstance(part, str):
            seen.texts.append(part)
        elif part["type"] == "input_text":
            seen.texts.append(part["text"])
        elif part["type"] == "input_image" and str(part.get("image_url")).startswith("data:"):
            seen.images.append(part["image_url"].partition(",")[2])
        else:
            seen.add(part)
    return seen


if __name__ == "__main__":
    run("openai-agents", follow)
