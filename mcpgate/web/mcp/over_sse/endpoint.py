"""
HTTP+SSE of 2024-11-05 towards clients: ``GET /{server}/sse`` and ``POST /{server}/messages``.

The stream's first event tells the client where to POST, with an id of the gate's.  That id names
the stream and nothing else: it opens no session at ``/{server}/mcp``, nor is an ``Mcp-Session-Id``
good for anything here.  A POST is answered 202 at once; what is to be said comes on the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs

from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import (
    BadRequest,
    GateError,
    MethodNotAllowed,
    NotAcceptable,
    Overloaded,
    SessionNotFound,
    UnsupportedMediaType,
)
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route
from mcpgate.gate.sessions import SessionTable, session_label
from mcpgate.interfaces import IInbound
from mcpgate.mcp.jsonrpc import Batch, decode, salvage_id
from mcpgate.model import Caller, Principal, ServerSpec
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.answer import STREAM_FIELDS
from mcpgate.web.mcp.over_sse.stream import SSEStream
from mcpgate.web.mcp.post import Speaker
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import accepts, refuse_message

log = Logger()

_STREAM_METHODS = ((b"allow", b"GET, OPTIONS"),)
_MESSAGE_METHODS = ((b"allow", b"POST, OPTIONS"),)
_ACCEPTED = [(b"content-type", b"text/plain; charset=utf-8")]


class SSEEndpoint:
    """
    Serves both paths of every server.

    :param speaker: gives the speaker of a server.
    :param make_id: gives ids of streams: 128 random bits that need no escaping in a URL.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        sessions: SessionTable,
        speaker: Callable[[ServerSpec], Speaker],
        wheel: DeadlineWheel,
        meters: Meters,
        keepalive_s: float,
        streams_per_key: int,
        make_id: Callable[[], str],
    ) -> None:
        self.gate = gate
        self.sessions = sessions
        self.speaker = speaker
        self.wheel = wheel
        self.meters = meters
        self.keepalive_s = keepalive_s
        self._streams_per_key = streams_per_key
        self._make_id = make_id
        self._streams: dict[tuple[Principal, str], SSEStream] = {}
        # Only to tell a stolen id from an invented one; never used to find a stream.
        self._ids: set[str] = set()

    def __len__(self) -> int:
        return len(self._streams)

    def serve(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        """Answer one request of a known caller."""
        try:
            if route.rest.startswith(b"/sse"):
                self._serve_stream(inbound, caller, route)
            else:
                self._serve_message(inbound, caller, route)
        except Exception:
            refuse_message(inbound, public(Failure(), inbound), None, live=False)

    def close(self, principal: Principal | None = None) -> None:
        """
        End streams politely.

        :param principal: whose: the key was revoked, so they end at once.  None: everybody's, each
            as soon as what is in work on it is answered.
        """
        for (owner, _), stream in tuple(self._streams.items()):
            if principal is None:
                stream.finish()
            elif owner == principal:
                stream.close()

    def forget(self, stream: SSEStream) -> None:
        """Take a stream out: it has ended."""
        self._streams.pop((stream.caller.principal, stream.stream_id), None)
        self._ids.discard(stream.stream_id)

    # --- GET ------------------------------------------------------------------------------------

    def _serve_stream(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        method = inbound.head.method
        if method == "OPTIONS":
            inbound.respond(204, list(_STREAM_METHODS), b"")
        elif method not in ("GET", "HEAD"):
            # What a newer client, that tries Streamable HTTP first, takes for "use GET".
            raise MethodNotAllowed(fields=_STREAM_METHODS)
        elif not accepts(inbound.head)[1]:
            raise NotAcceptable("This is an event stream: Accept must list text/event-stream.")
        elif method == "HEAD":
            inbound.respond(200, list(STREAM_FIELDS), b"")
        else:
            self._open(inbound, caller, route)

    def _open(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        release = self.gate.open_stream(caller, self._streams_per_key)
        stream_id = self._make_id()
        path = inbound.head.path
        # As the client sees it, alias and all; of the same origin, as clients demand.
        prefix = (inbound.peer.prefix + path[: len(path) - len(route.rest)]).decode("ascii")
        stream = SSEStream(
            self,
            inbound,
            caller,
            route.spec,
            stream_id,
            path=f"{prefix}/messages?session_id={stream_id}",
            release=release,
        )
        if not stream.over:
            self._streams[caller.principal, stream_id] = stream
            self._ids.add(stream_id)

    # --- POST -----------------------------------------------------------------------------------

    def _serve_message(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        method = inbound.head.method
        if method == "OPTIONS":
            inbound.respond(204, list(_MESSAGE_METHODS), b"")
            return
        if method != "POST":
            raise MethodNotAllowed(fields=_MESSAGE_METHODS)
        stream = self._find(inbound, caller, route)
        fields = inbound.head.fields
        kind = (fields.get(b"content-type") or b"").split(b";")[0].strip().lower()
        coding = (fields.get(b"content-encoding") or b"identity").lower()
        if kind != b"application/json" or coding != b"identity":
            raise UnsupportedMediaType
        if stream.overfull:
            raise Overloaded("Read the event stream first.", retry_after_s=1.0)
        inbound.read_body(
            route.spec.max_body_bytes, lambda body: self._posted(inbound, caller, stream, body)
        )

    def _find(self, inbound: IInbound, caller: Caller, route: Route) -> SSEStream:
        given = parse_qs((inbound.head.query or b"").decode("latin-1")).get("session_id", [])
        if len(given) != 1:
            raise BadRequest("session_id must be sent once, as the endpoint event has it.")
        stream = self._streams.get((caller.principal, given[0]))
        if stream is None or stream.spec.name != route.spec.name:
            if stream is None and given[0] in self._ids:
                self.meters.events["session_theft"] += 1
                log.warn(
                    "A session id of somebody else was presented by {owner} for {server}",
                    ev="session_theft",
                    owner=caller.principal.fingerprint,
                    server=route.spec.name,
                )
            raise SessionNotFound
        inbound.notes["session"] = session_label(given[0])
        return stream

    def _posted(self, inbound: IInbound, caller: Caller, stream: SSEStream, body: bytes) -> None:
        message_id = None
        try:
            message = decode(body)
            if stream.over:
                raise SessionNotFound
            messages = stream.check(message)
        except GateError as error:
            if not isinstance(error, SessionNotFound):
                message_id = salvage_id(body)
            refuse_message(inbound, error, message_id, live=False)
            return
        inbound.respond(202, _ACCEPTED, b"Accepted")
        stream.take(inbound, caller, messages, body, batch=isinstance(message, Batch))
