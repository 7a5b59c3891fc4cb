"""HTTP+SSE as a channel of lines."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendDied, BackendTimeout, BadBackendAnswer, BadRequest, GateError
from mcpgate.interfaces import IResponseReceiver, IStdioChannel
from mcpgate.mcp.jsonrpc import Notification, Request, Response, encode
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream import sse_channel
from mcpgate.upstream.sse_channel import SSEChannel, SSEPlace
from tests.upstream.sse_fakes import FakeSSEServer

CALL = encode(Request(7, "tools/call", {}))
TOLD = encode(Notification("notifications/initialized"))


class PlaceTests(SynchronousTestCase):
    """Which endpoints are believed."""

    def test_of_the_same_origin(self) -> None:
        """Relative ones and absolute ones; queries are kept, fragments are not."""
        place = SSEPlace(origin="https://h.example:8443", target=b"/a/sse?x=1")
        for data, target in (
            (b"/messages?session_id=1", b"/messages?session_id=1"),
            (b"messages/", b"/a/messages/"),
            (b"?s=1", b"/a/sse?s=1"),
            (b"https://h.example:8443/m#f", b"/m"),
            (b"https://H.example:8443", b"/"),
        ):
            self.assertEqual(place.endpoint(data), target)
        self.assertEqual(SSEPlace(origin="http://h", target=b"/").endpoint(b"http://h:80/m"), b"/m")

    def test_names_of_this_machine(self) -> None:
        """A server here may call itself localhost, on the same port."""
        place = SSEPlace(origin="http://127.0.0.1:9000", target=b"/sse")
        self.assertEqual(place.endpoint(b"http://localhost:9000/m"), b"/m")
        self.assertRaises(BadBackendAnswer, place.endpoint, b"http://localhost:9001/m")

    def test_others(self) -> None:
        """Another origin, or what is no URL, is refused."""
        place = SSEPlace(origin="https://h.example", target=b"/sse")
        for data in (
            b"https://other.example/m",
            b"http://h.example/m",
            b"https://h.example:444/m",
            b"//other.example/m",
            b"https://[::1/m",
            b"https://h.example:x/m",
            b"",
            b"/" + b"x" * 5000,
            b"/a b",
            b"/a\x01",
            "/\u00e4".encode(),
        ):
            self.assertRaises(BadBackendAnswer, place.endpoint, data)


class ChannelTests(SynchronousTestCase):
    """One stream."""

    def setUp(self) -> None:
        """Open a channel."""
        self.clock = Clock()
        self.wheel = DeadlineWheel(self.clock, 0.5)
        self.server = FakeSSEServer(self.clock)
        self.lines: list[bytes] = []
        self.ends: list[GateError] = []
        self.channel = SSEChannel(
            self.server,
            SSEPlace(origin="http://h", target=b"/sse"),
            listen_fields=[(b"accept", b"text/event-stream")],
            message_fields=[(b"x-key", b"k")],
            pool="c1",
            wheel=self.wheel,
            endpoint_s=10,
            message_s=60,
            ended=self.end,
        )
        verifyObject(IStdioChannel, self.channel)
        verifyObject(IResponseReceiver, self.channel)
        self.channel.attach(self.lines.append)
        self.channel.open()

    def end(self, error: GateError, unsent: list[bytes]) -> None:
        """Take note of the end."""
        self.ends.append(error)
        self.unsent = unsent

    def test_messages(self) -> None:
        """What is sent early waits for the endpoint; what the server says are lines."""
        self.assertTrue(self.channel.send(CALL))
        self.assertEqual(self.server.posts, [])
        stream = self.server.begin()
        self.assertEqual(self.server.targets, [b"/messages?session_id=1"])
        self.assertEqual(self.server.posts[0].fields, {b"x-key": b"k"})
        self.assertEqual(self.server.take(), CALL)
        stream.data(b": ping\r\n\r\nevent: other\r\ndata: x\r\n\r\nevent: message\r\nda")
        stream.data(b"ta: {}\r\n\r\ndata: {}\n\n")
        self.assertEqual(self.lines, [b"{}", b"{}"])
        self.assertEqual(self.ends, [])

    def test_a_second_endpoint_is_ignored(self) -> None:
        """The first counts."""
        stream = self.server.begin()
        stream.data(b"event: endpoint\ndata: /elsewhere\n\n")
        self.channel.send(CALL)
        self.assertEqual(self.server.targets, [b"/messages?session_id=1"])

    def test_order(self) -> None:
        """What follows a notification waits until that was taken; requests do not wait."""
        self.server.begin()
        for line in (CALL, CALL, TOLD, CALL):
            self.channel.send(line)
        self.assertEqual(len(self.server.posts), 3)
        for _ in range(3):
            self.server.take()
        self.assertEqual(len(self.server.posts), 1)

    def test_a_notification_that_is_never_taken(self) -> None:
        """Nothing waits for it for ever."""
        self.server.begin()
        self.channel.send(TOLD)
        self.channel.send(CALL)
        self.server.posts.pop(0).fail(BackendTimeout())
        self.assertEqual([post.raw for post in self.server.posts], [CALL])

    def test_a_queue_that_is_full(self) -> None:
        """Takes no more until the server does."""
        self.server.begin()
        self.assertTrue(self.channel.send(b"x" * (sse_channel.QUEUE_BYTES + 1)))
        self.assertFalse(self.channel.send(CALL))
        self.server.take()
        self.assertTrue(self.channel.send(CALL))

    def test_a_message_that_is_refused(self) -> None:
        """A call hears so under its id; of others nothing comes."""
        self.server.begin()
        for line in (CALL, TOLD, encode(Response(1, {}))):
            self.channel.send(line)
            self.server.posts.pop(0).empty(413)
        answer = json.loads(self.lines[0])
        self.assertEqual((answer["id"], answer["error"]["data"]), (7, {"status": 413}))
        self.assertEqual((len(self.lines), self.ends), (1, []))

    def test_a_session_that_is_lost(self) -> None:
        """404 ends the channel, once."""
        stream = self.server.begin()
        self.channel.send(CALL)
        self.channel.send(CALL)
        self.server.posts.pop(0).empty(404)
        self.assertIsInstance(self.ends[0], BackendDied)
        self.assertTrue(stream.aborted)
        self.assertTrue(self.server.posts[0].aborted)
        self.assertFalse(self.channel.send(CALL))
        self.channel.end(BackendDied())
        self.assertEqual(len(self.ends), 1)

    def test_a_message_that_is_lost(self) -> None:
        """A broken connection ends the channel; one that broke after the answer does not."""
        self.server.begin()
        self.channel.send(CALL)
        post = self.server.posts.pop(0)
        post.head(202, b"")
        post.fail(BackendDied())
        self.assertEqual(self.ends, [])
        self.channel.send(CALL)
        self.server.posts.pop(0).fail(BackendDied())
        self.assertIsInstance(self.ends[0], BackendDied)

    def test_what_never_reached_the_server(self) -> None:
        """Is told at the end: what was not written, or waits for a notification; no more."""
        stream = self.server.begin()
        for line in (b"1", b"2", b"3", TOLD, b"4"):
            self.channel.send(line)
        taken, refused, _, told = self.server.posts
        taken.head(202, b"")
        refused.sent = told.sent = False
        stream.receiver.response_end([])
        self.assertEqual(self.unsent, [b"2", TOLD, b"4"])
        self.setUp()
        self.channel.send(CALL)
        self.server.streams[-1].fail(BackendDied())
        self.assertEqual(self.unsent, [CALL])

    def test_a_long_answer_to_a_message(self) -> None:
        """Is not read to its end."""
        self.server.begin()
        self.channel.send(CALL)
        post = self.server.posts.pop(0)
        post.head(202, b"text/plain")
        post.data(b"x" * 100_000)
        self.assertTrue(post.aborted)
        self.assertEqual(self.ends, [])

    def test_an_answer_to_a_message_that_does_not_end(self) -> None:
        """Ends with the channel; those that are over are forgotten."""
        self.server.begin()
        for _ in range(4):
            self.channel.send(CALL)
        ended, failed, late, open_ = self.server.posts
        for post in (ended, failed, open_):
            post.head(202, b"text/plain")
        ended.done()
        failed.receiver.response_failed(BackendDied(), True)
        late.receiver.response_failed(BackendTimeout(), True)
        self.assertEqual(len(self.channel._answers), 1)
        self.channel.end(BackendDied())
        self.assertEqual(
            [post.aborted for post in (ended, failed, late, open_)], [False, False, False, True]
        )

    def test_a_message_that_can_not_be_sent(self) -> None:
        """Ends the channel too."""
        self.server.begin()
        self.server.error = BadRequest()
        self.channel.send(CALL)
        self.assertIsInstance(self.ends[0], BadRequest)

    def test_no_stream(self) -> None:
        """Another status or type ends the channel; so does the stream's end, or its failure."""
        self.server.streams[0].head(401, b"application/json")
        self.assertEqual(self.ends[0].data, {"status": 401})
        self.setUp()
        self.server.streams[0].head(200, b"text/html")
        self.assertEqual(self.ends[0].data, {"status": 200})
        self.setUp()
        self.server.begin().done()
        self.assertIsInstance(self.ends[0], BackendDied)
        self.setUp()
        self.server.begin().fail(BackendTimeout())
        self.assertIsInstance(self.ends[0], BackendTimeout)

    def test_no_endpoint(self) -> None:
        """It must come in time, and be of the same origin."""
        self.server.streams[0].head()
        self.clock.pump([0.5] * 22)
        self.assertIsInstance(self.ends[0], BackendTimeout)
        self.setUp()
        self.server.begin("https://evil.example/")
        self.assertIsInstance(self.ends[0], BadBackendAnswer)

    def test_a_large_event(self) -> None:
        """Ends the channel."""
        stream = self.server.begin()
        stream.data(b"data: " + b"x" * (sse_channel.EVENT_BYTES + 1))
        self.assertIsInstance(self.ends[0], BadBackendAnswer)

    def test_what_comes_after_the_end(self) -> None:
        """Events of the same read are not passed on any more."""

        def once(line: bytes) -> None:
            self.lines.append(line)
            self.channel.end(BackendDied())

        self.channel.attach(once)
        self.server.begin().data(b"data: 1\n\ndata: 2\n\n")
        self.assertEqual(self.lines, [b"1"])

    def test_flow(self) -> None:
        """Pausing pauses the stream."""
        stream = self.server.begin()
        self.channel.pause()
        self.assertTrue(stream.paused)
        self.channel.resume()
        self.assertFalse(stream.paused)
        self.channel.end(BackendDied())
        self.channel.pause()
        self.channel.resume()

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_split(self, data: st.DataObject) -> None:
        """However the bytes come, the lines are the same."""
        self.setUp()
        end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
        told = data.draw(st.lists(st.text("abc{}:\u00e4", min_size=1), max_size=5))
        text = f"event: endpoint{end}data: /m{end}{end}" + "".join(
            f"event: message{end}data: {line}{end}{end}: ping{end}{end}" for line in told
        )
        raw = text.encode()
        stream = self.server.streams[-1]
        stream.head()
        while raw:
            size = data.draw(st.integers(1, len(raw)))
            stream.data(raw[:size])
            raw = raw[size:]
        if end == "\r":
            stream.data(b"\n")
        self.assertEqual(self.lines, [line.encode() for line in told])
