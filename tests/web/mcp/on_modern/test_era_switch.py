"""Tests of era_switch: servers of which it is not known what they speak."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendTimeout, Overloaded
from mcpgate.model import Eras, Isolation, Transport
from tests.web.bridge_kit import BridgeWorld
from tests.web.endpoint_kit import INIT, request
from tests.web.fake_inbound import FakeInbound

REFUSAL = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}
OTHER = {"code": -32601, "message": "what?"}


class Case(SynchronousTestCase):
    """A gate, and a server of which nothing is known."""

    transport = Transport.HTTP

    def setUp(self) -> None:
        """Make it."""
        self.world = BridgeWorld(self.transport, known=(None, None))

    def tearDown(self) -> None:
        """Hold that whatever was taken is given back."""
        for session in self.world.sessions:
            self.world.sessions.end(session, "test")
        self.world.settle()
        self.assertEqual(self.world.leaks(), {})

    def verdict(self) -> tuple[bool | None, bool | None]:
        """Give what the book says."""
        known = self.world.era_book.known(self.world.spec)
        return known.legacy, known.modern


class HTTPTests(Case):
    """Servers on HTTP."""

    def initialize(self, **options: Any) -> FakeInbound:
        """Send initialize; the server's answer is the test's."""
        if self.world.pool.instances:
            self.world.server.plays = False
        else:
            # Nothing is asked before the server is there: so it is made first.
            self.world.pool.at_once = False
        answer = self.world.post(INIT, **options)
        if not self.world.pool.at_once:
            self.world.pool.at_once = True
            self.world.pool.started()
            self.world.server.plays = False
            self.world.clock.advance(0)
        return answer

    def test_legacy(self) -> None:
        """A server that shakes hands is legacy, and asked nothing else."""
        self.world.open()
        self.assertEqual(self.verdict(), (True, None))
        self.assertEqual((self.world.probed, self.world.asker.all), (0, []))

    def test_modern_alone(self) -> None:
        """A server that refuses, and is modern, is served over the bridge: the client sees none."""
        answer = self.initialize()
        sent = self.world.server.take()
        sent.json({"jsonrpc": "2.0", "id": sent.message["id"], "error": REFUSAL}, 400)
        self.assertEqual(answer.json["result"]["serverInfo"]["name"], "new")
        self.assertEqual(self.verdict(), (False, True))
        session = answer.fields[b"mcp-session-id"].decode()
        self.world.post(request("tools/list"), session)
        self.assertEqual(self.world.asker.take().request.method, "tools/list")

    def test_refused_without_words(self) -> None:
        """A status that servers of another era give is as good as words."""
        answer = self.initialize()
        self.world.server.take().empty(405)
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.verdict(), (False, True))

    def test_not_modern_either(self) -> None:
        """What refuses both is refused with its own words, and not asked again for a while."""
        self.world.found = False
        for probed in (1, 1):
            answer = self.initialize()
            sent = self.world.server.take()
            sent.json({"jsonrpc": "2.0", "id": sent.message["id"], "error": OTHER})
            self.assertEqual(answer.json["error"], OTHER)
            self.assertEqual(self.world.probed, probed)
        self.assertEqual(self.verdict(), (None, False))

    def test_can_not_be_told(self) -> None:
        """A probe that tells nothing leaves everything as it was."""
        self.world.found = BackendTimeout()
        answer = self.initialize()
        self.world.server.take().empty(404)
        self.assertEqual(answer.status, 503)
        self.assertEqual(self.verdict(), (None, None))

    def test_other_failures(self) -> None:
        """Failures that say nothing of eras cost no probe."""
        answer = self.initialize()
        self.world.server.take().empty(500)
        self.assertEqual((answer.status, self.world.probed), (503, 0))

    def test_pinned(self) -> None:
        """What the configuration says is not doubted."""
        self.world = BridgeWorld(known=(None, None), era=Eras.LEGACY)
        answer = self.initialize()
        self.world.server.take().empty(404)
        self.assertEqual((answer.status, self.world.probed), (503, 0))

    def test_negotiates_modern(self) -> None:
        """A server that answers initialize with a revision without sessions means the other era."""
        answer = self.initialize()
        self.world.server.take().result(
            protocolVersion="2026-07-28", capabilities={}, serverInfo={}
        )
        self.assertEqual(answer.json["result"]["serverInfo"]["name"], "new")
        self.assertEqual(self.verdict(), (False, True))

    def test_negotiates_oddly(self) -> None:
        """One that does so and is not modern is taken at its handshake."""
        self.world.found = False
        for _ in range(2):
            answer = self.initialize()
            self.world.server.take().result(
                protocolVersion="2026-07-28", capabilities={}, serverInfo={"name": "odd"}
            )
            self.assertEqual(answer.json["result"]["serverInfo"]["name"], "odd")
            self.assertEqual(answer.json["result"]["protocolVersion"], "2025-11-25")

    def test_session_of_before(self) -> None:
        """A session of a server that is modern since its restart goes on, calls in it too."""
        session = self.world.open()
        self.world.pool.die()
        self.world.pool.at_once = False
        answer = self.world.post(request("tools/call", 9, name="x"), session)
        self.world.pool.at_once = True
        self.world.pool.started()
        self.world.server.plays = False
        self.world.clock.advance(0)
        sent = self.world.server.take()
        self.assertEqual(sent.message["method"], "initialize")
        sent.json({"jsonrpc": "2.0", "id": sent.message["id"], "error": REFUSAL}, 400)
        asked = self.world.asker.waiting[0]
        self.assertEqual(asked.params, {"name": "x"})
        asked.result(content=[])
        self.assertEqual(answer.json["id"], 9)
        self.assertEqual(self.world.session(session).record.upstream_session, "")

    def test_session_of_before_fails(self) -> None:
        """A call whose server refuses both eras fails, and gives everything back."""
        session = self.world.open()
        self.world.found = False
        self.world.pool.die()
        self.world.pool.at_once = False
        answer = self.world.post(request("tools/call", 9, name="x"), session)
        self.world.pool.at_once = True
        self.world.pool.started()
        self.world.server.plays = False
        self.world.clock.advance(0)
        self.world.server.take().empty(404)
        self.assertEqual(answer.json["error"]["data"]["status"], 404)

    def test_grown_old(self) -> None:
        """What was found out a day ago is looked at again, behind the client's back."""
        self.world.era_book.note(self.world.spec, legacy=True, modern=False)
        self.world.clock.advance(25 * 3600)
        self.world.open()
        self.assertEqual(self.world.probed, 1)
        self.assertEqual(self.verdict(), (True, True))
        self.world.open()
        self.assertEqual(self.world.probed, 1)


