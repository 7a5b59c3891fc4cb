// The yardstick server on the TypeScript SDK 2, over Streamable HTTP:
//   node yardstick2.mjs NODE_MODULES dual|modern PORT
// What it offers stands in yardstick.json; see yardstick.py.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { Readable } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [modules, era, port] = process.argv.slice(2);
const find = createRequire(`${modules}/any.js`);
const sdk = await import(pathToFileURL(find.resolve("@modelcontextprotocol/server")).href);
const table = JSON.parse(readFileSync(new URL("yardstick.json", import.meta.url)));

const CAPABILITIES = { "elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots" };
const ANSWERS = { "elicitation/create": "action", "sampling/createMessage": "content", "roots/list": "roots" };
const states = sdk.createRequestStateCodec({ key: "nobody is fooled by this, it is a test" });
const slow = new Map();
const handler = sdk.createMcpHandler(makeServer, { legacy: "reject" });

function filled(value, args) {
  if (typeof value === "string") return value.startsWith("$") && value.slice(1) in args ? args[value.slice(1)] : value;
  if (Array.isArray(value)) return value.map((inner) => filled(inner, args));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, filled(inner, args)]));
}

// The input a tool or prompt still requires; nothing when it has all. In the legacy era the SDK
// turns it into requests to the client and calls again.
async function required(entry, args, ctx) {
  const rounds = (entry.asks ?? []).map((asked) => filled(asked, args));
  const given = ctx.mcpReq.inputResponses ?? {};
  const state = ctx.mcpReq.requestState();
  let at = state === undefined ? 0 : state.at;
  if (state !== undefined && state.name !== entry.name) throw new sdk.ProtocolError(-32602, "Invalid requestState");
  const has = ([key, question]) => typeof given[key] === "object" && ANSWERS[question.method] in given[key];
  if (at < rounds.length && Object.entries(rounds[at]).every(has)) at += 1;
  if (at >= rounds.length) return undefined;
  // What a client did not declare the SDK refuses to ask for, unless we leave it out.
  const declared = ctx.mcpReq.envelope?.[sdk.CLIENT_CAPABILITIES_META_KEY];
  const can = ([, { method }]) => !entry.declared || declared === undefined || CAPABILITIES[method] in declared;
  return sdk.inputRequired({
    inputRequests: Object.fromEntries(Object.entries(rounds[at]).filter(can)),
    ...(entry.state ? { requestState: await states.mint({ name: entry.name, at }) } : {}),
  });
}

async function run(entry, args, server, ctx) {
  let said = entry.say ?? "";
  const token = ctx.mcpReq._meta?.progressToken;
  const modern = ctx.mcpReq.envelope !== undefined;
  for (const [name, ...values] of entry.steps ?? []) {
    if (name === "log") await ctx.mcpReq.log("info", values[0], "yardstick");
    if (name === "progress" && token !== undefined) {
      const [progress, total] = values;
      const params = { progressToken: token, progress, total, message: `${progress} of ${total}` };
      await ctx.mcpReq.notify({ method: "notifications/progress", params });
    }
    if (name === "wait") await wait(values[0] * 1000);
    if (name === "change") {
      handler.notify[`${values[0]}Changed`]();
      if (!modern) await server.server.notification({ method: `notifications/${values[0]}/list_changed` });
    }
    if (name === "update") {
      handler.notify.resourceUpdated(values[0]);
      if (!modern) await server.server.sendResourceUpdated({ uri: values[0] });
    }
    if (name === "close") ctx.http?.closeSSE?.();
    if (name === "fail") throw new Error(values[0]);
    if (name === "hang") {
      slow.set(args.mark, "running");
      const how = await wait(values[0] * 1000, "finished", { signal: ctx.mcpReq.signal }).catch(() => "cancelled");
      slow.set(args.mark, how);
    }
    if (name === "state") said = slow.get(args.mark) ?? "none";
  }
  return said;
}

