"""Servers of other people in containers, behind TLS."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.docker_bed import remove_all
from tests.functional.docker_engine import client, require_engine
from tests.functional.gate_process import NO_LIMITS, GateProcess
from tests.functional.images import node_image, python_image
from tests.functional.mcp_client import Client

CONFIG = f"""\
[gate]
listen = tls:tcp:<port>:interface=127.0.0.1
state_dir = <dir>/state
[auth:keys]
type = static
keys_file = keys
{NO_LIMITS}
[docker]
url = <engine>
gate_id = <gate>
on_stop = stop
files_dir = <dir>/files
"""
TIME = """
[server:time]
image = mcpgate-test/time:1
"""
OUTLINE = """
[server:outline]
image = mcpgate-test/outline:1
transport = http
port = 3000
ready_path = /health
header.X-Outline-API-Key = {key}
env.MCP_TRANSPORT = streamable-http
env.MCP_HOST = 0.0.0.0
env.MCP_PORT = {port}
env.OUTLINE_API_URL = http://127.0.0.1:9/api
"""
EVERYTHING = """
[server:everything]
image = mcpgate-test/everything:1
command = streamableHttp
transport = http
port = 3001
env.PORT = {port}
"""


def packages(name: str) -> Path:
    """Give the ``site-packages`` of a Python part."""
    (found,) = (real.require(name) / "venv" / name / "lib").glob("python3*/site-packages")
    return found


class RealServerTests(TestCase):
    """A real server in a container answers a client through TLS."""

    def gate(self, server: str) -> Client:
        """Start a gate with one server; give a client."""
        engine = require_engine()
        gate_id = "test" + secrets.token_hex(4)
        beside = client(engine)
        self.addCleanup(beside.close)
        self.addCleanup(self.clean, beside, gate_id)
        text = (CONFIG + server).replace("<engine>", engine).replace("<gate>", gate_id)
        gate = GateProcess(self, text)
        key = gate.add_key("ada")
        gate.start()
        self.addCleanup(gate.stop)
        name = server.split("]", maxsplit=1)[0].rpartition(":")[2]
        return Client(gate, name, key)

    def clean(self, beside: Any, gate_id: str) -> None:
        """Nothing is left but what may be; remove it."""
        label = f"mcpgate.gate={gate_id}"
        self.assertEqual(beside.containers(filters={"label": label}), [])
        remove_all(beside, gate_id)

    def maker(self) -> Any:
        """Give a client of the engine that makes images."""
        maker = client(require_engine(), 300.0)
        self.addCleanup(maker.close)
        return maker

    def tools(self, one: Client) -> list[str]:
        """Shake hands and list the tools."""
        answer = one.initialize()
        self.assertEqual(answer.status, 200, answer.body)
        return [tool["name"] for tool in one.request("tools/list").message["result"]["tools"]]

    def test_time(self) -> None:
        """mcp-server-time, over stdio."""
        python_image(self.maker(), "time", packages=packages("servers"), module="mcp_server_time")
        one = self.gate(TIME)
        self.assertIn("get_current_time", self.tools(one))
        answer = one.call("get_current_time", timezone="UTC")
        self.assertIn("UTC", answer.message["result"]["content"][0]["text"])

    def test_outline(self) -> None:
        """mcp-outline, over HTTP; its key goes with each request."""
        python_image(self.maker(), "outline", packages=packages("outline"), module="mcp_outline")
        one = self.gate(OUTLINE)
        self.assertIn("search_documents", self.tools(one))

    def test_everything(self) -> None:
        """server-everything, over HTTP, on node."""
        script = "@modelcontextprotocol/server-everything/dist/index.js"
        modules = real.package("everything")
        node_image(self.maker(), "everything", real.node(), modules, script)
        one = self.gate(EVERYTHING)
        self.assertIn("echo", self.tools(one))
        answer = one.call("echo", message="hello")
        self.assertIn("hello", answer.message["result"]["content"][0]["text"])
