"""
The front door on real sockets: the corpus of raw requests, and clients that are slow or leave.

Deadlines are shrunk, so that everything is over in seconds.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from time import monotonic
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import X509, PKey
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import CertificateOptions
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase
from typing_extensions import override

from mcpgate.interfaces import IInbound
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.front import FrontFactory
from tests.http.raw_requests import CORPUS, POST, Raw, head
from tests.web.front_kit import answers

QUICK = Bounds(
    connections=0,
    connections_per_address=0,
    head_s=0.3,
    body_grace_s=0.3,
    body_s=1.0,
    body_check_s=0.1,
    stalled_s=0.4,
    idle_s=0.5,
    linger_s=0.2,
)

# For clients that do nothing wrong: on a machine that does much else they may be slow, too.
ROOMY = replace(
    QUICK, head_s=20.0, body_grace_s=20.0, body_s=40.0, stalled_s=20.0, idle_s=20.0, linger_s=5.0
)
PATIENT_S = 60.0


class FrontSocketTests(TestCase):
    """What a client on a socket sees."""

    timeout = 300

    @override
    def setUp(self) -> None:
        from twisted.internet import reactor as installed  # noqa: TID251  # a test of real sockets

        self.reactor: Any = installed
        self.pool = ThreadPool(0, 8, "clients")
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.meters = Meters()
        self.entries: list[AccessEntry] = []
        self.gone: list[str] = []

    def listen(
        self,
        dispatch: Callable[[IInbound], None],
        bounds: Bounds = QUICK,
        *,
        secure: bool = False,
    ) -> tuple[FrontFactory, int]:
        """Open a front door; it is cleaned up after the test."""
        clock = IReactorTime(self.reactor)
        wheel = DeadlineWheel(clock, 0.05)
        numbers = count()
        factory = FrontFactory(
            clock=clock,
            wheel=wheel,
            bounds=bounds,
            dispatch=dispatch,
            make_request_id=lambda: f"id{next(numbers)}",
            record=self.entries.append,
            meters=self.meters,
            secure=secure,
        )
        outer: Any = factory
        if secure:
            outer = TLSMemoryBIOFactory(self_signed(), False, outer, clock)
        port = self.reactor.listenTCP(0, outer, interface="127.0.0.1")

        async def close() -> None:
            await port.stopListening()
            drained = factory.drain()
            factory.abort_all()
            await drained
            wheel.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(close()))
        return factory, int(port.getHost().port)

    def in_thread(self, call: Callable[[], Any]) -> Deferred[Any]:
        """Run a blocking client."""
        return deferToThreadPool(self.reactor, self.pool, call)

    @deferred
    async def test_corpus(self) -> None:
        """Every raw request gets its answer, and the connection its end, in time."""

        def collect(inbound: IInbound) -> None:
            inbound.read_body(4 * 1024 * 1024, lambda _: inbound.respond(200, [], b"{}"))

        _, port = self.listen(collect, ROOMY)

        def judge(raw: Raw) -> str:
            said, took = exchange(port, raw.data)
            if raw.status is None:
                right = said == b""
            else:
                statuses = [status for status, _, _ in answers(said)]
                expected = [200] * len(raw.bodies) if raw.status == 200 else [raw.status]
                right = statuses[: len(expected)] == expected
                if raw.status != 200:
                    right = right and len(statuses) == 1 and "requestId" in error_of(said)
            return (
                ""
                if right and took < ROOMY.head_s
                else f"{raw.name}: {said[:80]!r} in {took:.1f} s"
            )

        def judge_all() -> list[str]:
            with ThreadPoolExecutor(8) as clients:
                return [wrong for wrong in clients.map(judge, CORPUS) if wrong]

        self.assertEqual(await self.in_thread(judge_all), [])
        self.assertGreaterEqual(len(CORPUS), 90)
        self.assertEqual(self.flushLoggedErrors(), [])

    @deferred
    async def test_slow_header(self) -> None:
        """A header that trickles in is answered 408, and the connection ended (R24)."""
        _, port = self.listen(answer)
        said, took = await self.in_thread(
            lambda: trickle(port, b"GET / HTTP/1.1\r\nHost: x\r\n" * 9)
        )
        self.assertEqual(answers(said)[0][0], 408)
        self.assertLess(took, PATIENT_S)

    @deferred
    async def test_slow_body(self) -> None:
        """A body that trickles in is answered 408, and the connection ended (R25)."""
        _, port = self.listen(lambda inbound: inbound.read_body(10_000, self.fail))
        start = POST + b"Content-Length: 5000\r\n\r\n"
        said, took = await self.in_thread(lambda: trickle(port, b"a" * 200, start))
        self.assertEqual(answers(said)[0][0], 408)
        self.assertLess(took, PATIENT_S)

    @deferred
    async def test_idle(self) -> None:
        """An idle connection is closed (R27)."""
        _, port = self.listen(answer)
        said, took = await self.in_thread(lambda: exchange(port, head(), half_close=False))
        self.assertEqual([status for status, _, _ in answers(said)], [200])
        self.assertTrue(0.3 < took < PATIENT_S, took)

    @deferred
    async def test_slow_reader(self) -> None:
        """A client that does not read pauses the source, then is cut off (R26)."""
        paused: list[int] = []
        written: list[int] = []

        def pour(inbound: IInbound) -> None:
            flowing = [True]

            def pause() -> None:
                flowing[0] = False
                paused.append(1)

            def resume() -> None:
                flowing[0] = True
                flow()

            def flow() -> None:
                while flowing[0] and not inbound.finished:
                    inbound.write(b"a" * 65536)
                    written.append(65536)

            inbound.on_gone(lambda: self.gone.append("reader"))
            inbound.start(200, [], None)
            inbound.register_flow(pause, resume)
            flow()

        factory, port = self.listen(pour)

        def sit() -> float:
            with connected(port, small=True) as client:
                began = monotonic()
                client.sendall(head())
                while factory.connections or not self.meters.connections_total:
                    if monotonic() - began > PATIENT_S:
                        break
                    nap(0.05)
                return monotonic() - began

        took = await self.in_thread(sit)
        self.assertLess(took, PATIENT_S)
        self.assertTrue(paused)
        # What the kernel took, and no more than one buffer of ours.
        self.assertLess(sum(written), 16 * 1024 * 1024)
        self.assertEqual(self.gone, ["reader"])
        self.assertEqual(self.meters.events["slow_reader"], 1)
        self.assertFalse(self.entries[0].complete)

    @deferred
    async def test_large_answer(self) -> None:
        """A client that reads steadily, however large the answer, gets all of it."""
        size = 8 * 1024 * 1024
        _, port = self.listen(lambda inbound: inbound.respond(200, [], b"a" * size), ROOMY)

        def read() -> int:
            with connected(port, small=True) as client:
                client.sendall(head(b"Connection: close"))
                total = 0
                while piece := client.recv(256 * 1024):
                    total += len(piece)
                return total

        self.assertGreater(await self.in_thread(read), size)

    @deferred
    async def test_many_answers_in_order(self) -> None:
        """Answers a client asked for all at once arrive whole and in order, however it reads."""
        sizes = [(7919 * i) % 60_000 for i in range(300)]
        left = iter(sizes)

        def alternate(inbound: IInbound) -> None:
            size = next(left)
            body = bytes([size % 251]) * size
            if size % 3:
                inbound.respond(200, [], body)
            else:
                inbound.start(200, [], len(body))
                inbound.write(body[: size // 2])
                inbound.write(body[size // 2 :])
                inbound.finish()

        _, port = self.listen(alternate, ROOMY)

        def read() -> bytes:
            with connected(port, small=True) as client:
                client.sendall(head() * 299)
                client.sendall(head(b"Connection: close"))
                nap(0.1)
                return read_all(client)

        said = answers(await self.in_thread(read))
        self.assertEqual([len(body) for _, _, body in said], sizes)
        for size, (_, _, body) in zip(sizes, said, strict=True):
            self.assertEqual(body, bytes([size % 251]) * size)

    @deferred
    async def test_half_close(self) -> None:
        """A client that closes its sending side after a request gets its answer (R37)."""

        def later(inbound: IInbound) -> None:
            self.reactor.callLater(0.3, answer, inbound)

        _, port = self.listen(later, ROOMY)
        said, _ = await self.in_thread(lambda: exchange(port, head()))
        final = said.replace(b"HTTP/1.1 102 Processing\r\n\r\n", b"")
        self.assertEqual(answers(final)[0][0], 200)

    @deferred
    async def test_client_leaves(self) -> None:
        """A client that closes while it waits is noticed at once (R38)."""
        noticed: Deferred[float] = Deferred()
        left: list[float] = []

        def wait(inbound: IInbound) -> None:
            inbound.on_gone(lambda: noticed.callback(monotonic()))

        _, port = self.listen(wait, ROOMY)

        def leave() -> None:
            with connected(port) as client:
                client.sendall(head())
                nap(0.1)
                left.append(monotonic())

        await self.in_thread(leave)
        noticed.addTimeout(PATIENT_S, self.reactor)
        self.assertLess(await noticed - left[0], ROOMY.head_s / 2)

    @deferred
    async def test_early_refusal_is_readable(self) -> None:
        """A client that is still sending can read why it was refused (R16)."""
        _, port = self.listen(lambda inbound: inbound.read_body(1000, self.fail), ROOMY)
        data = POST + b"Content-Length: 3000000\r\n\r\n" + b"a" * 3_000_000
        said, took = await self.in_thread(lambda: exchange(port, data))
        self.assertEqual(answers(said)[0][0], 413)
        self.assertLess(took, PATIENT_S)

    @deferred
    async def test_flood_from_one_address(self) -> None:
        """Connections over the cap are told, and those below go on (R28)."""
        bounds = Bounds(connections=0, connections_per_address=3, linger_s=0.1)
        _, port = self.listen(answer, bounds)

        def flood() -> list[int]:
            statuses = []
            with connected(port) as one, connected(port) as two, connected(port) as three:
                for client in (one, two, three):
                    client.sendall(head())
                    statuses.append(answers(client.recv(4096))[0][0])
                for _ in range(3):
                    said, _took = exchange(port, b"", half_close=False)
                    statuses.append(answers(said)[0][0])
                one.sendall(head())
                statuses.append(answers(one.recv(4096))[0][0])
            return statuses

        self.assertEqual(await self.in_thread(flood), [200] * 3 + [503] * 3 + [200])

    @deferred
    async def test_tls(self) -> None:
        """The same behind TLS: answers, refusals, large bodies, slow readers."""

        def dispatch(inbound: IInbound) -> None:
            if inbound.head.path == b"/large":
                inbound.respond(200, [], b"a" * 4_000_000)
            else:
                answer(inbound)

        _, port = self.listen(dispatch, ROOMY, secure=True)
        factory, quick = self.listen(dispatch, secure=True)

        def over_tls(data: bytes) -> tuple[bytes, float]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with connected(port) as raw, context.wrap_socket(raw) as client:
                began = monotonic()
                client.sendall(data)
                return read_all(client), monotonic() - began

        said, _ = await self.in_thread(lambda: over_tls(head(b"Connection: close")))
        self.assertEqual([status for status, _, _ in answers(said)], [200])
        said, took = await self.in_thread(lambda: over_tls(head(b"nonsense") + head()))
        self.assertEqual([status for status, _, _ in answers(said)], [400])
        self.assertLess(took, PATIENT_S)
        large = head(b"Connection: close", start=b"GET /large HTTP/1.1\r\n")
        said, _ = await self.in_thread(lambda: over_tls(large))
        self.assertEqual(len(answers(said)[0][2]), 4_000_000)

        def sit() -> float:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with connected(quick, small=True) as raw, context.wrap_socket(raw) as client:
                client.sendall(large)
                began = monotonic()
                while factory.connections and monotonic() - began < PATIENT_S:
                    nap(0.05)
                return monotonic() - began

        self.assertLess(await self.in_thread(sit), PATIENT_S)
        self.assertEqual(self.meters.events["slow_reader"], 1)

    @deferred
    async def test_drain(self) -> None:
        """Draining waits for the call in work."""
        held: list[IInbound] = []
        factory, port = self.listen(held.append)

        def ask() -> bytes:
            return exchange(port, head(), half_close=False)[0]

        asked = self.in_thread(ask)
        while not held:
            await pause(self.reactor, 0.02)
        drained = factory.drain()
        await pause(self.reactor, 0.2)
        self.assertNoResult(drained)
        answer(held[0])
        await drained
        ((status, fields, _),) = answers(await asked)
        self.assertEqual((status, fields[b"connection"]), (200, b"close"))


def self_signed() -> CertificateOptions:
    """Give a certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate.test")])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return CertificateOptions(
        privateKey=PKey.from_cryptography_key(key), certificate=X509.from_cryptography(certificate)
    )


