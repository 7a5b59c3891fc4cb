// The TypeScript SDK as a client:  node typescript.mjs 1|2 NODE_MODULES TASK
// TASK is that of tests/functional/real_clients.py as JSON; "sse" in it connects over HTTP+SSE.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [version, modules, text] = process.argv.slice(2);
const task = JSON.parse(text);
const find = createRequire(`${modules}/any.js`);
const load = (name) => import(pathToFileURL(find.resolve(name)).href);

let Client;
let StreamableHTTPClientTransport;
if (version === "1") {
  ({ Client } = await load("@modelcontextprotocol/sdk/client/index.js"));
  ({ StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js"));
} else {
  ({ Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client"));
}

const options = version === "2" && task.era ? { versionNegotiation: { mode: task.era } } : {};
const client = new Client({ name: "tried", version: "1" }, options);
let Transport = StreamableHTTPClientTransport;
if (task.sse) {
  ({ SSEClientTransport: Transport } = await load(
    version === "1" ? "@modelcontextprotocol/sdk/client/sse.js" : "@modelcontextprotocol/client",
  ));
}
const transport = new Transport(new URL(task.url), { requestInit: { headers: task.headers } });
await client.connect(transport);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const results = [];
for (const [name, args] of task.calls) {
  const answer = await client.callTool({ name, arguments: args });
  results.push(answer.content[0].text);
}
await client.close();
console.log(JSON.stringify({ tools, results }));
