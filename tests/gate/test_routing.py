"""Which server a path belongs to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.routing import Routes
from mcpgate.gate.server_hosts import ServerHosts
from mcpgate.http.fields import Fields
from mcpgate.http.heads import RequestHead
from mcpgate.model import ServerSpec, Transport


class RoutesTests(SynchronousTestCase):
    """``/{server}/...`` and ``/servers/{server}/...``."""

    def test_paths(self) -> None:
        """Only the exact name finds a server; encoded, dotted and doubled paths do not."""
        spec = ServerSpec(name="notes", transport=Transport.STDIO)
        routes = Routes([spec])
        self.assertEqual(routes.specs(), [spec])
        for path, rest, is_endpoint in (
            (b"/notes", b"", False),
            (b"/notes/", b"/", False),
            (b"/notes/mcp", b"/mcp", True),
            (b"/notes/mcp/", b"/mcp/", True),
            (b"/notes/mcp/x", b"/mcp/x", False),
            (b"/servers/notes/mcp", b"/mcp", True),
            (b"/servers/notes", b"", False),
        ):
            route = routes.find(path)
            assert route is not None, path
            self.assertEqual((route.spec, route.rest), (spec, rest))
            self.assertEqual(route.is_endpoint, is_endpoint)
        for path in (
            b"/",
            b"/servers",
            b"/servers/",
            b"/Notes/mcp",
            b"//notes/mcp",
            b"/no%74es/mcp",
            b"/./notes/mcp",
            b"/x/../notes/mcp",
            b"/mcp",
            b"/servers/servers/notes/mcp",
        ):
            self.assertIsNone(routes.find(path), path)

    def test_head_again(self) -> None:
        """The same head has the same route until there are other servers."""
        notes = ServerSpec(name="notes", transport=Transport.STDIO)
        routes = Routes([notes])
        head = RequestHead(
            method="GET", path=b"/notes/x", query=None, version=(1, 1), fields=Fields()
        )
        self.assertIsNot(routes.of(head), routes.of(head))
        head.came_again()
        route = routes.of(head)
        self.assertEqual(route, routes.find(b"/notes/x"))
        self.assertIs(routes.of(head), route)
        changed = ServerSpec(name="notes", transport=Transport.HTTP)
        routes.replace([changed])
        route = routes.of(head)
        assert route is not None
        self.assertIs(route.spec, changed)
        routes.replace([])
        self.assertIsNone(routes.of(head))

    def test_hosts(self) -> None:
        """A host that names a server gives all its paths to it, but well-known ones."""
        notes = ServerSpec(name="notes", transport=Transport.STDIO)
        every = ServerSpec(name="mcp", transport=Transport.GROUP)
        routes = Routes([notes, every], ServerHosts(["*.example.org", "mcp-*.example.net"]))
        for host in (b"notes.example.org", b"Mcp-Notes.example.net:8443", b"notes.example.org."):
            for path, is_endpoint, is_sse in (
                (b"/mcp", True, False),
                (b"/sse", False, True),
                (b"/messages", False, True),
                (b"/", False, False),
                (b"/notes/mcp", False, False),
            ):
                route = routes.find(path, host)
                assert route is not None, (host, path)
                self.assertEqual((route.spec, route.rest), (notes, path))
                self.assertEqual((route.is_endpoint, route.is_sse), (is_endpoint, is_sse))
            self.assertIsNone(routes.find(b"/.well-known/oauth-protected-resource", host))
        for other in (b"mcp.example.org", b"x.example.org", b"a.notes.example.org", b"", None):
            route = routes.find(b"/notes/mcp", other)
            assert route is not None
            self.assertEqual(route.rest, b"/mcp")
            self.assertIsNone(routes.find(b"/health", other))
