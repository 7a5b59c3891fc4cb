"""Tests of the pages that need no tree: they answer to the byte what the tree answers."""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import ip_network

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.interfaces import IInbound
from mcpgate.model import Secret
from mcpgate.telemetry.meters import Meters
from mcpgate.web.pages.admin import AdminView
from mcpgate.web.pages.admin_access import AdminAccess, AdminUsers
from mcpgate.web.pages.first import PAGES, FirstPages
from mcpgate.web.pages.tree import GateTree
from mcpgate.web.wire.klein_channel import ResourceServer
from tests.web.front_kit import Door

LOGIN = b"Authorization: Basic " + b64encode(b"admin:right") + b"\r\n"


class FirstPagesTests(SynchronousTestCase):
    """`FirstPages` beside `GateTree`."""

    def setUp(self) -> None:
        """Make both."""
        self.unready: list[str] = []
        self.waits = 0.0
        self.broken = False
        self.wrong: list[str] = []
        self.passed_on: list[bytes] = []
        self.serve()

    def serve(self, *, allow: str = "", users: bool = True) -> None:
        """Make them anew."""

        def metrics() -> Deferred[bytes]:
            return fail(RuntimeError("canary")) if self.broken else succeed(b"mcpgate_up 1\n")

        view = AdminView(
            version="1",
            started_at=0.0,
            wall=lambda: 1.0,
            meters=Meters(),
            unready=lambda: self.unready,
            metrics=metrics,
        )
        access = AdminAccess(
            users=AdminUsers({"admin": Secret("right")} if users else {}, b"pepper"),
            allow=[ip_network(allow)] if allow else [],
            held_back=lambda _: self.waits,
            wrong=self.wrong.append,
        )
        self.tree, self.first = Door(), Door()
        tree = GateTree(view, access, make_id=lambda: "r-made", realm='my "gate"')
        server = ResourceServer(tree.resource(), clock=self.tree.clock)
        self.tree.factory.dispatch = server.serve

        def rest(inbound: IInbound) -> None:
            self.passed_on.append(inbound.head.path)
            server.serve(inbound)

        pages = FirstPages(view, access, realm='my "gate"', rest=rest)
        self.first.factory.dispatch = pages.serve

    def ask(self, door: Door, path: bytes, method: bytes, fields: bytes) -> list[bytes]:
        """Ask one of them; fields in their order of names, and the body."""
        end = door.send(b"%b %b HTTP/1.1\r\nHost: gate\r\n%b\r\n" % (method, path, fields))
        head, _, body = end.value().partition(b"\r\n\r\n")
        head = re.sub(rb"(?i)\r\n(date|x-request-id):[^\r]*", b"", head)
        return [*sorted(head.lower().split(b"\r\n")), re.sub(rb'"id\d+"', b'"id"', body)]

    def same(
        self, path: bytes, method: bytes = b"GET", fields: bytes = b"", *, direct: bool = True
    ) -> bytes:
        """Ask both for the same; give status line and body."""
        self.passed_on.clear()
        theirs, ours = (self.ask(door, path, method, fields) for door in (self.tree, self.first))
        self.assertEqual(ours, theirs, path)
        self.assertEqual(self.passed_on, [] if direct else [path], path)
        return b"\n".join(line for line in ours if line.startswith(b"http/")) + b"\n" + ours[-1]

    def test_health(self) -> None:
        """``/``, ``/health`` and ``/ready``, whole or only their heads."""
        for method in (b"GET", b"HEAD"):
            for path in (b"/", b"/health", b"/ready"):
                self.assertIn(b" 200 ", self.same(path, method))
        self.assertIn(b'"hint"', self.same(b"/", fields=b"Accept: application/json\r\n"))
        self.unready.append("starting")
        self.assertIn(b'["starting"]', self.same(b"/ready"))

    def test_unknown(self) -> None:
        """What is no page is not found, whatever is done with it."""
        for path in (b"/nothing", b"/.well-known/x", b"/healthy", b"/metrics.txt", b"/a/../b"):
            self.assertIn(b" 404 ", self.same(path))
        self.assertIn(b" 404 ", self.same(b"/.well-known/x", b"PUT"))

    def test_left_to_the_tree(self) -> None:
        """What only the tree has, and what is unusual, is handed over."""
        for path in (b"/stats", b"/%68ealth", b"//health", b"/health/", b"/metrics/x"):
            self.same(path, direct=False)
        self.assertIn(b" 405 ", self.same(b"/health", b"POST", direct=False))
        self.same(
            b"/health", fields=b"Content-Length: 0\r\nConnection: close, x-a\r\n", direct=False
        )
        self.same(b"/metrics", fields=b"Connection: authorization\r\n" + LOGIN, direct=False)

    def test_metrics(self) -> None:
        """``/metrics`` is for those who may see it."""
        self.assertIn(b" 401 ", self.same(b"/metrics"))
        self.assertIn(b"mcpgate_up", self.same(b"/metrics", fields=LOGIN))
        wrong = b"Authorization: Basic " + b64encode(b"admin:wrong") + b"\r\n"
        self.assertIn(b" 401 ", self.same(b"/metrics", fields=wrong))
        self.assertEqual(self.wrong, ["192.0.2.1"] * 2)
        self.waits = 3.0
        self.assertIn(b" 429 ", self.same(b"/metrics", fields=wrong))
        self.serve(allow="192.0.2.0/24")
        self.assertIn(b" 200 ", self.same(b"/metrics"))
        self.serve(allow="198.51.100.0/24")
        self.assertIn(b" 404 ", self.same(b"/metrics"))
        self.serve(allow="192.0.2.0/24", users=False)
        self.assertIn(b" 200 ", self.same(b"/metrics", fields=b"Via: 1.1 proxy\r\n"))

    def test_broken(self) -> None:
        """A page that fails is 500, without a word of what happened."""
        self.broken = True
        told = self.same(b"/metrics", fields=LOGIN)
        self.assertIn(b" 500 ", told)
        self.assertNotIn(b"canary", told)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_every_page_is_known(self) -> None:
        """The first segments of everything the tree answers are known."""
        rules = {rule.rule.split("/")[1] for rule in GateTree.app.url_map.iter_rules()}
        self.assertEqual({rule.encode() for rule in rules} - {b".well-known"}, PAGES)
