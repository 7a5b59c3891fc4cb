"""What the endpoint demands of modern requests, and which era a message is of."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.mcp.modern import META_VERSION, REMOVED
from mcpgate.model import Rate
from tests.web.endpoint_kit import INIT, World, notification, request
from tests.web.fake_inbound import FakeInbound
from tests.web.modern_kit import VERSION, ModernWorld, message, meta

LEGACY = b"2025-11-25"


def code_of(answer: FakeInbound) -> tuple[int, int]:
    """Give status and JSON-RPC code."""
    return answer.status, answer.json["error"]["code"]


class ClassificationTests(SynchronousTestCase):
    """Header and body together tell the era."""

    def test_contradictions(self) -> None:
        """Whoever says two things is served by neither era, under the request's id."""
        world = ModernWorld()
        listing, calling = (b"mcp-method", b"tools/list"), (b"mcp-method", b"tools/call")
        for body, version, more, code in (
            (message("tools/list", 5), b"", (listing,), -32020),
            (message("tools/list", 5), LEGACY, (listing,), -32020),
            (message("tools/list", 5), b"1999-01-01", (listing,), -32020),
            (message("tools/list", 5), VERSION, (), -32020),
            (message("tools/list", 5), VERSION, (listing, listing), -32020),
            (message("tools/list", 5), VERSION, (calling,), -32020),
            (
                message("tools/call", 5, name="a"),
                VERSION,
                ((b"mcp-method", b"tools/call"),),
                -32020,
            ),
            (request("tools/list", 5), VERSION, (listing,), -32602),
            (request("tools/list", 5, _meta={}), VERSION, (listing,), -32602),
            (request("tools/list", 5, _meta={META_VERSION: "2026-07-28"}), VERSION, (), -32602),
            (request("tools/list", 5, _meta=meta(version="x")), VERSION, (listing,), -32020),
            ({**INIT, "id": 5}, VERSION, (), -32020),
        ):
            answer = world.post(body, version=version, more=more)
            self.assertEqual((code_of(answer), answer.json["id"]), ((400, code), 5), body)
        self.assertEqual(world.pool.instances, [])
        self.assertEqual(world.leaks(), {})

    def test_an_unknown_revision(self) -> None:
        """It is answered with those that are served."""
        body = request("tools/list", 3, _meta=meta(version="2027-01-01"))
        answer = ModernWorld().post(
            body, version=b"2027-01-01", more=((b"mcp-method", b"tools/list"),)
        )
        self.assertEqual(code_of(answer), (400, -32022))
        data = answer.json["error"]["data"]
        self.assertEqual(data["supported"], ["2026-07-28"])
        self.assertEqual(data["requested"], "2027-01-01")

    def test_only_post(self) -> None:
        """There are no sessions to listen to or to delete."""
        world = ModernWorld()
        for method in ("GET", "DELETE"):
            answer = world.ask(method, session="gate-1", version=VERSION)
            self.assertEqual((answer.status, answer.fields[b"allow"]), (405, b"POST"))

    def test_only_one_request(self) -> None:
        """Arrays and answers are of the other era."""
        world = ModernWorld()
        bodies: list[Any] = [
            [message("tools/list")],
            {"jsonrpc": "2.0", "id": 1, "result": {}},
        ]
        for body in bodies:
            self.assertEqual(code_of(world.post(body, version=VERSION)), (400, -32600))

    def test_notifications(self) -> None:
        """They are taken and go nowhere; a false header is refused."""
        world = ModernWorld()
        told = notification("notifications/cancelled", requestId=1)
        answer = world.post(told, version=VERSION)
        self.assertEqual((answer.status, answer.body), (202, b""))
        wrong = world.post(told, version=VERSION, more=((b"mcp-method", b"tools/call"),))
        self.assertEqual(code_of(wrong), (400, -32020))
        self.assertEqual(world.pool.instances, [])

    def test_methods_of_the_other_era(self) -> None:
        """They are unknown, whatever the server would say."""
        world = ModernWorld()
        for method in REMOVED:
            self.assertEqual(code_of(world.call(method)), (404, -32601))
        self.assertEqual(world.pool.instances, [])

    def test_sessions_are_not_looked_at(self) -> None:
        """An id or an event id that comes with a request means nothing, and none is given."""
        world = ModernWorld()
        answer = world.call(more=((b"mcp-session-id", b"x"), (b"last-event-id", b"7")))
        sent = world.server.take()
        self.assertNotIn(b"mcp-session-id", sent.fields)
        self.assertNotIn(b"last-event-id", sent.fields)
        sent.json({"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}, session=b"theirs")
        self.assertEqual(answer.json["result"], {"a": 1})
        self.assertNotIn(b"mcp-session-id", answer.fields)

    def test_attacks_on_the_body(self) -> None:
        """What two readers could take for two things is refused before anybody is asked."""
        world = ModernWorld()
        start = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"a":'
        for body, code in (
            (start + b'"\\ud800"}}', -32700),
            (start + b"[" * 100 + b"]" * 100 + b"}}", -32700),
            (start + b"NaN}}", -32700),
            (start + b"1e999}}", -32700),
            (start + b'1,"a":2}}', -32600),
            (b"\xef\xbb\xbf" + start + b"1}}", -32700),
        ):
            answer = world.post(body, version=VERSION, more=((b"mcp-method", b"tools/list"),))
            self.assertEqual(code_of(answer), (400, code), body[:80])
        self.assertEqual(world.pool.instances, [])


class LimitTests(SynchronousTestCase):
    """What modern requests cost."""

    def test_refusals_are_told_with_200(self) -> None:
        """Clients drop everything on 429: the call is told under its id."""
        world = ModernWorld(rate=Rate(0.001, 10.0))
        world.call()
        answer = world.call(id="b")
        self.assertEqual((code_of(answer), answer.json["id"]), ((200, -31006), "b"))
        self.assertIn(b"retry-after", answer.fields)

    def test_discovery_is_never_refused(self) -> None:
        """Refused, a client would take the server for one of the other era."""
        world = ModernWorld(rate=Rate(0.001, 10.0), concurrent=1)
        world.call()
        world.call()
        answer = world.call("server/discover")
        self.assertEqual(answer.status, 0)
        world.server.waiting[-1].result(supportedVersions=["2026-07-28"], ttlMs=0)
        self.assertEqual(answer.status, 200)

    def test_a_server_that_is_down_is_no_legacy_server(self) -> None:
        """Discovery fails with 503, other calls within 200."""
        world = ModernWorld()
        world.pool.error = BackendUnavailable()
        self.assertEqual(code_of(world.call("server/discover")), (503, -31001))
        self.assertEqual(code_of(world.call("tools/list")), (200, -31001))
        self.assertEqual(world.leaks(), {})

    def test_places_are_given_back(self) -> None:
        """Whether the request was answered or its client went."""
        world = ModernWorld(concurrent=1)
        first = world.call()
        self.assertEqual(code_of(world.call()), (200, -31005))
        first.go()
        second = world.call()
        world.server.waiting[-1].result(a=1)
        self.assertEqual(second.status, 200)
        self.assertEqual(world.leaks(), {})

    def test_legacy_servers_make_clients_fall_back(self) -> None:
        """Without a bridge a probe gets the 400 that leads to initialize."""
        answer = World().post(
            message("server/discover", 5),
            version=VERSION,
            more=((b"mcp-method", b"server/discover"),),
        )
        self.assertEqual((code_of(answer), answer.json["id"]), ((400, -32600), 5))
