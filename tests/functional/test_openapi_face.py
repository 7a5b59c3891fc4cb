"""Tools as REST: what makes clients of OpenAPI documents, and what looks for faults."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, HTTP, NO_LIMITS, STDIO, Answer, GateProcess
from tests.functional.test_together import EVERYTHING

CLIENT = Path(__file__).parent / "clients" / "generated.py"


class FaceTests(TestCase):
    """A gate with servers of several makers and transports."""

    def setUp(self) -> None:
        """Start it."""
        real.require("servers", "everything", "openapi", "mcp2")
        text = GATE.replace("[auth:keys]", "allowed_origins = https://ui.example\n[auth:keys]", 1)
        servers = (
            f"\n[server:time]\ncommand = {real.python('servers')} -m mcp_server_time\n"
            f"[server:everything]\n"
            f"command = {real.node()} {real.package('everything') / EVERYTHING} stdio\n"
        )
        yardstick = f"command = {real.python('mcp2')} <servers>/yardstick2.py modern"
        servers += (
            f"[server:new]\n{yardstick} stdio\nera = modern\n"
            f"[server:newer]\n{yardstick} http {{port}}\nera = modern\ntransport = http\n"
        )
        self.gate = GateProcess(self, text + NO_LIMITS + STDIO + HTTP + servers)
        self.key = self.gate.add_key("ann")
        self.gate.start()

    def document(self, server: str) -> Path:
        """Get the document of a server into a file."""
        answer = self.gate.get(f"/{server}/openapi.json", X_API_Key=self.key)
        self.assertEqual(answer.status, 200, answer.body)
        path = self.gate.directory / f"{server}.json"
        path.write_bytes(answer.body)
        return path

    def call(self, path: str, **arguments: object) -> Answer:
        """Call a tool."""
        return self.gate.ask(
            "POST",
            path,
            json.dumps(arguments).encode(),
            Authorization=f"Bearer {self.key}",
            Content_Type="application/json",
            Origin="https://ui.example",
        )

    def run_part(self, *command: str, told: object = None) -> str:
        """Run a program of the part ``openapi``; give what it printed."""
        ran = subprocess.run(
            command,
            capture_output=True,
            check=False,
            text=True,
            input=json.dumps(told),
            cwd=self.gate.directory,
            timeout=120,
        )
        self.assertEqual(ran.returncode, 0, (ran.stdout + ran.stderr)[-3000:])
        return ran.stdout

    def test_every_server(self) -> None:
        """The documents of servers of every kind, and of all together, are valid."""
        paths = [self.document(name) for name in ("io", "web", "time", "everything", "mcp")]
        self.run_part(
            real.python("openapi"), "-m", "openapi_spec_validator", *(str(path) for path in paths)
        )
        every = json.loads(paths[-1].read_text())["paths"]
        for tool in ("io__echo", "web__echo", "time__get_current_time", "everything__echo"):
            self.assertIn(f"/tools/{tool}", every)

    def test_calls(self) -> None:
        """Tools of servers of every kind answer with plain JSON, to pages in browsers as well."""
        self.assertEqual(json.loads(self.call("/io/tools/echo", message="a").body), "echo: a")
        self.assertIn("a", json.loads(self.call("/web/tools/echo", message="a").body))
        together = self.call("/mcp/tools/time__get_current_time", timezone="UTC")
        self.assertEqual(json.loads(together.body)["timezone"], "UTC")
        self.assertEqual(together.fields["Access-Control-Allow-Origin"], "https://ui.example")
        image = json.loads(self.call("/everything/tools/get-tiny-image").body)
        self.assertTrue(any(str(one).startswith("data:image/png;base64,") for one in image), image)

    def test_modern(self) -> None:
        """Servers of the modern era alone serve too, also where arguments stand in HTTP fields."""
        for path in ("/new/tools/", "/newer/tools/", "/mcp/tools/new__", "/mcp/tools/newer__"):
            said = self.call(path + "test_x_mcp_header", region="eu")
            self.assertEqual((said.status, said.body), (200, b'"here"'), path)
            asks = self.call(path + "test_elicitation", message="Who?")
            self.assertEqual((asks.status, reason(asks)), (422, "tool_asks"), path)

    def test_page(self) -> None:
        """The page for people shows the tools."""
        answer = self.gate.get("/everything/docs", Authorization=f"Bearer {self.key}")
        self.assertEqual(answer.status, 200)
        self.assertIn(b"/everything/tools/echo", answer.body)

    def test_refusals(self) -> None:
        """A tool that fails, one that is not there, one that dies, and no key."""
        failed = self.call("/time/tools/get_current_time", timezone="Nowhere")
        self.assertEqual((failed.status, reason(failed)), (422, "tool_failed"))
        unknown = self.call("/time/tools/nope")
        self.assertEqual((unknown.status, reason(unknown)), (400, "invalid_params"))
        died = self.call("/io/tools/die")
        self.assertEqual((died.status, reason(died)), (502, "backend_died"))
        self.assertEqual(self.gate.get("/time/openapi.json").status, 401)

    def test_generated_client(self) -> None:
        """A client made from the document calls tools and gets values of its own classes."""
        settings = self.gate.directory / "client.yml"
        settings.write_text("post_hooks: []\n")
        told = self.run_part(
            real.script("openapi", "openapi-python-client"),
            "generate",
            f"--path={self.document('time')}",
            f"--output-path={self.gate.directory / 'time_client'}",
            "--meta=none",
            f"--config={settings}",
        )
        self.assertNotIn("WARNING", told)
        seen: dict[str, Any] = json.loads(
            self.run_part(
                real.python("openapi"),
                str(CLIENT),
                told={
                    "directory": str(self.gate.directory),
                    "url": f"http://127.0.0.1:{self.gate.plain_port}/time",
                    "key": self.key,
                },
            )
        )
        self.assertEqual(seen["kind"], "ConvertTimeOutput")
        self.assertEqual(seen["good"]["target"]["timezone"], "Asia/Tokyo")
        self.assertEqual(seen["bad"], [422, "tool_failed"])

    def test_schemathesis(self) -> None:
        """Whatever is sent to the tools of mcp-server-time, nothing is answered with 5xx."""
        told = self.run_part(
            real.script("openapi", "st"),
            "run",
            str(self.document("time")),
            f"--url=http://127.0.0.1:{self.gate.plain_port}/time",
            f"--header=Authorization: Bearer {self.key}",
            "--checks=not_a_server_error",
            "--max-examples=20",
            "--no-color",
            "--seed=1",
        )
        self.assertIn("Tested: 2", told)


def reason(answer: Answer) -> str:
    """Give the reason of a refusal."""
    return str(json.loads(answer.body)["error"]["reason"])
