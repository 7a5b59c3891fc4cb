"""The byte relay over real sockets, through the real front door."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from twisted.internet import reactor  # noqa: TID251  # functional tests run on the real one
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.functional.relay_bed import Bed, Line

MIB = 1024 * 1024


def resident_bytes() -> int:
    """Give this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class RelayTestCase(TestCase):
    """A bed for each test."""

    timeout = 300

    def setUp(self) -> None:
        """Set the bed up."""
        self.bed = Bed(reactor, relay_body_bytes=0)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.bed.close()))

    async def joined(self, request: bytes) -> tuple[Line, Line]:
        """Send a request's head; give the client and the server that got it."""
        client = await self.bed.client()
        coming = Deferred.fromCoroutine(self.bed.server())
        client.send(request)
        return client, await coming


class RequestTests(RelayTestCase):
    """What reaches the server."""

    async def test_head(self) -> None:
        """The server sees its own Host and path, the gate's word on the client, and no key."""
        client, server = await self.joined(
            b"GET /srv/a/b?c=d HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer secret\r\n"
            b"X-API-Key: secret\r\nCookie: a=b\r\nOrigin: http://page\r\n"
            b"X-Forwarded-For: 1.2.3.4\r\nX-Mcpgate-User: root\r\n"
            b"Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\n"
            b"Keep-Alive: timeout=1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\nMcp-Method: x\r\n\r\n"
        )
        head = (await server.until(b"\r\n\r\n")).lower()
        self.assertTrue(head.startswith(b"get /a/b?c=d http/1.1\r\nhost: 127.0.0.1:"))
        for gone in (b"secret", b"cookie", b"origin", b"1.2.3.4", b"root", b"x-hop", b"upgrade"):
            self.assertNotIn(gone, head)
        for there in (
            b"x-forwarded-for: 127.0.0.1\r\n",
            b"x-forwarded-proto: http\r\n",
            b"x-forwarded-host: gate.test\r\n",
            b"x-forwarded-prefix: /srv\r\n",
            b"mcp-method: x\r\n",
            b"via: 1.1 mcpgate\r\n",
        ):
            self.assertIn(there, head)
        server.send(b"HTTP/1.1 200 OK\r\nServer: inner\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok")
        answer = await client.until(b"ok")
        self.assertTrue(answer.lower().endswith(b"\r\n\r\nok"))
        self.assertIn(b"x-a: b\r\n", answer.lower())
        self.assertNotIn(b"inner", answer)
        self.assertEqual(self.bed.leases[0].released, 1)

    async def test_small_body(self) -> None:
        """A small body reaches the server in one piece with its head."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello"
        )
        self.assertIn(b"Content-Length: 5\r\n", await server.until(b"\r\n\r\n"))
        self.assertEqual(await server.exactly(5), b"hello")
        server.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(b" 201 ", await client.until(b"\r\n\r\n"))

    async def test_kept_connection(self) -> None:
        """One client's requests share a connection to the server."""
        client, server = await self.joined(b"GET /srv/x HTTP/1.1\r\nHost: g\r\n\r\n")
        for number in range(3):
            await server.until(b"\r\n\r\n")
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
            await client.until(b"\r\n\r\n%d" % number)
            client.send(b"GET /srv/x HTTP/1.1\r\nHost: g\r\n\r\n")
        self.assertEqual(len(self.bed.accepted), 1)

    async def test_stale_connection(self) -> None:
        """A connection the server closed meanwhile is not used, not even for a POST."""
        client, server = await self.joined(b"GET /srv/x HTTP/1.1\r\nHost: g\r\n\r\n")
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        await client.until(b"\r\n\r\n1")
        coming = Deferred.fromCoroutine(self.bed.server())
        server.wire.loseConnection()
        client.send(b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\n\r\nx")
        second = await coming
        await second.until(b"\r\n\r\nx")
        second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
        await client.until(b"\r\n\r\n2")

    async def test_chunked_and_trailers(self) -> None:
        """A chunked body arrives piece by piece, its trailers last, both ways."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        head = await server.until(b"\r\n\r\n")
        self.assertIn(b"Transfer-Encoding: chunked\r\n", head)
        await server.until(b"3\r\nabc\r\n")
        client.send(b"2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n")
        rest = await server.until(b"\r\n\r\n")
        self.assertEqual(rest.lower(), b"2\r\nde\r\n0\r\nx-sum: 7\r\n\r\n")
        server.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
        )
        await client.until(b"\r\n\r\n2\r\nok\r\n")
        self.assertEqual((await client.until(b"\r\n\r\n")).lower(), b"0\r\nx-t: 1\r\n\r\n")

    async def test_expect(self) -> None:
        """A client that waits for 100 gets it from the gate; the server is not asked."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: 200000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        self.assertNotIn(b"xpect", await server.until(b"\r\n\r\n"))
        self.assertIn(b" 100 ", await client.until(b"\r\n\r\n"))
        client.send(b"x" * 200000)
        await server.exactly(200000)
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertIn(b" 204 ", await client.until(b"\r\n\r\n"))

    async def test_too_large(self) -> None:
        """A body over the server's bound is refused before the server is asked."""
        self.bed.spec = type(self.bed.spec)(
            name="srv", transport=self.bed.spec.transport, relay_body_bytes=10
        )
        client = await self.bed.client()
        client.send(b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: 11\r\n\r\n")
        self.assertIn(b" 413 ", await client.until(b"\r\n\r\n"))
        self.assertEqual(self.bed.leases[0].released, 1)
        self.assertEqual(self.bed.accepted, [])

    async def test_too_large_chunked(self) -> None:
        """A chunked body that grows over the bound is cut off on both sides."""
        self.bed.spec = type(self.bed.spec)(
            name="srv", transport=self.bed.spec.transport, relay_body_bytes=10
        )
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
        )
        await server.until(b"abcde")
        client.send(b"6\r\nabcdef\r\n")
        self.assertIn(b" 413 ", await client.until(b"\r\n\r\n"))
        await server.gone()
        self.assertEqual(self.bed.leases[0].released, 1)


class AnswerTests(RelayTestCase):
    """What reaches the client."""

    GET = b"GET /srv/x HTTP/1.1\r\nHost: g\r\n\r\n"

    async def test_head_method(self) -> None:
        """HEAD gets the length of the body it does not get."""
        client, server = await self.joined(b"HEAD /srv/x HTTP/1.1\r\nHost: g\r\n\r\n")
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
        self.assertIn(b"content-length: 12345\r\n", (await client.until(b"\r\n\r\n")).lower())
        client.send(self.GET)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")
        self.assertIn(b" 304 ", await client.until(b"\r\n\r\n"))
        self.assertEqual(len(self.bed.accepted), 1)

    async def test_old_client(self) -> None:
        """A client of HTTP/1.0 gets a chunked answer unchunked, ended by the connection."""
        client, server = await self.joined(b"GET /srv/x HTTP/1.0\r\nHost: g\r\n\r\n")
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        await client.gone()
        self.assertTrue(bytes(client.received).endswith(b"\r\n\r\nok"))

    async def test_old_server(self) -> None:
        """An answer ended by the server's connection is complete for the client, chunked."""
        client, server = await self.joined(self.GET)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        await client.until(b"3\r\nabc\r\n")
        server.wire.loseConnection()
        await client.until(b"0\r\n\r\n")

    async def test_refused_connection(self) -> None:
        """A server that is not there is 503, told in JSON with the request's id."""
        await self.bed._server.stopListening()
        client = await self.bed.client()
        client.send(self.GET)
        self.assertIn(b" 503 ", await client.until(b"\r\n\r\n"))
        await client.when(lambda: client.received.endswith(b"}}"))
        told = json.loads(bytes(client.received))["error"]
        self.assertEqual(told["reason"], "backend_unavailable")
        self.assertEqual(told["requestId"], "request-1")

    async def test_silent_server(self) -> None:
        """A server that never answers is 504."""
        self.bed.spec = type(self.bed.spec)(
            name="srv", transport=self.bed.spec.transport, call_timeout_s=0.2
        )
        client, server = await self.joined(self.GET)
        self.assertIn(b" 504 ", await client.until(b"\r\n\r\n"))
        await server.gone()

    async def test_death_before_head(self) -> None:
        """A server that dies before its answer is 502."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n"
        )
        await server.until(b"\r\n\r\n")
        server.wire.loseConnection()
        self.assertIn(b" 502 ", await client.until(b"\r\n\r\n"))

    async def test_death_in_body(self) -> None:
        """A server that dies inside its answer leaves the client one it knows to be cut."""
        client, server = await self.joined(self.GET)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")
        await client.until(b"\r\n\r\nabc")
        server.wire.loseConnection()
        await client.gone()
        self.assertFalse(self.bed.entries[0].complete)
        self.assertEqual(self.bed.leases[0].released, 1)

    async def test_second_answer(self) -> None:
        """Two answers to one request are none; the connection is not used again."""
        client, server = await self.joined(self.GET)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\nevil")
        self.assertIn(b" 502 ", await client.until(b"\r\n\r\n"))
        await server.gone()
        coming = Deferred.fromCoroutine(self.bed.server())
        client.send(self.GET)
        again = await coming
        await again.until(b"\r\n\r\n")
        again.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        await client.until(b"good")
        self.assertNotIn(b"evil", client.received)

    async def test_late_second_answer(self) -> None:
        """An answer nobody asked for, while the connection is idle, reaches nobody."""
        client, server = await self.joined(self.GET)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
        await client.until(b"\r\n\r\na")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await server.gone()
        self.assertEqual(self.bed.meters.events["upstream_bad_answer"], 1)

    async def test_client_leaves(self) -> None:
        """When the client goes, the server's connection is cut and the lease given back."""
        client, server = await self.joined(self.GET)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc")
        await client.until(b"\r\n\r\nabc")
        client.wire.abortConnection()
        await server.gone()
        self.assertEqual(self.bed.leases[0].released, 1)

    async def test_client_half_closes(self) -> None:
        """A client that closed its sending half still gets its answer."""
        client, server = await self.joined(self.GET)
        await server.until(b"\r\n\r\n")
        client.wire.loseWriteConnection()
        await self.bed.pause(0.05)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await client.until(b"\r\n\r\nok")


class EventStreamTests(RelayTestCase):
    """Server-Sent Events."""

    HEAD = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )

    async def test_unbuffered(self) -> None:
        """Each event arrives before the next is sent; proxies are told not to buffer."""
        client, server = await self.joined(AnswerTests.GET)
        await server.until(b"\r\n\r\n")
        server.send(self.HEAD)
        head = (await client.until(b"\r\n\r\n")).lower()
        self.assertIn(b"x-accel-buffering: no\r\n", head)
        self.assertIn(b"cache-control: no-cache, no-transform\r\n", head)
        for number in range(10):
            event = b"data: %d\n\n" % number
            server.send(b"%x\r\n%b\r\n" % (len(event), event))
            await client.until(event)
        self.assertEqual(self.bed.meters.streams, 1)
        server.send(b"0\r\n\r\n")
        await client.until(b"0\r\n\r\n")
        self.assertEqual(self.bed.meters.streams, 0)

    async def test_keepalive(self) -> None:
        """A silent stream gets comments between events, never inside one."""
        self.bed.keepalive_s = 0.1
        client, server = await self.joined(AnswerTests.GET)
        await server.until(b"\r\n\r\n")
        server.send(self.HEAD + b"5\r\ndata:\r\n")
        await client.until(b"data:")
        await self.bed.pause(0.3)
        self.assertNotIn(b":", client.received)
        server.send(b"4\r\n 1\n\n\r\n")
        await client.until(b" 1\n\n")
        await client.until(b": keepalive\n\n")


