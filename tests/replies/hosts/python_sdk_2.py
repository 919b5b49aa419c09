"""The Python SDK of MCP, version 2: its `Client`. It hands out content and structured content."""

from __future__ import annotations

from typing import Any

from mcp import Client, StdioServerParameters

from tests.replies.hosts.common import Plan, Seen, make, of_content, run


async def follow(plan: Plan) -> list[Seen]:
    server = StdioServerParameters(command=plan.command, args=plan.arguments, env=plan.environ)
    async with Client(server) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> Seen:
            result = await client.call_tool(tool, arguments)
            return of_content(result.content, result.structured_content)

        return await make(plan, call)


if __name__ == "__main__":
    run("mcp", follow)
