"""A REST service with an OpenAPI document, used as an MCP server by clients of every kind."""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, NO_LIMITS, Answer, GateProcess, wait_for
from tests.functional.mcp_client import Client
from tests.functional.servers.petstore import PICTURE, Petstore

SERVER = """
[server:pets]
openapi = <servers>/petstore.yaml
url = {url}
header.X-Owner = {key}
forward_headers = X-Language
call_timeout = 2s
deny = delete*
"""

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class PetstoreTests(TestCase):
    """A gate before a service of pets."""

    def setUp(self) -> None:
        """Start both."""
        if find_spec("openapi_spec_validator") is None:
            real.missing("the extra openapi is not installed")
        self.store = Petstore()
        self.addCleanup(self.store.close)
        self.gate = GateProcess(self, GATE + NO_LIMITS + SERVER.replace("{url}", self.store.url))
        self.key = self.gate.add_key("ann")
        self.gate.start()
        self.client = Client(self.gate, "pets", self.key)

    def result(self, tool: str, **arguments: object) -> dict[str, Any]:
        """Call a tool as a legacy client; give the result."""
        found: dict[str, Any] = self.client.call(tool, **arguments).message["result"]
        return found

    def modern(self, method: str, **params: object) -> Answer:
        """Ask as a modern client."""
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": method,
            "params": {**params, "_meta": META},
        }
        fields = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        if "name" in params:
            fields["Mcp-Name"] = str(params["name"])
        return Client(self.gate, "pets", self.key).post(message, **fields)

    def test_tools(self) -> None:
        """Operations are tools, with one schema each; what can not be one, or may not, is not."""
        self.client.initialize()
        told = self.client.request("tools/list").message["result"]["tools"]
        tools = {tool["name"]: tool for tool in told}
        self.assertEqual(
            set(tools), {"listPets", "addPet", "getPet", "get_pets_petId_picture", "slow"}
        )
        limit = tools["listPets"]["inputSchema"]["properties"]["limit"]
        self.assertEqual(limit, {"type": "integer", "exclusiveMinimum": 0})
        pet = tools["addPet"]["inputSchema"]["$defs"]["Pet"]["properties"]
        self.assertEqual(pet["friends"]["items"], {"$ref": "#/$defs/Pet"})
        self.assertEqual(pet["tag"]["type"], ["string", "null"])
        self.assertTrue(tools["getPet"]["annotations"]["readOnlyHint"])

    def test_calls(self) -> None:
        """Calls reach the service with the caller's key, and its answers come back."""
        self.client.initialize()
        added = self.result("addPet", body={"name": "Rex/../x", "tag": "dog"})
        self.assertEqual(added["structuredContent"]["owner"], self.key)
        got = self.result("getPet", petId="Rex/../x")
        self.assertEqual(got["structuredContent"]["tag"], "dog")
        many = self.result("listPets", tag=["dog", "a&b"], limit=5, **{"X-Trace": "t1"})
        self.assertEqual(json.loads(many["content"][0]["text"])[0]["name"], "Rex/../x")
        path, fields = self.store.seen[-1]
        self.assertEqual(path, "/v1/pets?limit=5&tag=dog&tag=a%26b")
        self.assertEqual((fields["x-trace"], fields["x-owner"]), ("t1", self.key))
        self.assertNotIn("authorization", fields)
        picture = self.result("get_pets_petId_picture", petId="Rex")
        self.assertEqual(base64.b64decode(picture["content"][0]["data"]), PICTURE)

    def test_failures(self) -> None:
        """A status that is none of success, bad arguments, and a service that is too slow."""
        self.client.initialize()
        missing = self.result("getPet", petId="nobody")
        self.assertTrue(missing["isError"])
        self.assertIn("HTTP 404", missing["content"][0]["text"])
        self.assertIn("no such pet", missing["content"][0]["text"])
        for arguments in ({}, {"petId": ".."}, {"petId": "x", "more": 1}):
            refused = self.client.call("getPet", **arguments).message
            self.assertEqual(refused["error"]["code"], -32602, refused)
        slow = self.client.call("slow").message
        self.assertEqual(slow["error"]["data"]["reason"], "backend_timeout")

    def test_modern(self) -> None:
        """Modern clients, groups and the OpenAPI face reach it as well."""
        told = self.modern("server/discover").message["result"]
        self.assertEqual(told["instructions"], "Pets, and what is known of them.")
        self.store.pets["Tom"] = {"name": "Tom", "tag": "cat"}
        called = self.modern("tools/call", name="getPet", arguments={"petId": "Tom"})
        self.assertEqual(called.message["result"]["structuredContent"]["tag"], "cat")
        for path in ("/pets/tools/getPet", "/mcp/tools/pets__getPet"):
            answer = self.gate.ask(
                "POST",
                path,
                b'{"petId": "Tom"}',
                Authorization=f"Bearer {self.key}",
                Content_Type="application/json",
                X_Language="cs",
            )
            self.assertEqual(json.loads(answer.body), {"name": "Tom", "tag": "cat"})
        self.assertEqual(self.store.seen[-1][1]["x-language"], "cs")

    def test_gone(self) -> None:
        """A service that is not there is told as such."""
        self.client.initialize()
        self.store.close()
        refused = self.client.call("getPet", petId="x").message
        self.assertIn(
            refused["error"]["data"]["reason"], ("backend_unavailable", "backend_died"), refused
        )

    def test_changed(self) -> None:
        """A document that is broken is refused with its place; the servers go on."""
        document = self.gate.directory / "pets.json"
        document.write_text('{"openapi": "3.1.0", "info": {"title": "x"}}')
        text = self.gate.ini.read_text()
        start = text.index("openapi = ")
        line = text[start : text.index("\n", start)]
        self.gate.ini.write_text(text.replace(line, f"openapi = {document}"))
        ran = self.gate.command("check", str(self.gate.ini), config=False)
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("it is no valid OpenAPI document", ran.stdout + ran.stderr)
        wait_for(lambda: self.gate.get("/ready").status == 200, "it serves")
