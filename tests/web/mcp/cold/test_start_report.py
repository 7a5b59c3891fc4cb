"""Tests of mcpgate.web.mcp.cold.start_report, through calls that wait for a start."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.model import Transport
from tests.web.endpoint_kit import World, request

ASKED = {"name": "x", "_meta": {"progressToken": "p"}}


class StartReportTests(SynchronousTestCase):
    """What a client hears while its server starts."""

    def stopped(self, transport: Transport = Transport.STDIO) -> tuple[World, str]:
        """Make a session whose server does not run any more."""
        world = World(transport)
        session = world.open()
        world.pool.die()
        world.pool.at_once = False
        return world, session

    def test_progress(self) -> None:
        """Who gave a token hears after a second, then every five, in growing numbers."""
        for transport in (Transport.STDIO, Transport.HTTP):
            world, session = self.stopped(transport)
            answer = world.post(request("tools/call", 1, **ASKED), session)
            world.pass_time(0.5)
            self.assertEqual(answer.status, 0)
            world.pass_time(13)
            self.assertTrue(answer.is_stream)
            told = [event["params"] for event in answer.events]
            self.assertEqual([one["progress"] for one in told], [0, 0.001, 0.002])
            self.assertEqual({one["progressToken"] for one in told}, {"p"})
            self.assertEqual({one["message"] for one in told}, {"starting server notes"})
            world.pool.started()
            world.answer_initialize()
            if transport is Transport.STDIO:
                (asked,) = [m for m in world.child.sent if m["method"] == "tools/call"]
                world.child.say(id=asked["id"], result={})
            else:
                world.server.take().result()
            self.assertEqual(answer.events[-1]["result"], {})
            world.pass_time(20)
            self.assertEqual(len(answer.events), 4)
            self.assertEqual(world.leaks(), {})

    def test_nobody_asked(self) -> None:
        """Without a token nothing is reported; nor to clients that take JSON alone."""
        world, session = self.stopped()
        plain = world.post(request("tools/call", 1, name="x"), session)
        odd = world.post(request("tools/call", 2, name="x", _meta=[1]), session)
        alone = world.post(request("tools/call", 3, **ASKED), session, accept=b"application/json")
        world.pass_time(8)
        self.assertEqual([one.status for one in (plain, odd, alone)], [0, 0, 0])

    def test_client_has_gone(self) -> None:
        """Nothing is said to a client that did not wait."""
        world, session = self.stopped()
        answer = world.post(request("tools/call", 1, **ASKED), session)
        answer.go()
        world.pass_time(8)
        self.assertEqual(answer.body, b"")

    def test_failed_start(self) -> None:
        """A start that fails ends the reports with its error."""
        world, session = self.stopped()
        answer = world.post(request("tools/call", 1, **ASKED), session)
        world.pass_time(2)
        world.pool.started(BackendUnavailable("broken"))
        self.assertEqual(answer.events[-1]["error"]["code"], -31001)
        world.pass_time(8)
        self.assertEqual(len(answer.events), 2)
        self.assertEqual(world.leaks(), {})