function makeServer() {
  const capabilities = {
    tools: { listChanged: true }, prompts: { listChanged: true },
    resources: { listChanged: true, subscribe: true }, completions: {}, logging: {},
  };
  const requestState = { verify: states.verify };
  const server = new sdk.McpServer({ name: "yardstick2-ts", version: "1" }, { capabilities, requestState });
  for (const entry of table.tools) {
    const { name, description, inputSchema } = entry;
    server.registerTool(name, { description, inputSchema: sdk.fromJsonSchema(inputSchema) }, async (args, ctx) => {
      const asks = await required(entry, args, ctx);
      if (asks !== undefined) return asks;
      const said = await run(entry, args, server, ctx);
      const answers = ctx.mcpReq.inputResponses;
      const text = answers ? `${said} ${JSON.stringify(answers)}` : said;
      return { content: entry.content ?? [{ type: "text", text }] };
    });
  }
  for (const entry of table.prompts) {
    const names = (entry.arguments ?? []).map((argument) => argument.name);
    const properties = Object.fromEntries(names.map((name) => [name, { type: "string" }]));
    const schema = { type: "object", properties, required: names };
    const answer = async (args, ctx) => {
      const asks = await required(entry, args, ctx);
      if (asks !== undefined) return asks;
      let text = JSON.stringify(entry.messages);
      for (const name of names) text = text.replaceAll(`{${name}}`, JSON.stringify(args[name]).slice(1, -1));
      return { messages: JSON.parse(text) };
    };
    const config = { description: entry.description };
    if (names.length) server.registerPrompt(entry.name, { ...config, argsSchema: sdk.fromJsonSchema(schema) }, answer);
    else server.registerPrompt(entry.name, config, (ctx) => answer({}, ctx));
  }
  for (const { uri, name, description, mimeType, text, blob } of table.resources) {
    const body = text === undefined ? { blob } : { text };
    server.registerResource(name, uri, { description, mimeType }, () => ({ contents: [{ uri, mimeType, ...body }] }));
  }
  for (const { uriTemplate, name, description, mimeType, text } of table.templates) {
    const template = new sdk.ResourceTemplate(uriTemplate, { list: undefined });
    server.registerResource(name, template, { description, mimeType }, (uri, { id }) => ({
      contents: [{ uri: uri.href, mimeType, text: text.replaceAll("{id}", id) }],
    }));
  }
  server.server.setRequestHandler("completion/complete", ({ params }) => {
    const values = table.completions.filter((value) => value.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
  for (const method of ["resources/subscribe", "resources/unsubscribe"]) server.server.setRequestHandler(method, () => ({}));
  return server;
}

// --- Legacy sessions ------------------------------------------------------------------------------

const sessions = new Map();

// What was sent on each stream, so that it can be sent again.
class Events {
  sent = [];
  async storeEvent(stream, message) {
    this.sent.push({ stream, message });
    return String(this.sent.length);
  }
  async replayEventsAfter(last, { send }) {
    const stream = this.sent[Number(last) - 1]?.stream;
    for (const [index, event] of this.sent.entries()) {
      const real = Object.keys(event.message).length > 0;
      if (event.stream === stream && index >= Number(last) && real) await send(String(index + 1), event.message);
    }
    return stream;
  }
}

async function legacy(request) {
  const known = sessions.get(request.headers.get("mcp-session-id"));
  if (known !== undefined) return known.handleRequest(request);
  if (request.headers.has("mcp-session-id")) {
    return Response.json({ jsonrpc: "2.0", id: null, error: { code: -32001, message: "Session not found" } }, { status: 404 });
  }
  const transport = new sdk.WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore: new Events(),
    retryInterval: 500,
    onsessioninitialized: (id) => void sessions.set(id, transport),
    onsessionclosed: (id) => void sessions.delete(id),
  });
  await makeServer().connect(transport);
  return transport.handleRequest(request);
}

// --- HTTP -----------------------------------------------------------------------------------------

async function answer(request) {
  const refused =
    sdk.hostHeaderValidationResponse(request, sdk.localhostAllowedHostnames()) ??
    sdk.originValidationResponse(request, sdk.localhostAllowedOrigins());
  if (refused) return refused;
  if (era === "dual" && (await sdk.isLegacyRequest(request))) return legacy(request);
  return handler.fetch(request);
}

createServer(async (incoming, outgoing) => {
  const gone = new AbortController();
  outgoing.on("close", () => gone.abort());
  const body = ["GET", "HEAD"].includes(incoming.method) ? undefined : Readable.toWeb(incoming);
  const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
    method: incoming.method, headers: incoming.headers, body, duplex: "half", signal: gone.signal,
  });
  try {
    const response = await answer(request);
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.flushHeaders();
    if (response.body) Readable.fromWeb(response.body).on("error", () => outgoing.destroy()).pipe(outgoing);
    else outgoing.end();
  } catch (error) {
    console.error(error);
    outgoing.destroy();
  }
}).listen(Number(port), "127.0.0.1");
