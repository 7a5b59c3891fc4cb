"""Names of hosts that stand for servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.server_hosts import ServerHosts


class ServerHostsTests(SynchronousTestCase):
    """Patterns with one star."""

    def test_servers(self) -> None:
        """What stands for the star is the server; dots never are, nor the gate's own name."""
        hosts = ServerHosts(["*.a.example", "mcp-*-x.b.example"], own="gate.a.example")
        self.assertTrue(hosts)
        for name, server in (
            ("notes.a.example", "notes"),
            ("mcp-notes-x.b.example", "notes"),
            ("gate.a.example", ""),
            ("a.example", ""),
            (".a.example", ""),
            ("x.y.a.example", ""),
            ("mcp-x.b.example", ""),
            ("mcp-notes.b.example", ""),
            ("", ""),
        ):
            self.assertEqual(hosts.server_of(name), server, name)
        self.assertEqual(hosts.host_of("notes"), "notes.a.example")
        self.assertEqual(hosts.host_of("gate"), "mcp-gate-x.b.example")
        self.assertEqual(ServerHosts().host_of("notes"), "")
        self.assertFalse(ServerHosts())
        self.assertEqual(ServerHosts().server_of("a"), "")

    def test_names_of_certificates(self) -> None:
        """A wildcard where clients understand it, each server's name where they do not."""
        hosts = ServerHosts(["*.a.example", "mcp-*.b.example"])
        self.assertEqual(
            hosts.names(["x", "y"]), ["*.a.example", "mcp-x.b.example", "mcp-y.b.example"]
        )
