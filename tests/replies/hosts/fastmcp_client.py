"""The client of fastmcp. Its result has content and structured content; `data` is the latter, made into objects."""

from __future__ import annotations

from typing import Any

from fastmcp import Client
from fastmcp.client.transports import StdioTransport

from tests.replies.hosts.common import Plan, Seen, make, of_content, run


async def follow(plan: Plan) -> list[Seen]:
    async with Client(StdioTransport(plan.command, plan.arguments, env=plan.environ)) as client:

        async def call(tool: str, arguments: dict[str, Any]) -> Seen:
            result = await client.call_tool(tool, arguments, raise_on_error=False)
            return of_content(result.content, result.structured_content)

        return await make(plan, call)


if __name__ == "__main__":
    run("fastmcp", follow)
