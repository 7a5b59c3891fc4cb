"""Tests of serving a resource tree through inbounds."""

from __future__ import annotations

import json

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request as WebRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from typing_extensions import override
from zope.interface import implementer

from mcpgate.web.wire.klein_channel import ResourceServer, _InboundTransport
from tests.http.raw_requests import CHUNKED, END, POST, head
from tests.web.front_kit import ClientEnd, Door, answers


class Mirror(Resource):
    """Tells what it was asked."""

    isLeaf = True  # noqa: N815  # of Resource

    @override
    def render(self, request: Request) -> bytes:
        assert request.content is not None
        request.setHeader("X-Mirror", "yes")
        told = {
            "method": request.method.decode(),
            "uri": request.uri.decode(),
            "fields": sorted(
                name.decode().lower() for name, _ in request.requestHeaders.getAllRawHeaders()
            ),
            "body": request.content.read().decode(),
            "peer": repr(request.getClientAddress()),
            "secure": request.isSecure(),
            "host": repr(request.getHost()),
        }
        return json.dumps(told).encode()


class Stream(Resource):
    """Streams for as long as somebody says."""

    isLeaf = True  # noqa: N815  # of Resource

    def __init__(self) -> None:
        super().__init__()
        self.request: Request | None = None
        self.gone: list[str] = []

    @override
    def render(self, request: Request) -> int:
        self.request = request
        request.setHeader("content-type", "text/event-stream")
        request.write(b"data: 1\n\n")
        request.notifyFinish().addErrback(self._note)
        return NOT_DONE_YET

    def _note(self, failure: Failure) -> None:
        assert failure.type is not None
        self.gone.append(failure.type.__name__)


class Serving:
    """A door in front of a tree."""

    def __init__(self, resource: Resource, *, secure: bool = False) -> None:
        self.door = Door(secure=secure)
        server = ResourceServer(resource, clock=self.door.clock, body_bytes=300_000)
        self.door.factory.dispatch = server.serve

    def send(self, data: bytes, end: ClientEnd | None = None) -> ClientEnd:
        """Send bytes."""
        return self.door.send(data, end)


