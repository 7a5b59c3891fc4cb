"""Who carries modern requests to a server, and how that is found out."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendTimeout, BackendUnavailable
from mcpgate.model import Eras, Transport
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.modern_kit import ModernWorld


def code_of(answer: FakeInbound) -> tuple[int, int]:
    """Give status and JSON-RPC code."""
    return answer.status, answer.json["error"]["code"]


class ProbeTests(SynchronousTestCase):
    """A server of which nothing is known."""

    def ask(self, world: ModernWorld) -> tuple[FakeInbound, Sent]:
        """Send a request; gives its answer, and the probe."""
        answer = world.call(id="c")
        sent = world.server.take()
        assert sent.message["method"] == "server/discover"
        return answer, sent

    def test_a_modern_server(self) -> None:
        """It is asked once, and everybody is served."""
        world = ModernWorld(era=Eras.AUTO)
        answer, probe = self.ask(world)
        other = world.call(id="d")
        self.assertEqual(probe.message["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "mcpgate")  # fmt: skip  # noqa: E501
        probe.result(supportedVersions=["2026-07-28"])
        for waiting, text in ((answer, "a"), (other, "b")):
            world.server.take().result(a=text)
            self.assertEqual(waiting.json["result"], {"a": text})
        world.call(id="e")
        self.assertEqual(world.server.take().message["method"], "tools/call")
        self.assertTrue(world.eras.known(world.spec).modern)

    def test_a_legacy_server(self) -> None:
        """Its clients fall back, and it is not asked again."""
        world = ModernWorld(era=Eras.AUTO)
        for status, body in (
            (400, {"code": -32600, "message": "Missing session ID"}),
            (404, None),
            (405, None),
        ):
            world.eras.note(world.spec, modern=None)
            world = ModernWorld(era=Eras.AUTO)
            answer, probe = self.ask(world)
            if body is None:
                probe.empty(status)
            else:
                probe.json({"jsonrpc": "2.0", "id": "server-error", "error": body}, status)
            self.assertEqual((code_of(answer), answer.json["id"]), ((400, -32600), "c"))
            self.assertEqual(code_of(world.call()), (400, -32600))
            self.assertEqual(len(world.server.all), 1)
            self.assertEqual(world.leaks(), {})

    def test_who_can_not_be_asked(self) -> None:
        """Nothing is concluded; discovery is told with 5xx, calls within 200."""
        for how in ("503", "429", "401 in words", "timeout", "down"):
            world = ModernWorld(era=Eras.AUTO)
            if how == "down":
                world.pool.error = BackendUnavailable()
            answers = [world.call("server/discover", "c"), world.call("tools/list", "c")]
            if how == "503":
                world.server.take().empty(503)
            elif how == "429":
                world.server.take().empty(429)
            elif how == "401 in words":
                error = {"code": -32600, "message": "who?"}
                world.server.take().json({"jsonrpc": "2.0", "id": None, "error": error}, 401)
            elif how == "timeout":
                world.server.take().fail(BackendTimeout())
            statuses = [answer.status for answer in answers]
            self.assertGreaterEqual(statuses[0], 500, how)
            self.assertEqual(statuses[1], 200)
            self.assertEqual({answer.json["id"] for answer in answers}, {"c"})
            self.assertIdentical(world.eras.known(world.spec).modern, None)
            self.assertEqual(world.leaks(), {})

    def test_who_never_answers(self) -> None:
        """A server that only keeps its stream alive is waited for as long as for a handshake."""
        world = ModernWorld(era=Eras.AUTO)
        answer, probe = self.ask(world)
        probe.head()
        life = world.spec.lifetime
        for _ in range(5):
            world.pass_time((life.start_wait_s + life.start_s) / 5)
            probe.data(b": ping\n\n")
        self.assertTrue(probe.aborted)
        self.assertEqual(code_of(answer), (200, -31002))
        self.assertIdentical(world.eras.known(world.spec).modern, None)
        self.assertEqual(world.leaks(), {})

    def test_who_goes_meanwhile(self) -> None:
        """Nothing is sent for a client that has gone."""
        world = ModernWorld(era=Eras.AUTO)
        answer, probe = self.ask(world)
        answer.go()
        probe.result(supportedVersions=["2026-07-28"])
        self.assertEqual(world.server.waiting, [])
        self.assertEqual(world.leaks(), {})

    def test_looked_at_again(self) -> None:
        """What is known and has grown old is looked at again, not in the way of whoever asks."""
        world = ModernWorld(era=Eras.AUTO)
        answer, probe = self.ask(world)
        probe.result(supportedVersions=["2026-07-28"])
        world.server.take().result(a=1)
        self.assertEqual(world.used, [])
        world.call(id="d")
        self.assertEqual(world.used, [world.spec])
        self.assertEqual(answer.json["result"], {"a": 1})


class ChoiceTests(SynchronousTestCase):
    """What the book says."""

    def test_configured_eras(self) -> None:
        """They are not doubted, and nobody is asked."""
        for era, transport, method in (
            (Eras.MODERN, Transport.HTTP, "tools/call"),
            (Eras.DUAL, Transport.HTTP, "tools/call"),
            (Eras.LEGACY, Transport.HTTP, ""),
            (Eras.MODERN, Transport.STDIO, "tools/call"),
            (Eras.DUAL, Transport.STDIO, ""),
            (Eras.LEGACY, Transport.STDIO, ""),
        ):
            world = ModernWorld(transport, era=era)
            answer = world.call()
            if not method:
                self.assertEqual(code_of(answer), (400, -32600))
                self.assertEqual(world.pool.instances, [])
            elif transport is Transport.HTTP:
                self.assertEqual(world.server.take().message["method"], method)
            else:
                self.assertEqual(world.child.take()[0]["method"], method)

    def test_a_bridge(self) -> None:
        """It gets the requests of clients for legacy servers, listens among them."""
        world = ModernWorld(era=Eras.LEGACY)
        self.assertEqual(code_of(world.call("subscriptions/listen")), (400, -32600))
        self.assertEqual(world.leaks(), {})