class StdioTests(Case):
    """Servers behind pipes: a process serves one era."""

    transport = Transport.STDIO

    def refuse(self, error: dict[str, Any]) -> None:
        """Have the newest child refuse initialize."""
        message = next(m for m in self.world.child.sent if m.get("method") == "initialize")
        self.world.child.sent.remove(message)
        self.world.child.say(id=message["id"], error=error)
        self.world.settle()

    def test_legacy(self) -> None:
        """A child that shakes hands is legacy."""
        self.world.open()
        self.assertEqual(self.verdict(), (True, None))

    def test_modern_alone(self) -> None:
        """The child that refused was the trial: it is stopped, and the bridge starts another."""
        answer = self.world.post(INIT)
        self.refuse(REFUSAL)
        self.assertEqual(self.world.pool.stopped, ["i1"])
        self.assertEqual(answer.json["result"]["serverInfo"]["name"], "new")
        self.assertEqual(self.verdict(), (False, True))

    def test_two_at_once(self) -> None:
        """Two clients who meet the same trial stop it once."""
        first, second = self.world.post(INIT), self.world.post(INIT)
        self.refuse(REFUSAL)
        self.assertEqual(self.world.pool.stopped, ["i1"])
        self.assertEqual((first.status, second.status), (200, 200))

    def test_died_of_it(self) -> None:
        """Some servers die of what they do not expect; that is tried in the other era, too."""
        answer = self.world.post(INIT)
        self.world.pool.die()
        self.world.settle()
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.verdict(), (False, True))

    def test_not_modern_either(self) -> None:
        """A server that refuses both is refused in its words, and is of no era."""
        self.world.asker.plays = False
        answer = self.world.post(INIT)
        self.refuse(OTHER)
        self.world.asker.take().error(-32601)
        self.world.settle()
        self.assertEqual(answer.json["error"], OTHER)
        self.assertEqual(self.verdict(), (None, False))
        # For a day it is believed.
        answer = self.world.post(INIT)
        self.refuse(OTHER)
        self.assertEqual(answer.json["error"], OTHER)
        self.assertEqual(self.world.asker.waiting, [])

    def test_no_room(self) -> None:
        """That there is no room for another process tells nothing of eras."""
        self.world.asker.plays = False
        answer = self.world.post(INIT)
        self.refuse(REFUSAL)
        self.world.asker.take().fail(Overloaded())
        self.world.settle()
        self.assertEqual(answer.status, 503)
        self.assertEqual(self.verdict(), (False, True))

    def test_known_legacy(self) -> None:
        """A server that was seen to be legacy and refuses has its own reasons."""
        self.world.open()
        self.world.pool.die()
        answer = self.world.post(INIT)
        self.refuse(OTHER)
        self.assertEqual(answer.json["error"], OTHER)
        self.assertEqual(self.verdict(), (True, None))

    def test_session_of_before(self) -> None:
        """A session goes on with a server that is modern since its restart."""
        session = self.world.open()
        self.world.pool.die()
        answer = self.world.post(request("tools/call", 9, name="x"), session)
        self.refuse(REFUSAL)
        asked = self.world.asker.take()
        self.assertEqual(asked.params, {"name": "x"})
        asked.result(content=[])
        self.assertEqual(answer.json["id"], 9)

    def test_session_of_before_fails(self) -> None:
        """A call whose server refuses both eras fails, and gives everything back."""
        session = self.world.open()
        self.world.asker.plays = False
        self.world.pool.die()
        answer = self.world.post(request("tools/call", 9, name="x"), session)
        self.refuse(REFUSAL)
        self.world.asker.take().error(-32601)
        self.world.settle()
        self.assertEqual(answer.json["error"]["data"]["reason"], "initialize_refused")

    def test_wrong_process(self) -> None:
        """A process of the other era is stopped before a legacy session uses it."""
        session = self.world.open()
        self.world.pool.newest.upstream = self.world.pool.newest.http  # no `StdioUpstream`
        answer = self.world.post(request("tools/call", 9, name="x"), session)
        self.world.settle()
        self.assertEqual(answer.json["error"]["data"]["reason"], "backend_unavailable")
        self.assertEqual(self.world.pool.stopped, ["i1"])

    def test_per_session(self) -> None:
        """A trial of a session's own is stopped, too."""
        self.world = BridgeWorld(
            Transport.STDIO, known=(None, None), isolation=Isolation.PER_SESSION
        )
        answer = self.world.post(INIT)
        self.refuse(REFUSAL)
        self.assertEqual(self.world.pool.stopped, ["i1"])
        self.assertEqual(answer.status, 200)
