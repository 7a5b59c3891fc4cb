"""Tests of mcpgate.config.summary."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.summary import as_dict, as_text
from tests.config.writing import BASE, read

TEXT = BASE + (
    "env.A = ${TOKEN}\nidle_stop = 0\nmemory = 0\n"
    "[server:far]\nurl = https://far.example/mcp?key=${TOKEN}\nrate = 5/s\nera = modern\n"
    "[server:both]\nurl = https://both.example/mcp\nera = dual\n"
    "[auth:r]\ntype = remote\nurl = https://auth.example/?${TOKEN}\nheader.A = {key}\n"
    "servers = far\n[auth:all]\ntype = none\n"
    "[admin]\nlisten = tcp:9:interface=127.0.0.1\nuser = a\npassword = ${TOKEN}\n"
)


class SummaryTests(SynchronousTestCase):
    """What ``mcpgate check`` shows of a good file."""

    def test_text(self) -> None:
        """Listeners, sources, limits and servers are shown."""
        text = as_text(read(TEXT.replace("[gate]", "[gate]\npublic_url = https://a.example")))
        for line in (
            "/etc/mcpgate/gate.ini is good.",
            "  tcp:8080:interface=127.0.0.1",
            "  tcp:9:interface=127.0.0.1 (admin)",
            "  as https://a.example",
            "  keys: static /etc/mcpgate/keys, for all servers",
            "  r: remote https://auth.example/, for far",
            "  all: none, for all servers",
            "  notes: stdio, runs notes, per-key, memory without limit, never stops",
            "  far: http, at https://far.example/mcp, shared, modern era, 5/s burst 10",
            "  both: http, at https://both.example/mcp, shared, both eras",
        ):
            self.assertIn(line, text.splitlines())
        self.assertIn("  none", as_text(read(BASE.partition("[server")[0])).splitlines())

    def test_dict(self) -> None:
        """Programs get the same as JSON."""
        summary = json.loads(json.dumps(as_dict(read(TEXT))))
        self.assertEqual([one["name"] for one in summary["servers"]], ["notes", "far", "both"])
        self.assertEqual([one["type"] for one in summary["auth"]], ["static", "remote", "none"])

    def test_no_secret(self) -> None:
        """Nothing that was put in from elsewhere is shown."""
        config = read(TEXT)
        self.assertNotIn("canary", as_text(config) + json.dumps(as_dict(config)))