class WebSocketTests(RelayTestCase):
    """Upgraded connections."""

    ASK = (
        b"GET /srv/ws HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    GRANT = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )

    async def upgraded(self) -> tuple[Line, Line]:
        """Open a WebSocket."""
        client, server = await self.joined(self.ASK)
        head = (await server.until(b"\r\n\r\n")).lower()
        self.assertIn(b"connection: upgrade\r\n", head)
        self.assertIn(b"upgrade: websocket\r\n", head)
        server.send(self.GRANT + b"\x81\x02hi")
        head = (await client.until(b"\r\n\r\n")).lower()
        self.assertIn(b" 101 ", head)
        self.assertEqual(head.count(b"upgrade: websocket\r\n"), 1)
        self.assertIn(b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n", head)
        self.assertEqual(await client.exactly(4), b"\x81\x02hi")
        return client, server

    @staticmethod
    def masked(payload: bytes) -> bytes:
        """Make a client's text frame."""
        mask = b"\x01\x02\x03\x04"
        body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        return b"\x81\xfe" + struct.pack("!H", len(payload)) + mask + body

    async def test_echo(self) -> None:
        """Frames pass both ways as they are."""
        client, server = await self.upgraded()
        frame = self.masked(b"x" * 1000)
        client.send(frame)
        self.assertEqual(await server.exactly(len(frame)), frame)
        server.send(b"\x81\x7e\x03\xe8" + b"x" * 1000)
        self.assertEqual(len(await client.exactly(1004)), 1004)
        self.assertEqual(self.bed.meters.streams, 1)

    async def test_server_ends(self) -> None:
        """What the server said last arrives, then the client's connection ends."""
        client, server = await self.upgraded()
        server.send(b"\x88\x00")
        server.wire.loseConnection()
        await client.gone()
        self.assertEqual(bytes(client.received), b"\x88\x00")
        await self.bed.settled(lambda: self.bed.leases[0].released == 1)
        self.assertEqual(self.bed.meters.streams, 0)

    async def test_client_cut(self) -> None:
        """A client that is cut off ends the server's connection."""
        client, server = await self.upgraded()
        client.wire.abortConnection()
        await server.gone()
        await self.bed.settled(lambda: self.bed.leases[0].released == 1)

    async def test_slow_reader(self) -> None:
        """A client that does not read stops the server's writing; nothing is lost."""
        client, server = await self.upgraded()
        client.wire.pauseProducing()
        server.send(b"y" * (20 * MIB))
        await self.bed.pause(0.5)
        self.assertGreater(len(server.wire.dataBuffer) + server.wire._tempDataLen, 5 * MIB)
        client.keep = False
        client.wire.resumeProducing()
        await client.when(lambda: client.count >= 20 * MIB, 30)

    async def test_refused(self) -> None:
        """A server that does not want to upgrade gives an ordinary answer."""
        client, server = await self.joined(self.ASK)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        self.assertIn(b" 403 ", await client.until(b"\r\n\r\nno"))

    async def test_other_protocol(self) -> None:
        """An upgrade to what was not asked for is not passed on."""
        client, server = await self.joined(self.ASK)
        await server.until(b"\r\n\r\n")
        server.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        self.assertIn(b" 502 ", await client.until(b"\r\n\r\n"))
        await server.gone()
        self.assertEqual(self.bed.leases[0].released, 1)


class BulkTests(RelayTestCase):
    """Large bodies need little memory, however slow the reader."""

    async def test_down(self) -> None:
        """20 MB to a client that reads late: the server waits, the gate holds little."""
        client, server = await self.joined(AnswerTests.GET)
        await server.until(b"\r\n\r\n")
        before = resident_bytes()
        client.wire.pauseProducing()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (20 * MIB))
        for _ in range(20):
            server.send(bytes(MIB))
        await self.bed.pause(0.5)
        held = len(server.wire.dataBuffer) + server.wire._tempDataLen
        # Socket buffers of the kernel take some; the gate's share must be small.
        self.assertGreater(held, 8 * MIB)
        client.keep = False
        client.wire.resumeProducing()
        await client.when(lambda: client.count > 20 * MIB, 30)
        self.assertLess(resident_bytes() - before, 60 * MIB)
        self.assertEqual(self.bed.leases[0].released, 1)

    async def test_up(self) -> None:
        """20 MB to a server that reads late: the client waits, the gate holds little."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % (20 * MIB)
        )
        await server.until(b"\r\n\r\n")
        server.wire.pauseProducing()
        for _ in range(20):
            client.send(bytes(MIB))
        await self.bed.pause(0.5)
        held = len(client.wire.dataBuffer) + client.wire._tempDataLen
        self.assertGreater(held, 8 * MIB)
        server.keep = False
        server.count = 0
        server.wire.resumeProducing()
        await server.when(lambda: server.count == 20 * MIB, 30)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await client.until(b"\r\n\r\nok")

    async def test_up_chunked(self) -> None:
        """A chunked body of 20 MB arrives whole."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await server.until(b"\r\n\r\n")
        server.keep = False
        server.count = 0
        for _ in range(20):
            client.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
        await server.when(lambda: server.count >= 20 * MIB, 30)
        server.keep = True
        client.send(b"0\r\n\r\n")
        await server.until(b"0\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await client.until(b"\r\n\r\nok")

    async def test_early_answer(self) -> None:
        """A server that answers without reading the body is heard; the rest is not forced on it."""
        client, server = await self.joined(
            b"POST /srv/x HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % (20 * MIB)
        )
        await server.until(b"\r\n\r\n")
        client.send(bytes(MIB))
        server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        self.assertIn(b" 403 ", await client.until(b"\r\n\r\nno"))
        await server.gone()
        self.assertEqual(self.bed.leases[0].released, 1)
