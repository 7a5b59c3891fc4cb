// A client for the matrix of eras on the TypeScript SDK 1 (legacy) or 2 (modern):
//   node matrix.mjs 1|2 NODE_MODULES TASK
// See matrix.py for the task and what is printed.
import { createRequire } from "node:module";
import { setTimeout as wait } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [version, modules, text] = process.argv.slice(2);
const task = JSON.parse(text);
const find = createRequire(`${modules}/any.js`);
const load = (name) => import(pathToFileURL(find.resolve(name)).href);
const FEATURE_MS = 8000;
const WATCHED = "test://watched-resource";
const KINDS = ["tools", "prompts", "resources"];
const modern = version === "2";

let sdk;
if (modern) {
  sdk = await load("@modelcontextprotocol/client");
} else {
  const [client, http, types] = await Promise.all(
    ["client/index.js", "client/streamableHttp.js", "types.js"].map((name) => load(`@modelcontextprotocol/sdk/${name}`)),
  );
  sdk = { ...client, ...http, ...types };
}

// Version 1 names what it handles by schemas.
const SCHEMAS = {
  "elicitation/create": "ElicitRequestSchema",
  "sampling/createMessage": "CreateMessageRequestSchema",
  "roots/list": "ListRootsRequestSchema",
  "notifications/message": "LoggingMessageNotificationSchema",
  "notifications/resources/updated": "ResourceUpdatedNotificationSchema",
  "notifications/tools/list_changed": "ToolListChangedNotificationSchema",
  "notifications/prompts/list_changed": "PromptListChangedNotificationSchema",
  "notifications/resources/list_changed": "ResourceListChangedNotificationSchema",
};
const named = (method) => (modern ? method : sdk[SCHEMAS[method]]);

const capabilities = { sampling: {}, elicitation: { form: {} }, roots: { listChanged: true } };
const client = new sdk.Client(
  { name: "matrix", version: "1" },
  { capabilities, ...(modern ? { versionNegotiation: { mode: "auto" } } : {}) },
);
const logged = [];
const noticed = [];
client.setRequestHandler(named("elicitation/create"), () => ({
  action: "accept", content: { username: "ann", email: "ann@example.org" },
}));
client.setRequestHandler(named("sampling/createMessage"), () => ({
  role: "assistant", content: { type: "text", text: "Paris" }, model: "none",
}));
client.setRequestHandler(named("roots/list"), () => ({ roots: [{ uri: "file:///matrix", name: "matrix" }] }));
client.setNotificationHandler(named("notifications/message"), ({ params }) => void logged.push(params.data));
for (const method of Object.keys(SCHEMAS).slice(4)) {
  client.setNotificationHandler(named(method), () => void noticed.push(method));
}

function check(seen, wanted) {
  if (JSON.stringify(seen) !== JSON.stringify(wanted)) throw new Error(`${JSON.stringify(seen)} is not ${JSON.stringify(wanted)}`);
}
function checkHolds(whole, part) {
  if (!whole.includes(part)) throw new Error(`${part} is not in ${JSON.stringify(whole).slice(0, 100)}`);
}
async function until(look) {
  while (!(await look())) await wait(20);
}
// Version 2 asks for log lines with each request; version 1 for the session.
const meta = modern ? { "io.modelcontextprotocol/logLevel": "info" } : {};
async function say(name, args = {}, options = {}) {
  const result = await client.callTool({ name, arguments: args, _meta: meta }, ...(modern ? [options] : [undefined, options]));
  check(result.isError ?? false, false);
  return result.content[0].text;
}
async function names(kind) {
  const list = { tools: "listTools", prompts: "listPrompts", resources: "listResources" }[kind];
  return (await client[list]())[kind].map((entry) => entry.name);
}
// Open what carries a notification, do something, and wait for it.
async function heard(filter, method, act) {
  const listening = modern ? await client.listen(filter) : undefined;
  noticed.length = 0;
  await act();
  await until(() => noticed.includes(method));
  await listening?.close();
}

