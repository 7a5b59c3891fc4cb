"""TLS on sockets of our own: whole conversations with clients whose TLS is another's."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor  # noqa: TID251 - real sockets need the real one
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase
from typing_extensions import override
from zope.interface import implementer

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.poller import polled
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.handshake import GateTLS, TLSFactory
from mcpgate.web.listening.tls import HTTP1, HTTP2, CertificateStore
from mcpgate.web.listening.tls_socket import TLSSocket
from tests.functional.gate_process import PATIENT_S
from tests.web.memory_tls import write_certificate

BULK = os.urandom(1 << 20) * 6


@implementer(IHalfCloseableProtocol)
class Talk(Protocol):
    """Says back what it hears, as fast as the client reads; keeps what became of it."""

    transport: Any

    def __init__(self) -> None:
        self.made: Deferred[ITransport] = Deferred()
        self.lost: Deferred[object] = Deferred()
        self.shut: Deferred[None] = Deferred()
        self.heard = 0
        self.echoing = True

    @override
    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.made.callback(self.transport)

    @override
    def dataReceived(self, data: bytes) -> None:
        self.heard += len(data)
        if self.echoing:
            self.transport.write(data)

    def pauseProducing(self) -> None:
        """Hear no more while the client does not read."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Hear on."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is over."""

    def readConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`: not over TLS."""
        raise AssertionError("under TLS nobody closes half")

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`."""
        self.shut.callback(None)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.value is not None
        self.lost.callback(reason.value)


class Talks(Factory[Talk]):
    """Keeps the newest."""

    noisy = False

    def __init__(self) -> None:
        self.newest = Talk()
        self.count = 0

    @override
    def buildProtocol(self, addr: IAddress | None) -> Talk:
        self.newest = Talk()
        self.count += 1
        return self.newest


class SocketCase(TestCase):
    """A port that says everything back."""

    timeout = PATIENT_S

    @override
    def setUp(self) -> None:
        directory = self.mktemp()
        store = CertificateStore(
            [write_certificate(directory, "a", "localhost")],
            now=lambda: datetime.now(UTC),
            meters=Meters(),
            http2=True,
        )
        wheel = DeadlineWheel(reactor, 0.1)
        self.addCleanup(wheel.stop)
        self.talks = Talks()
        factory = TLSFactory(
            store,
            {HTTP1: self.talks, HTTP2: self.talks},
            clock=reactor,
            wheel=wheel,
            meters=Meters(),
        )
        self.pool = ThreadPool(0, 2, "clients")
        self.pool.start()
        self.addCleanup(self.pool.stop)
        port = polled(reactor).listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.number = port.getHost().port

    def work(self, work: Callable[[], object]) -> Deferred[Any]:
        """Do what blocks, beside the reactor."""
        return deferToThreadPool(reactor, self.pool, work)  # type: ignore[arg-type]  # it has threads

    async def made(self, count: int) -> Talk:
        """Wait until so many connections were made; give the newest."""
        while self.talks.count < count:
            await deferLater(reactor, 0.01)
        await self.talks.newest.made
        return self.talks.newest

    def connect(self, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *alpn: str) -> ssl.SSLSocket:
        """Shake hands."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = newest
        if alpn:
            context.set_alpn_protocols(list(alpn))
        plain = socket.create_connection(("127.0.0.1", self.number), PATIENT_S)
        return context.wrap_socket(plain, suppress_ragged_eofs=False)


def read(client: ssl.SSLSocket, size: int) -> bytes:
    """Read so many bytes."""
    data = bytearray()
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


class TalkTests(SocketCase):
    """Bytes in both directions."""

    async def test_small(self) -> None:
        """Records of one byte, of one just full, of one more; each comes back as it was."""

        def talk(newest: ssl.TLSVersion) -> None:
            with self.connect(newest) as client:
                for size in (1, 16383, 16384, 16385, 2, 65536, 70001, 1):
                    client.sendall(BULK[:size])
                    assert read(client, size) == BULK[:size], size

        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            await self.work(lambda newest=newest: talk(newest))  # type: ignore[misc]  # mypy's limit
            self.assertIsInstance(await self.talks.newest.made, TLSSocket)
            await self.talks.newest.lost

    async def test_bulk(self) -> None:
        """Megabytes both ways at once, to a client that reads late."""

        def talk() -> bytes:
            with self.connect() as client:
                sender = threading.Thread(target=client.sendall, args=(BULK,))
                sender.start()
                sender.join(1.0)  # By then everything between the two is full.
                data = read(client, len(BULK))
                sender.join(PATIENT_S)
                return data

        self.assertEqual(await self.work(talk), BULK)
        self.assertEqual(self.talks.newest.heard, len(BULK))
        await self.talks.newest.lost

    async def test_other_ways(self) -> None:
        """HTTP/2 goes on through Twisted's own TLS."""

        def talk() -> bytes:
            with self.connect(ssl.TLSVersion.TLSv1_3, "h2") as client:
                client.sendall(b"hello")
                return read(client, 5)

        self.assertEqual(await self.work(talk), b"hello")
        self.assertIsInstance(await self.talks.newest.made, GateTLS)
        await self.talks.newest.lost

    async def test_right_behind_the_handshake(self) -> None:
        """What comes in one piece with the handshake's end, whole or in part, is heard."""

        def talk(cut: int) -> bytes:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            tls = SSL.Connection(context, None)
            tls.set_connect_state()
            with socket.create_connection(("127.0.0.1", self.number), PATIENT_S) as plain:
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except SSL.WantReadError:
                        with contextlib.suppress(SSL.WantReadError):
                            plain.sendall(tls.bio_read(1 << 16))
                        tls.bio_write(plain.recv(1 << 16))
                tls.send(b"hello")
                data = tls.bio_read(1 << 16)
                plain.sendall(data[: len(data) - cut])
                if cut:
                    # The rest only when the first part was taken in.
                    self.begun.wait(PATIENT_S)
                    plain.sendall(data[-cut:])
                while True:
                    try:
                        return tls.recv(100)
                    except SSL.WantReadError:
                        tls.bio_write(plain.recv(1 << 16))

        for count, cut in enumerate((0, 5), 1):
            self.begun = threading.Event()
            waiting = self.work(lambda cut=cut: talk(cut))  # type: ignore[misc]  # mypy's limit
            self.assertIsInstance((await self.made(count)).transport, TLSSocket)
            self.begun.set()
            self.assertEqual(await waiting, b"hello")
            await self.talks.newest.lost


class EndTests(SocketCase):
    """How connections end."""

    async def test_client_leaves(self) -> None:
        """Who says goodbye is gone for good, and gets one back."""

        def talk() -> None:
            client = self.connect()
            client.sendall(b"x")
            assert read(client, 1) == b"x"
            with client.unwrap() as plain:
                assert plain.recv(1) == b""

        await self.work(talk)
        self.assertIsInstance(await self.talks.newest.lost, ConnectionDone)

    async def test_client_vanishes(self) -> None:
        """Who closes without a word, or speaks nonsense, is lost."""

        def vanish() -> None:
            with self.connect() as client:
                client.sendall(b"x")
                assert read(client, 1) == b"x"

        def rave() -> None:
            client = self.connect()
            client.sendall(b"x")
            assert read(client, 1) == b"x"
            with socket.socket(fileno=client.detach()) as plain:
                plain.setblocking(True)
                plain.sendall(b"no record at all, whatever one takes it for")
                with contextlib.suppress(ConnectionError):
                    while plain.recv(100):
                        pass

        for how in (vanish, rave):
            await self.work(how)
            self.assertIsInstance(await self.talks.newest.lost, ConnectionLost)

    async def test_all_is_sent_before_the_end(self) -> None:
        """Closing sends what waits, then the alert: the client sees it is complete."""
        for count, whole in enumerate((True, False), 1):
            client = await self.work(self.connect)
            talk = await self.made(count)
            transport = talk.transport
            transport.unregisterProducer()
            transport.write(BULK)
            (transport.loseConnection if whole else transport.loseWriteConnection)()

            def drain(client: ssl.SSLSocket = client) -> bytes:
                return read(client, len(BULK) + 1)

            self.assertEqual(await self.work(drain), BULK)
            if not whole:
                await talk.shut
                talk.echoing = False

                def say(client: ssl.SSLSocket = client) -> None:
                    client.sendall(b"still here")

                await self.work(say)
                client.close()
                await talk.lost
                self.assertEqual(talk.heard, 10)
            else:
                self.assertIsInstance(await talk.lost, ConnectionDone)
                client.close()

    async def test_sent_at_once(self) -> None:
        """What the system takes is sent without a turn of the reactor; the rest is told."""
        client = await self.work(self.connect)
        self.addCleanup(client.close)
        talk = await self.made(1)
        transport = talk.transport
        transport.unregisterProducer()
        sent = 0
        while (done := transport.send_now(BULK[sent : sent + 65536])) == 65536:
            sent += done
        # What was begun must go on with the same bytes.
        transport.write(BULK[sent + done :])
        transport.loseConnection()

        def drain() -> bytes:
            return read(client, len(BULK) + 1)

        self.assertEqual(await self.work(drain), BULK)
        self.assertIsInstance(await talk.lost, ConnectionDone)

    async def test_cut(self) -> None:
        """A connection that is cut is lost at once; what is sent afterwards is nothing."""
        client = await self.work(self.connect)
        self.addCleanup(client.close)
        transport = (await self.made(1)).transport
        transport.abortConnection()
        await self.talks.newest.lost
        transport.write(b"x")
        transport.loseConnection()
