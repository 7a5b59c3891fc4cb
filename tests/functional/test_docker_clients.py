"""
The clients people use, against servers people run, each in a container of its user's own, over TLS.

The wiki that mcp-outline asks is a machine beyond the gate's walls: its address is on a list.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.functional import real
from tests.functional.docker_bed import Outside, remove_all
from tests.functional.docker_engine import asked_for, client, require_engine, require_python
from tests.functional.images import node_image, python_image
from tests.functional.real_clients import CLIENT_LIST
from tests.functional.test_docker_servers import packages
from tests.functional.test_real_clients import GATE, SERVERS, Bed, ClientTestCase, fill

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
header.X-Outline-API-Key = {{key}}
env.MCP_TRANSPORT = streamable-http
env.MCP_HOST = 0.0.0.0
env.MCP_PORT = {{port}}
env.OUTLINE_API_URL = http://{wiki}:8000/api
egress = allow-list
egress_to = {wiki}:8000
"""
EVERYTHING = """
[server:everything]
image = mcpgate-test/everything:1
command = streamableHttp
transport = http
port = 3001
env.PORT = {port}
"""
WIKI = "\nFakeOutline('0.0.0.0', 8000)\nthreading.Event().wait()\n"


class DockerBed(Bed):
    """A gate whose servers are in containers, and the wiki beyond it."""

    def open(self) -> None:
        """Start everything."""
        url = require_engine()
        self.beside = client(url, 300.0)
        self.suite.addCleanup(self.beside.close)
        gate_id = "test" + secrets.token_hex(4)
        self.suite.addCleanup(self.clean, gate_id)
        outside = Outside(self.suite, self.beside, require_python(url), "198.51.100.0/24")
        program = (Path(__file__).parent / "servers" / "fake_outline.py").read_text() + WIKI
        self.far = outside.machine("-c", program)
        self.text = (
            f"{GATE}[docker]\nurl = {url}\ngate_id = {gate_id}\non_stop = stop\n"
            "files_dir = <dir>/files\n"
        )
        super().open()
        self.suite.addCleanup(self.gate.stop)

    def clean(self, gate_id: str) -> None:
        """Remove what may be left; what runs may not."""
        label = f"mcpgate.gate={gate_id}"
        running = self.beside.containers(filters={"label": label})
        remove_all(self.beside, gate_id)
        assert running == [], running

    def time(self, _: str) -> str:
        """Make the image of mcp-server-time; over stdio."""
        there = packages("servers")
        python_image(self.beside, "time", packages=there, module="mcp_server_time")
        return TIME

    def outline(self, _: str) -> str:
        """Make the image of mcp-outline; over HTTP."""
        there = packages("outline")
        python_image(self.beside, "outline", packages=there, module="mcp_outline")
        return OUTLINE.format(wiki=self.far)

    def everything(self, _: str) -> str:
        """Make the image of server-everything; over HTTP, on node."""
        script = "@modelcontextprotocol/server-everything/dist/index.js"
        node_image(self.beside, "everything", real.node(), real.package("everything"), script)
        return EVERYTHING


class ContainerClientTests(ClientTestCase):
    """Servers in containers, one for each user."""

    def setUp(self) -> None:
        """Run only where containers are asked for."""
        asked_for()


def _bed() -> DockerBed:
    every = tuple(one.name for one in CLIENT_LIST)
    bed = DockerBed({})
    sections: dict[str, Callable[[str], str]] = {
        "time": bed.time,
        "outline": bed.outline,
        "everything": bed.everything,
    }
    bed.servers = {
        name: replace(SERVERS[name], section=section, clients=every)
        for name, section in sections.items()
    }
    bed.waiting = {(client, server) for server in bed.servers for client in every}
    return bed


fill(ContainerClientTests, _bed())
