"""Which server a path belongs to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.routing import Routes
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
