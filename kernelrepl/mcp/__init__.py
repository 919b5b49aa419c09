"""The agents' protocol: MCP, from the tools to the frames."""