class ResourceServerTests(SynchronousTestCase):
    """A tree sees canonical requests, and its answers get our framing."""

    def told(self, data: bytes, *, secure: bool = False) -> dict[str, object]:
        """Give what the mirror saw."""
        end = Serving(Mirror(), secure=secure).send(data)
        ((status, fields, body),) = answers(end.value())
        self.assertEqual(status, 200)
        self.assertEqual(fields[b"x-mirror"], b"yes")
        self.assertNotIn(b"server", fields)
        self.assertEqual(end.value().lower().count(b"\r\ndate:"), 1)
        told = json.loads(body)
        assert isinstance(told, dict)
        return told

    def test_get(self) -> None:
        """A GET arrives with target and fields, without what belongs to the connection."""
        told = self.told(
            head(
                b"Connection: keep-alive, X-Hop, Via",
                b"X-Hop: 1",
                b"Via: 1.1 proxy",
                b"X-Kept: 1",
                start=b"GET /a/b?c=d HTTP/1.1\r\n",
            )
        )
        self.assertEqual((told["method"], told["uri"]), ("GET", "/a/b?c=d"))
        self.assertEqual(told["fields"], ["host", "via", "x-kept", "x-request-id"])
        self.assertIn("192.0.2.1", str(told["peer"]))
        self.assertEqual(told["secure"], False)

    def test_secure(self) -> None:
        """The tree knows whether the client came over TLS."""
        told = self.told(head(), secure=True)
        self.assertEqual(told["secure"], True)
        self.assertIn("443", str(told["host"]))

    def test_body(self) -> None:
        """A body arrives whole, counted or chunked, large or empty."""
        self.assertEqual(self.told(CHUNKED + b"3\r\nabc\r\n" + END)["body"], "abc")
        self.assertEqual(self.told(CHUNKED + END)["body"], "")
        large = b"a" * 200_000
        told = self.told(POST + b"Content-Length: 200000\r\n\r\n" + large)
        self.assertEqual(told["body"], large.decode())

    def test_too_large(self) -> None:
        """A body over the limit never reaches the tree."""
        end = Serving(Mirror()).send(POST + b"Content-Length: 300001\r\n\r\n")
        self.assertEqual(answers(end.value())[0][0], 413)

    def test_head_request(self) -> None:
        """HEAD has no body, and the connection lives on."""
        serving = Serving(Mirror())
        end = serving.send(head(start=b"HEAD / HTTP/1.1\r\n"))
        self.assertTrue(end.value().endswith(b"\r\n\r\n"))
        end.clear()
        serving.send(head(), end)
        self.assertEqual(answers(end.value())[0][0], 200)

    def test_old_client(self) -> None:
        """A client without Host is served too."""
        end = Serving(Mirror()).send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(answers(end.value())[0][0], 200)

    def test_stream(self) -> None:
        """A stream goes out as it is written, in our chunks."""
        stream = Stream()
        end = Serving(stream).send(head())
        self.assertIn(b"transfer-encoding: chunked\r\n", end.value())
        self.assertTrue(end.value().endswith(b"9\r\ndata: 1\n\n\r\n"))
        assert stream.request is not None
        stream.request.write(b"data: 2\n\n")
        stream.request.finish()
        self.assertTrue(end.value().endswith(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"))
        self.assertEqual(stream.gone, [])

    def test_client_gone(self) -> None:
        """A client that leaves makes ``notifyFinish`` fail."""
        stream = Stream()
        end = Serving(stream).send(head())
        end.abortConnection()
        self.assertEqual(stream.gone, ["ConnectionLost"])

    def test_tree_cuts(self) -> None:
        """A resource that loses the connection cuts the answer off."""
        stream = Stream()
        end = Serving(stream).send(head())
        assert stream.request is not None
        stream.request.loseConnection()
        self.assertEqual(end.ended, "aborted")
        self.assertEqual(stream.gone, ["ConnectionLost"])

    def test_push_producer(self) -> None:
        """A push producer of the tree is paused while the client does not read."""
        stream = Stream()
        end = Serving(stream).send(head())
        calls: list[str] = []

        @implementer(IPushProducer)
        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

            def stopProducing(self) -> None:
                calls.append("stop")

        assert stream.request is not None
        assert end.protocol is not None
        stream.request.registerProducer(Producer(), True)
        end.protocol.pauseProducing()
        end.protocol.resumeProducing()
        self.assertEqual(calls, ["pause", "resume"])
        stream.request.unregisterProducer()
        stream.request.finish()

    def test_failure(self) -> None:
        """A failing resource is a 500 without a traceback."""

        class Failing(Resource):
            isLeaf = True  # noqa: N815  # of Resource

            @override
            def render(self, request: WebRequest) -> bytes:
                raise ZeroDivisionError("secret")

        end = Serving(Failing()).send(head())
        status, _, body = answers(end.value())[0]
        self.assertEqual(status, 500)
        self.assertNotIn(b"secret", body)
        self.assertNotIn(b"Traceback", body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_klein(self) -> None:
        """A Klein app is such a tree, with its coroutines and its own 404."""
        app = Klein()
        later: Deferred[bytes] = Deferred()

        @app.route("/later/<name>")
        async def route(request: Request, name: str) -> bytes:
            return name.encode() + await later

        serving = Serving(app.resource())
        end = serving.send(head(start=b"GET /later/you HTTP/1.1\r\n"))
        self.assertEqual(end.value(), b"")
        later.callback(b"!")
        self.assertIn(b"you!", end.value())
        other = serving.send(head(start=b"GET /nowhere HTTP/1.1\r\n"))
        self.assertEqual(answers(other.value())[0][0], 404)

    def test_klein_cancelled(self) -> None:
        """A client that leaves cancels what the app was waiting for."""
        app = Klein()
        cancelled: list[int] = []

        @app.route("/")
        def route(request: Request) -> Deferred[bytes]:
            return Deferred(lambda _: cancelled.append(1))

        end = Serving(app.resource()).send(head())
        end.abortConnection()
        self.assertEqual(cancelled, [1])

    def test_transport(self) -> None:
        """The stand-in for a network connection does what little is asked of it."""
        door = Door()
        end = door.send(head())
        inbound = door.inbounds[0]
        transport = _InboundTransport(inbound)
        self.assertTrue(IPushProducer.providedBy(transport))
        self.assertFalse(IPullProducer.providedBy(transport))
        transport.pauseProducing()
        transport.resumeProducing()
        transport.stopProducing()
        inbound.start(200, [], None)
        transport.writeSequence([b"a", b"b"])
        self.assertTrue(end.value().endswith(b"2\r\nab\r\n"))
        inbound.peer = type(inbound.peer)("2001:db8::1", False)
        self.assertIn("2001:db8::1", repr(transport.getPeer()))
