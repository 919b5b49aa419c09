"""An MCP client in twenty lines: run code, lose the kernel, go on.

Start it with the Python that has kernelrepl installed: `python examples/mcp_client.py`.
"""

import asyncio
import sys

from mcp import Client, StdioServerParameters

CELLS = [
    "words = 'to be or not to be'.split()",
    "import os; os.kill(os.getpid(), 9)",
    "{word: words.count(word) for word in words}",
]


async def main() -> None:
    async with Client(StdioServerParameters(command=sys.executable, args=["-m", "kernelrepl"])) as client:
        for code in CELLS:
            reply = await client.call_tool("python_repl", {"code": code, "session_id": "example"})
            print(f">>> {code}\n{reply.content[0].text}\n")
        reply = await client.call_tool("python_list_variables", {"session_id": "example"})
        print(reply.structured_content["variables"])
        await client.call_tool("python_delete_session", {"session_id": "example"})


asyncio.run(main())
