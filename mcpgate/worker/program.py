"""
The program of a worker, started by the owner and by nobody else.

Its standard input tells first what to do (`Assignment`), later when to stop; see
`mcpgate.worker.reporting`.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet import stdio
from twisted.internet.defer import DeferredList
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger, globalLogPublisher

from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.admission import Admission, RateLimiter
from mcpgate.gate.server_hosts import ServerHosts
from mcpgate.gate.tolls import Tolls
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import IInbound
from mcpgate.model import Rate
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.stalls import StallProbe
from mcpgate.timing.poller import polled
from mcpgate.timing.ticker import Ticker
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.remote import reach
from mcpgate.web.guard import Guard
from mcpgate.web.listening.acceptor import Acceptor
from mcpgate.web.listening.certificates import CertificateFiles
from mcpgate.web.listening.handshake import TLSFactory
from mcpgate.web.listening.listeners import Kind
from mcpgate.web.listening.proxied import ProxiedFactory
from mcpgate.web.listening.tls import HTTP1, HTTP2, CertificateStore
from mcpgate.web.wire.front import AnswerBudget, BodyBudget, FrontFactory
from mcpgate.web.wire.http2 import HTTP2Factory
from mcpgate.web.wire.request_ids import request_ids
from mcpgate.web.workers.assignment import Assignment, SharedSocket, read_assignment
from mcpgate.web.workers.buckets import SharedBuckets
from mcpgate.web.workers.granted import Granted
from mcpgate.web.workers.passing import Passing
from mcpgate.web.workers.places import SharedPlaces
from mcpgate.web.workers.uses import Uses
from mcpgate.worker.reporting import OwnerLine, OwnerObserver

log = Logger()

REPORT_S: Final = 1.0
#: What was served is told of this often, many requests at once.
ENTRIES_S: Final = 0.1
#: Certificates that changed are noticed this often.
REFRESH_S: Final = 2.0
LAST_WORDS_S: Final = 1.0
_ASSIGNMENT_BYTES: Final = 1 << 20


class Worker:
    """
    Everything between shared sockets and the owner.

    :param wall: seconds since the epoch.
    :param stop: called once, when the worker is to end.
    """

    def __init__(
        self,
        reactor: Any,
        assignment: Assignment,
        *,
        wall: Callable[[], float],
        stop: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets = polled(reactor)
        self._assignment = assignment
        self._stop = stop
        self._meters = Meters()
        self._wheel = DeadlineWheel(reactor)
        self._fronts: list[FrontFactory | HTTP2Factory] = []
        self._acceptors: list[tuple[int, Acceptor]] = []
        self.line = OwnerLine(self._told, self._end, wall)
        self._passing = Passing(
            reactor,
            lambda: UNIXClientEndpoint(sockets, assignment.link, checkPID=False),
            wheel=self._wheel,
            # The link is no server's connection: nobody counts it.
            meters=Meters(),
        )
        self._ended = False
        self._make_id = request_ids(secrets.token_hex(4))
        bounds = assignment.bounds
        slots = SharedPlaces(assignment.places, assignment.part)
        self._granted = self._make_granted(assignment, slots)
        self._http2: dict[str, Any] = dict(
            clock=reactor,
            wheel=self._wheel,
            bounds=bounds,
            make_request_id=self._make_id,
            record=self.line.record,
            meters=self._meters,
            slots=slots,
            budget=BodyBudget(bounds.bodies_bytes),
            wall=wall,
        )
        self._http1 = dict(self._http2, answers=AnswerBudget(bounds.answers_bytes))
        self._store: CertificateStore | None = None
        if assignment.certificates:
            self._store = CertificateStore(
                [CertificateFiles(chain=chain, key=key) for chain, key in assignment.certificates],
                now=lambda: datetime.now(UTC),
                meters=self._meters,
                http2=assignment.http2,
                min_version=assignment.min_version,
            )
        self._services = [
            StallProbe(reactor, self._meters),
            Ticker(reactor, REPORT_S, self._report, name="report"),
            Ticker(reactor, ENTRIES_S, self.line.flush, name="entries"),
            Ticker(reactor, REFRESH_S, self._refresh, name="certificates"),
        ]

    def _make_granted(self, assignment: Assignment, slots: SharedPlaces) -> Granted:
        reactor, rules = self._reactor, assignment.rules
        server_hosts = ServerHosts(rules.server_hosts, urlsplit(rules.public_url).hostname or "")
        limiter = SharedBuckets(reactor.seconds, assignment.buckets, RateLimiter(reactor))
        return Granted(
            reactor,
            wheel=self._wheel,
            meters=self._meters,
            uses=Uses(assignment.uses, assignment.part),
            guard=Guard(
                # Each grant is for one host that the owner's guard has let in.
                allowed_hosts=("*",),
                allowed_origins=rules.allowed_origins,
                trusted_proxies=rules.trusted_proxies,
                public_url=rules.public_url,
            ),
            server_hosts=server_hosts,
            headers=tuple(name.encode("ascii") for name in rules.headers),
            anonymous=rules.anonymous,
            digest=KeyDigest(bytes.fromhex(rules.digest_key)),
            tolls=Tolls(
                Admission(
                    limiter,
                    slots,
                    per_key=None if rules.per_key is None else Rate(*rules.per_key),
                    per_address=None,
                    per_server=None if rules.per_server is None else Rate(*rules.per_server),
                    concurrent_per_key=rules.concurrent_per_key,
                    call_cost=rules.call_cost,
                ),
                self._meters,
            ),
            forwarding=Forwarding(rules.headers),
            keepalive_s=rules.keepalive_s,
            reach=lambda spec, address: reach(self._sockets, spec, address),
            renew=lambda serial: self.line.tell({"renew": serial}),
            has_room=lambda: self.line.has_room,
        )

    def start(self) -> None:
        """Accept connections, and say so."""
        for shared in self._assignment.sockets:
            acceptor = Acceptor(
                self._sockets, socket.socket(fileno=shared.descriptor), self._factory(shared)
            )
            acceptor.start()
            self._acceptors.append((shared.channel, acceptor))
        for service in self._services:
            service.startService()
        self.line.tell({"ready": True})

    def _factory(self, shared: SharedSocket) -> IProtocolFactory:
        pass_on = self._passing.channel(shared.channel)
        factory = self._http_factory(shared, self._granted.channel(shared.channel, pass_on))
        if shared.proxied:
            return ProxiedFactory(factory, wheel=self._wheel, meters=self._meters)
        return factory

    def _http_factory(
        self, shared: SharedSocket, dispatch: Callable[[IInbound], None]
    ) -> IProtocolFactory:
        secure = shared.kind is Kind.TLS
        front = FrontFactory(dispatch=dispatch, secure=secure, **self._http1)
        self._fronts.append(front)
        if not secure:
            return front
        assert self._store is not None
        protocols: dict[bytes, IProtocolFactory] = {HTTP1: front}
        if self._assignment.http2:
            h2_front = HTTP2Factory(dispatch=dispatch, **self._http2)
            self._fronts.append(h2_front)
            protocols[HTTP2] = h2_front
        return TLSFactory(
            self._store,
            protocols,
            clock=self._reactor,
            wheel=self._wheel,
            meters=self._meters,
            handshake_s=self._assignment.handshake_s,
        )

    def _refresh(self) -> None:
        if self._store is not None:
            self._store.refresh()

    def _report(self) -> None:
        self._granted.look()
        meters = self._meters
        self.line.tell(
            {
                "connections": meters.connections,
                "connections_total": meters.connections_total,
                "longest_turn_s": meters.longest_turn_s,
                "streams": meters.streams,
                "calls_in_work": meters.calls_in_work,
                # Certificates are the owner's to tell of, once.
                "events": {
                    event: count
                    for event, count in meters.events.items()
                    if not event.startswith("certificate_")
                },
            }
        )

    # --- What the owner says --------------------------------------------------------------------

    def _told(self, message: dict[str, Any]) -> None:
        if "drain" in message:
            self._drain()
        elif "accept" in message:
            for channel, acceptor in self._acceptors:
                if channel in message["channels"]:
                    acceptor.hold(not message["accept"])
        elif "certificates" in message:
            self._refresh()
        else:
            self._granted.told(message)

    def _drain(self) -> None:
        """Accept nothing more; end when every connection has ended.  The owner has the clock."""
        for _, acceptor in self._acceptors:
            acceptor.close()
        drained = DeferredList([front.drain() for front in self._fronts])
        drained.addCallback(lambda _: self._over())

    def _over(self) -> None:
        self.line.flush()
        self._report()
        # What was said last gets out; then the line ends, and with it the worker.
        self.line.transport.loseConnection()
        self._reactor.callLater(LAST_WORDS_S, self._end)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._stop()


def read_first_line(descriptor: int) -> bytes:
    """
    Read a line, and not a byte more; blocks until it is there.

    :raises EOFError: the owner has gone, or never was one.
    """
    read = bytearray()
    while not read.endswith(b"\n"):
        piece = os.read(descriptor, 1)
        if not piece or len(read) > _ASSIGNMENT_BYTES:
            raise EOFError("this program is started by the gate, with its orders on the input")
        read += piece
    return bytes(read)


def main() -> None:
    """Run a worker until its owner ends it, or ends."""
    # The owner decides when to stop, also when a whole process group is told to.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    assignment = read_assignment(read_first_line(0))

    from twisted.internet import reactor as chosen  # noqa: PLC0415, TID251 - a program chooses

    reactor: Any = chosen
    reactor.seconds = time.monotonic
    worker = Worker(
        reactor,
        assignment,
        wall=time.time,  # noqa: TID251 - a program reads clocks and hands them on
        stop=lambda: reactor.running and reactor.stop(),
    )
    globalLogPublisher.addObserver(OwnerObserver(worker.line))
    stdio.StandardIO(worker.line, reactor=reactor)
    reactor.callWhenRunning(worker.start)
    reactor.run(installSignalHandlers=False)
