"""The Python SDK of MCP, version 1: a session on two streams. It hands out content and structured content."""

from __future__ import annotations

from typing import Any

import mcp
from mcp.client.stdio import stdio_client

from tests.replies.hosts.common import Plan, Seen, make, of_content, run


async def follow(plan: Plan) -> list[Seen]:
    server = mcp.StdioServerParameters(command=plan.command, args=plan.arguments, env=plan.environ)
    async with stdio_client(server) as (reading, writing), mcp.ClientSession(reading, writing) as session:
        await session.initialize()

        async def call(tool: str, arguments: dict[str, Any]) -> Seen:
            result: Any = await session.call_tool(tool, arguments)
            return of_content(result.content, result.structuredContent)

        return await make(plan, call)


if __name__ == "__main__":
    run("mcp", follow)