def answer(inbound: IInbound) -> None:
    """Answer at once."""
    inbound.respond(200, [], b"{}")


def pause(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Let the reactor turn for a while."""
    done: Deferred[None] = Deferred()
    clock.callLater(seconds, done.callback, None)
    return done


def nap(seconds: float) -> None:
    """Wait in a client's thread."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as idle:
        idle.bind(("127.0.0.1", 0))
        idle.settimeout(seconds)
        try:
            idle.recv(1)
        except TimeoutError:
            return


@contextmanager
def connected(port: int, *, small: bool = False) -> Iterator[socket.socket]:
    """Connect; with a small receive buffer if asked."""
    with socket.socket() as client:
        client.settimeout(PATIENT_S)
        if small:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.connect(("127.0.0.1", port))
        yield client


def read_all(client: socket.socket) -> bytes:
    """Read until the end, however it comes."""
    said = b""
    try:
        while piece := client.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    return said


def exchange(port: int, data: bytes, *, half_close: bool = True) -> tuple[bytes, float]:
    """Send everything, read until the end; give what was said and how long it took."""
    with connected(port) as client:
        began = monotonic()
        try:
            client.sendall(data)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return read_all(client), monotonic() - began


def trickle(port: int, data: bytes, start: bytes = b"") -> tuple[bytes, float]:
    """Send byte by byte until the other side has enough."""
    with connected(port) as client:
        began = monotonic()
        client.sendall(start)
        client.settimeout(0.02)
        for byte in data:
            try:
                client.sendall(bytes([byte]))
                if said := client.recv(65536):
                    client.settimeout(PATIENT_S)
                    return said + read_all(client), monotonic() - began
            except TimeoutError:
                continue
            except OSError:
                break
        return b"", monotonic() - began


def error_of(said: bytes) -> dict[str, object]:
    """Give the error object of a refusal."""
    error = json.loads(answers(said)[0][2])["error"]
    assert isinstance(error, dict)
    return error
