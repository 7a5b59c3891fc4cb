"""
A worker's end: every request goes on to the owner as it came, and its answer back.

The same passage as the byte relay's, with other rules for fields: nothing is taken out but what is
said of one connection, and who the client is goes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import BadRequest, GateError, Overloaded
from mcpgate.http.fields import Fields
from mcpgate.http.forwarding import FieldLines, Forwarding, connection_options
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.http.responses import ResponseHeads, ResponseLimits
from mcpgate.http.strictness import is_sensitive
from mcpgate.interfaces import IInbound, IInstance, ILease, IResponseReceiver
from mcpgate.model import KIB, Caller, Principal, Secret, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.exchange import Exchange
from mcpgate.upstream.http import HTTPUpstream, UpstreamLimits
from mcpgate.web.refusal import refuse
from mcpgate.web.relay.relay import Relay
from mcpgate.web.workers.told import FIELD, Told, write_told

#: The owner ends every wait by itself; this is for one that has lost its mind.
SILENCE_S: Final = 6 * 3600.0

#: In an entry of the access log: the owner tells of this request.
PASSED: Final = "passed"

_OF_ONE_CONNECTION: Final = frozenset(
    {
        FIELD,
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)

_NO_HOST: Final = b"none.invalid"
# An answer may be as large as a server's, and has the owner's own fields beside.
_ANSWERS: Final = ResponseLimits(head_bytes=72 * KIB, fields=240)

_OWNER: Final = ServerSpec(
    name="owner", transport=Transport.HTTP, relay_body_bytes=0, call_timeout_s=SILENCE_S
)
_WORKER: Final = Caller(Principal("worker", "worker", ""), Secret(""))


class _Verbatim(Forwarding):
    """Passes fields on as they are, with what is told of the request in front."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self._channel = channel

    @override
    def relay_request(
        self,
        head: RequestHead,
        peer: Peer,
        spec: ServerSpec,
        caller: Caller,
        *,
        prefix: bytes = b"",
        request_id: str = "",
    ) -> FieldLines:
        lines = _lasting(head.fields)
        if head.upgrade:
            lines.append((b"upgrade", head.upgrade))
        major, minor = head.version
        told = Told(
            self._channel,
            peer,
            request_id,
            protocol=f"HTTP/{major}" if major == 2 else f"HTTP/{major}.{minor}",
            hostless=b"host" not in head.fields,
        )
        return [(FIELD, write_told(told)), *lines]

    @override
    def relay_response(
        self, fields: Fields, spec: ServerSpec, *, authority: bytes, prefix: bytes
    ) -> FieldLines:
        return _lasting(fields)


def _lasting(fields: Fields) -> FieldLines:
    """
    Give the fields that are said of more than one connection.

    What the owner judges by stays, whatever ``Connection`` lists: it sees to it that servers do not
    get what is listed there.
    """
    dropped = _OF_ONE_CONNECTION
    if b"connection" in fields:
        listed = connection_options(fields)
        dropped |= {name for name in listed if not is_sensitive(name)}
    return [line for line in fields.lines if line[0] not in dropped]


class _Owner(HTTPUpstream):
    """The owner as a server: it is told the ``Host`` that the client named."""

    @override
    def send(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        **how: Any,
    ) -> Exchange:
        # Read while the head is written, which is before `send` returns.
        self.authority = next((value for name, value in fields if name == b"host"), _NO_HOST)
        try:
            return super().send(method, target, fields, body, receiver, **how)
        finally:
            self.authority = b"the owner"


@implementer(ILease)
class _Lease:
    """The owner is there as long as the worker is."""

    instance: IInstance

    def __init__(self, upstream: HTTPUpstream) -> None:
        self.upstream = upstream

    def touch(self) -> None:
        """See `ILease.touch`."""

    def make_passive(self, stopped: Callable[[], None]) -> None:
        """See `ILease.make_passive`."""

    def release(self) -> None:
        """See `ILease.release`."""


def _note_sent(inbound: IInbound) -> None:
    inbound.notes[PASSED] = True


def _failed(inbound: IInbound, lease: ILease, error: GateError, sent: bool) -> None:
    if sent or inbound.started:
        # As when a gate without workers has died: nobody knows what became of the request.
        inbound.abort()
        return
    # The owner never saw it, so it is this worker's to answer and to tell of.
    inbound.notes.pop(PASSED, None)
    refuse(inbound, error if isinstance(error, BadRequest) else Overloaded(retry_after_s=1.0))


class Passing:
    """
    Hands requests on to the owner.

    :param make_endpoint: gives the way to the owner's socket.
    """

    def __init__(
        self,
        clock: IReactorTime,
        make_endpoint: Callable[[], IStreamClientEndpoint],
        *,
        wheel: DeadlineWheel,
        meters: Meters,
    ) -> None:
        self._clock = clock
        self._wheel = wheel
        self._meters = meters
        self._lease = _Lease(
            _Owner(
                clock,
                make_endpoint,
                authority=b"",
                wheel=wheel,
                meters=meters,
                limits=UpstreamLimits(connections=1 << 20, idle_connections=1024, idle_s=60.0),
                # No two heads are the same: each has its request's id.
                heads=ResponseHeads(_ANSWERS, remember=0),
            )
        )

    def channel(self, number: int) -> Callable[[IInbound], None]:
        """Give the dispatch of a listener that the owner knows by this number."""
        relay = Relay(
            self._clock,
            self._wheel,
            _Verbatim(number),
            self._meters,
            keepalive_s=0.0,
            sending=_note_sent,
            fail=_failed,
        )

        def pass_on(inbound: IInbound) -> None:
            head = inbound.head
            target = head.path if head.query is None else b"%b?%b" % (head.path, head.query)
            relay.relay(inbound, self._lease, _OWNER, _WORKER, target=target, prefix=b"")

        return pass_on
