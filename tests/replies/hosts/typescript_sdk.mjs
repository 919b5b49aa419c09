// The TypeScript SDK of MCP. It hands out content and structured content, and its client must have a name.
// This program is copied beside the node_modules of its library. common.py says what it reads and writes.

import { readFileSync } from "node:fs";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const plan = JSON.parse(readFileSync(0, "utf8"));
const about = JSON.parse(readFileSync(new URL("node_modules/@modelcontextprotocol/sdk/package.json", import.meta.url)));
const transport = new StdioClientTransport({ command: plan.command, args: plan.arguments, env: plan.environ });
const client = new Client({ name: "replies", version: "1" });
await client.connect(transport);
await client.listTools();

const seen = [];
for (const { tool, arguments: given } of plan.calls) {
  const one = { texts: [], images: [], fields: "", urls: [] };
  try {
    const result = await client.callTool({ name: tool, arguments: given }, undefined, { timeout: 330_000 });
    for (const block of result.content) {
      if (block.type === "text") one.texts.push(block.text);
      else if (block.type === "image") one.images.push(block.data);
      else one.texts.push(JSON.stringify(block));
    }
    if (result.structuredContent !== undefined) one.fields = JSON.stringify(result.structuredContent);
  } catch (error) {
    one.texts = [String(error)];
  }
  seen.push(one);
}
await client.close();
process.stdout.write(JSON.stringify({ version: about.version, seen }));
