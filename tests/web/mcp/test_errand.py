"""Tests of mcpgate.web.mcp.errand."""

from __future__ import annotations

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BadBackendAnswer
from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.interfaces import IInbound
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.over_http.fetch import MAX_EVENT_BYTES

HEAD = RequestHead(method="POST", path=b"/notes/mcp", query=None, version=(1, 1), fields=Fields())
JSON = [(b"Content-Type", b"application/json")]
STREAM = [(b"content-type", b"text/event-stream")]


class ErrandTests(SynchronousTestCase):
    """An answer that is wanted as messages."""

    def setUp(self) -> None:
        """Send an errand that notes what it hears."""
        self.heard: list[bytes] = []
        self.ends: list[Errand] = []
        self.errand = Errand(
            HEAD, Peer("192.0.2.7", True), "req-1", told=self.heard.append, ended=self.ends.append
        )
        verifyObject(IInbound, self.errand)

    def test_json(self) -> None:
        """A JSON answer is one message, whole when it is told."""
        self.errand.start(200, JSON, 4)
        self.errand.write(b"{")
        self.errand.write(b"}")
        self.assertEqual(self.heard, [])
        self.errand.finish()
        self.assertEqual((self.heard, self.errand.status), ([b"{}"], 200))
        self.assertEqual(self.ends, [self.errand])
        self.assertEqual(self.errand.fields.get(b"content-type"), b"application/json")

    def test_stream(self) -> None:
        """Each event of a stream is a message, told when it comes; comments are none."""
        self.errand.start(200, STREAM, None)
        self.errand.write(b": open\n\nid: 1\ndata: \n\ndata: {")
        self.errand.write(b"}\n\n")
        self.assertEqual(self.heard, [b"{}"])
        self.errand.finish()
        self.assertEqual((self.heard, len(self.ends)), ([b"{}"], 1))

    def test_nothing(self) -> None:
        """An answer without a body tells nothing but its end."""
        self.errand.respond(202, [], b"")
        self.assertEqual((self.heard, len(self.ends), self.errand.status), ([], 1, 202))
        self.errand.respond(200, JSON, b"{}")
        self.errand.finish()
        self.errand.abort()
        self.errand.write(b"late")
        self.assertEqual((self.heard, len(self.ends)), ([], 1))

    def test_cut(self) -> None:
        """An answer that was cut off says so, and its source stops."""
        stopped: list[str] = []
        self.errand.on_gone(lambda: stopped.append("source"))
        self.errand.start(200, STREAM, None)
        self.errand.abort()
        self.assertTrue(self.errand.cut)
        self.assertEqual((stopped, len(self.ends)), (["source"], 1))

    def test_too_large(self) -> None:
        """An answer over the bound is cut, framed either way."""
        self.errand.start(200, STREAM, None)
        self.errand.write(b"data: " + b"x" * (MAX_EVENT_BYTES + 1))
        self.assertTrue(self.errand.cut)
        other = Errand(HEAD, Peer("", True), "r", told=self.heard.append, ended=self.ends.append)
        other.start(200, JSON, None)
        other.write(b"x" * (MAX_EVENT_BYTES + 1))
        self.assertTrue(other.cut)
        self.assertEqual((self.heard, len(self.ends)), ([], 2))

    def test_given_up(self) -> None:
        """Who wants the answer no more is not told of it, and its source stops."""
        stopped: list[str] = []
        self.errand.on_gone(lambda: stopped.append("source"))
        self.errand.give_up()
        self.errand.give_up()
        self.errand.respond(200, JSON, b"{}")
        self.errand.on_gone(lambda: stopped.append("late"))
        self.assertEqual((stopped, self.heard, self.ends), (["source"], [], []))

    def test_given_up_within(self) -> None:
        """Giving up while a message is told ends it there."""
        errand = Errand(HEAD, Peer("", True), "r", told=self._give_up, ended=self.ends.append)
        self.other = errand
        errand.start(200, STREAM, None)
        errand.write(b"data: 1\n\ndata: 2\n\n")
        errand.finish()
        self.assertEqual((self.heard, self.ends), ([b"1"], []))

    def _give_up(self, data: bytes) -> None:
        self.heard.append(data)
        self.other.give_up()

    def test_flow(self) -> None:
        """A slow reader pauses the source."""
        flow: list[str] = []
        self.errand.pause()
        self.errand.register_flow(lambda: flow.append("pause"), lambda: flow.append("resume"))
        self.errand.pause()
        self.errand.resume()
        self.errand.finish()
        self.errand.pause()
        self.errand.resume()
        self.assertEqual(flow, ["pause", "resume"])

    def test_no_body(self) -> None:
        """It has nothing to read and can not be taken over."""
        read: list[object] = []
        self.errand.read_body(10, read.append)
        self.errand.stream_body(read.append, read.append, 10)
        self.errand.pause_body()
        self.errand.resume_body()
        self.assertEqual(read, [b"", []])
        with self.assertRaises(BadBackendAnswer):
            self.errand.take_over(101, [], Protocol())