const FEATURES = {
  async tools() {
    checkHolds(await names("tools"), "test_simple_text");
    checkHolds(await say("test_simple_text"), "simple text");
  },
  async progress() {
    const seen = [];
    await say("test_tool_with_progress", {}, { onprogress: ({ progress }) => seen.push(progress) });
    await until(() => seen.length >= 3);
    check(seen, [0, 50, 100]);
  },
  async logging() {
    if (!modern) await client.setLoggingLevel("info");
    await say("test_tool_with_logging");
    await until(() => logged.length >= 3);
    check(logged[0], "Tool execution started");
  },
  async cancellation() {
    const mark = `${task.revision}-${process.pid}`;
    const stop = new AbortController();
    const call = say("test_slow", { mark }, { signal: stop.signal }).catch(() => "gone");
    await until(async () => (await say("test_slow_state", { mark })) === "running");
    stop.abort("enough");
    await until(async () => (await say("test_slow_state", { mark })) === "cancelled");
    await call;
  },
  async elicitation() {
    checkHolds(await say("test_elicitation", { message: "Who?" }), "ann@example.org");
  },
  async sampling() {
    checkHolds(await say("test_sampling", { prompt: "Where?" }), "Paris");
  },
  async roots() {
    checkHolds(await say("test_input_required_result_list_roots"), "file:///matrix");
  },
  async prompts() {
    checkHolds(await names("prompts"), "test_simple_prompt");
    const got = await client.getPrompt({ name: "test_prompt_with_arguments", arguments: { arg1: "one", arg2: "two" } });
    checkHolds(got.messages[0].content.text, "arg2='two'");
  },
  async resources() {
    checkHolds((await client.listResources()).resources.map(({ uri }) => uri), WATCHED);
    check((await client.listResourceTemplates()).resourceTemplates[0].uriTemplate, "test://template/{id}/data");
    checkHolds((await client.readResource({ uri: "test://template/7/data" })).contents[0].text, "Data for ID: 7");
  },
  async subscription() {
    if (!modern) await client.subscribeResource({ uri: WATCHED });
    await heard({ resourceSubscriptions: [WATCHED] }, "notifications/resources/updated", () => say("test_touch"));
  },
  async changes() {
    for (const kind of KINDS) {
      const before = await names(kind);
      const act = () => say(`test_trigger_${kind.slice(0, -1)}_change`);
      await heard({ [`${kind}ListChanged`]: true }, `notifications/${kind}/list_changed`, act);
      const after = await names(kind);
      check([...new Set(after).symmetricDifference(new Set(before))], ["test_grown"]);
    }
  },
  async completion() {
    const ref = { type: "ref/prompt", name: "test_prompt_with_arguments" };
    const found = await client.complete({ ref, argument: { name: "arg1", value: "par" } });
    check(found.completion.values, ["paris", "park", "party"]);
  },
};

const outcomes = {};
function tell(error) {
  for (const feature of task.features) outcomes[feature] ??= `${error?.name}: ${error?.message}`.slice(0, 200);
  console.log(JSON.stringify(outcomes));
  process.exit(0);
}
setTimeout(() => tell(new Error("nothing came in time")), task.seconds * 1000);
try {
  const transport = new sdk.StreamableHTTPClientTransport(new URL(task.url));
  await client.connect(transport);
  check(modern ? client.getNegotiatedProtocolVersion() : transport.protocolVersion, task.revision);
  await wait(500);
  for (const feature of task.features) {
    const late = wait(FEATURE_MS, "late", { ref: false }).then(() => Promise.reject(new Error("nothing came in time")));
    try {
      await Promise.race([FEATURES[feature](), late]);
      outcomes[feature] = "ok";
    } catch (error) {
      outcomes[feature] = `${error?.name}: ${error?.message}`.slice(0, 200);
    }
    late.catch(() => {});
  }
  tell();
} catch (error) {
  tell(error);
}
