"""A REST service with an OpenAPI document, used as an MCP server by clients of every kind."""

from __future__ import annotations

import base64
import json
from importlib.util import find_spec
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, NO_LIMITS, Answer, GateProcess, wait_for
from tests.functional.mcp_client import Client, events
from tests.functional.servers.petstore import PICTURE, Petstore

SERVER = """
[server:pets]
openapi = <servers>/petstore.yaml
url = {url}
header.X-Owner = {key}
forward_headers = X-Language
call_timeout = 5s
deny = delete*
"""

FETCHED = """
[server:pets]
openapi = {url}
allow_private = on
openapi_refresh = 10s
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


class FetchedTests(TestCase):
    """A gate that fetches the document of a service of pets."""

    def setUp(self) -> None:
        """Start the service; the gate is started by each test."""
        if find_spec("openapi_spec_validator") is None:
            real.missing("the extra openapi is not installed")
        self.store = Petstore()
        self.addCleanup(self.close)
        port = self.store.server_address[1]
        url = f"http://127.0.0.1:{port}/openapi.yaml"
        self.gate = GateProcess(self, GATE + NO_LIMITS + FETCHED.replace("{url}", url))
        self.key = self.gate.add_key("ann")
        self.client = Client(self.gate, "pets", self.key)

    def close(self) -> None:
        """End the service that there is now."""
        self.store.close()

    def tools(self) -> set[str]:
        """Give the names of the tools; none while there is no document."""
        told = self.client.request("tools/list").message.get("result", {"tools": []})
        return {tool["name"] for tool in told["tools"]}

    def status(self) -> dict[str, Any]:
        """Give what ``mcpgate status`` says of the server."""
        (found,) = self.gate.told("status", "--format", "json")
        return dict(found)

    def renew(self) -> None:
        """Have the document asked for now."""
        self.assertEqual(self.gate.command("config", "apply").returncode, 0)

    def test_changed(self) -> None:
        """The document is fetched at the start; clients are told when it is another."""
        self.gate.start()
        self.client.initialize()
        wait_for(lambda: "listPets" in self.tools(), "there are tools")
        self.store.pets["Tom"] = {"name": "Tom", "tag": "cat"}
        called = self.client.call("getPet", petId="Tom").message["result"]
        self.assertEqual(called["structuredContent"], {"name": "Tom", "tag": "cat"})
        together = Client(self.gate, "mcp", self.key)
        together.initialize()
        self.assertTrue(together.request("tools/list").message["result"]["tools"])
        with self.client.listen() as stream, together.listen() as joined:
            self.store.document = self.store.document.replace(b"listPets", b"allPets")
            self.renew()
            for one in (stream, joined):
                told = next(events(one))
                self.assertEqual(told["method"], "notifications/tools/list_changed")
        self.assertIn("allPets", self.tools())
        names = [tool["name"] for tool in together.request("tools/list").message["result"]["tools"]]
        self.assertIn("pets__allPets", names)
        self.renew()
        wait_for(lambda: 304 in self.store.documents, "it is asked for by its name")
        self.assertEqual(self.status()["document"]["state"], "fetched")

    def test_down(self) -> None:
        """A start without the service has the tools of last time; later it is taken up again."""
        self.gate.start()
        self.client.initialize()
        wait_for(lambda: "listPets" in self.tools(), "there are tools")
        self.gate.stop()
        self.store.close()
        self.gate.start()
        self.assertIn("listPets", self.tools())
        wait_for(lambda: self.status()["error"], "it is told")
        self.assertIn("can not be reached", self.status()["error"])
        doctor = self.gate.command("doctor", str(self.gate.ini), config=False)
        self.assertIn("WARN  server pets: its OpenAPI document of", doctor.stdout)
        self.assertIn("The copy of an earlier start serves", self.gate.log_text())
        port = self.store.server_address[1]
        self.store = Petstore(port)
        self.store.document = self.store.document.replace(b"listPets", b"allPets")
        self.renew()
        wait_for(lambda: "allPets" in self.tools(), "the service is back")

    def test_broken(self) -> None:
        """A broken document leaves the old one, says why, and costs the gate nothing else."""
        good = self.store.document
        self.store.document = b"openapi: 3.0.3\npaths: 3\n"
        self.gate.start()
        wait_for(lambda: "no valid OpenAPI" in self.status()["error"], "it is told")
        self.assertEqual(self.status()["state"], "failed")
        self.client.initialize()
        refused = self.client.request("tools/list").message
        self.assertEqual(refused["error"]["data"]["reason"], "backend_unavailable")
        self.store.document = good
        self.renew()
        wait_for(lambda: "listPets" in self.tools(), "it is mended")
        self.store.document = good[:1000]
        self.renew()
        wait_for(lambda: self.status()["error"], "it is told")
        self.assertIn("listPets", self.tools())
        self.assertIn("serves on: ", self.status()["error"])
        more = FETCHED.replace("pets", "more").replace("{url}", "http://127.0.0.1:9/x")
        text = self.gate.ini.read_text()
        self.gate.ini.write_text(text + more)
        ran = self.gate.command("config", "apply")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("[server:more] openapi: 127.0.0.1:9 can not be reached", ran.stderr)
        self.gate.ini.write_text(text)
