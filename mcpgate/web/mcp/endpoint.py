"""
The MCP endpoint of one server: Streamable HTTP towards clients.

What is of the modern era goes to `mcpgate.web.mcp.modern.endpoint`.  For the legacy one this checks
what the transport demands (2025-03-26 .. 2025-11-25), finds the session, charges the limits, and
hands the message to the speaker of the server's transport.  It does not know how the server is
spoken to.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.python.failure import Failure

from mcpgate.errors import (
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    SessionNotFound,
    UnsupportedMediaType,
)
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.interfaces import IInbound
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import (
    Batch,
    Message,
    Request,
    Response,
    decode,
    encode,
    salvage_id,
)
from mcpgate.mcp.methods import DISCOVER, INITIALIZE, PING
from mcpgate.mcp.revisions import REVISIONS, Era
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.mcp.answer import STREAM_FIELDS
from mcpgate.web.mcp.modern.endpoint import ModernEndpoint, is_modern
from mcpgate.web.mcp.opening import check_initialize, new_session, taken_apart
from mcpgate.web.mcp.post import SESSION, VERSION, Post, Speaker
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import JSON, NO_STORE, accepts, refuse_batch, refuse_message

__all__ = ["MCPEndpoint", "Speaker"]

METHODS = ((b"allow", b"GET, POST, DELETE, OPTIONS"),)


class MCPEndpoint:
    """
    Serves POST, GET and DELETE of ``/{server}/mcp``.

    :param speaker: gives the speaker of a server.
    :param modern: serves what is of the modern era.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        sessions: SessionTable,
        speaker: Callable[[ServerSpec], Speaker],
        streams_per_key: int,
        modern: ModernEndpoint,
    ) -> None:
        self._modern = modern
        self._gate = gate
        self._sessions = sessions
        self._speaker = speaker
        self._streams_per_key = streams_per_key

    def serve(self, inbound: IInbound, caller: Caller, spec: ServerSpec) -> None:
        """Answer one request of a known caller; what is refused is told in words of JSON-RPC."""
        try:
            self._serve(inbound, caller, spec)
        except Exception:
            refuse_message(inbound, public(Failure(), inbound), None, live=False)

    def _serve(self, inbound: IInbound, caller: Caller, spec: ServerSpec) -> None:
        method = inbound.head.method
        if method == "POST":
            self._check_content(inbound)
            inbound.read_body(
                spec.max_body_bytes, lambda body: self._posted(inbound, caller, spec, body)
            )
        elif method in ("GET", "DELETE") and is_modern(inbound.head):
            self._modern.refuse_method()
        elif method == "GET":
            self._listen(inbound, caller, spec)
        elif method == "DELETE":
            session = self._require(inbound, caller, spec)
            self._speaker(spec).end(caller, spec, session)
            self._sessions.end(session, "deleted")
            inbound.respond(200, [], b"")
        elif method == "OPTIONS":
            inbound.respond(204, list(METHODS), b"")
        else:
            raise MethodNotAllowed(fields=METHODS)

    # --- POST -------------------------------------------------------------------------------

    def _check_content(self, inbound: IInbound) -> None:
        fields = inbound.head.fields
        kind = fields.get(b"content-type") or b""
        if kind.split(b";")[0].strip().lower() != b"application/json":
            raise UnsupportedMediaType
        if (fields.get(b"content-encoding") or b"identity").lower() != b"identity":
            raise UnsupportedMediaType

    def _posted(self, inbound: IInbound, caller: Caller, spec: ServerSpec, body: bytes) -> None:
        message: Message | Batch | None = None
        live = False
        try:
            acceptable = accepts(inbound.head)
            if acceptable == (False, False):
                raise NotAcceptable
            message = decode(body)
            if is_modern(inbound.head, message):
                self._modern.posted(inbound, caller, spec, message, body, acceptable)
                return
            if isinstance(message, Request) and message.method == INITIALIZE:
                self._initialize(inbound, caller, spec, message, body, acceptable)
                return
            session = self._find(inbound, caller, spec, message)
            messages = taken_apart(message, session.record.revision)
            live = True
            self._route(inbound, caller, spec, session, message, messages, body, acceptable)
        except Exception:
            error = public(Failure(), inbound)
            if live and isinstance(message, Batch) and not inbound.started:
                ids = [m.id for m in message.messages if isinstance(m, Request)]
                if ids:
                    refuse_batch(inbound, error, ids)
                    return
            message_id = message.id if isinstance(message, Request) else None
            if message is None and isinstance(error, BadRequest | NotAcceptable):
                message_id = salvage_id(body)
            refuse_message(inbound, error, message_id, live=live)

    def _initialize(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        message: Request,
        body: bytes,
        acceptable: tuple[bool, bool],
    ) -> None:
        check_initialize(message)
        self._gate.charge(caller, spec)
        release = self._gate.enter(caller)
        try:
            session = new_session(self._sessions, caller, spec, message)
        except BaseException:
            release()
            raise
        inbound.notes["session"] = session.label
        post = Post(
            inbound=inbound,
            caller=caller,
            spec=spec,
            body=body,
            requests=(message,),
            others=(),
            batch=False,
            accepts=acceptable,
            release=release,
        )
        self._speaker(spec).initialize(post, session)

    def _route(
        self,
        inbound: IInbound,
        caller: Caller,
        spec: ServerSpec,
        session: Session,
        message: Message | Batch,
        messages: tuple[Message, ...],
        body: bytes,
        acceptable: tuple[bool, bool],
    ) -> None:
        requests = tuple(m for m in messages if isinstance(m, Request))
        # Each element costs: a batch is no way around the limits (protocol.md 6.20).
        if requests:
            self._gate.charge(caller, spec, count=len(messages))
        elif not self._gate.hears(caller, count=len(messages)):
            inbound.respond(202, [], b"")
            return
        post = Post(
            inbound=inbound,
            caller=caller,
            spec=spec,
            body=body,
            requests=requests,
            others=tuple(m for m in messages if not isinstance(m, Request)),
            batch=isinstance(message, Batch),
            accepts=acceptable,
            release=self._gate.enter(caller, count=len(requests)),
        )
        if not requests:
            self._speaker(spec).tell(post, session)
        elif len(requests) == 1 and requests[0].method == PING and not post.batch:
            # The session is the gate's: it is alive, and a ping must not start a server.
            post.release()
            pong = encode(Response(requests[0].id, {}))
            if acceptable[0]:
                inbound.respond(200, [JSON, NO_STORE], pong)
            else:
                inbound.respond(200, list(STREAM_FIELDS), sse_event(pong))
        else:
            self._speaker(spec).call(post, session)

    # --- GET --------------------------------------------------------------------------------

    def _listen(self, inbound: IInbound, caller: Caller, spec: ServerSpec) -> None:
        if not accepts(inbound.head)[1]:
            raise NotAcceptable("GET opens an event stream: Accept must list text/event-stream.")
        session = self._require(inbound, caller, spec)
        release = self._gate.open_stream(caller, self._streams_per_key)
        self._speaker(spec).listen(inbound, caller, spec, session, release)

    # --- Sessions ---------------------------------------------------------------------------

    def _given_id(self, inbound: IInbound) -> str | None:
        fields = inbound.head.fields
        value = fields.get(SESSION)
        if value is None:
            return None
        if fields.count(SESSION) > 1:
            raise BadRequest("Mcp-Session-Id must be sent once.")
        return value.decode("latin-1")

    def _check_version(self, inbound: IInbound) -> None:
        value = inbound.head.fields.get(VERSION)
        if value is None:  # Gemini CLI never sends it; 2025-03-26 does not know it.
            return
        revision = REVISIONS.get(value.decode("latin-1"))
        if revision is None or revision.era is not Era.LEGACY:
            raise BadRequest(
                "MCP-Protocol-Version is not one this session speaks; send the negotiated one."
            )

    def _require(self, inbound: IInbound, caller: Caller, spec: ServerSpec) -> Session:
        """Find the session whose id the request carries."""
        given = self._given_id(inbound)
        if given is None:
            raise BadRequest("Mcp-Session-Id is missing. Send initialize first.")
        session = self._sessions.find(caller.principal, spec.name, given)
        if session is None:
            raise SessionNotFound
        self._check_version(inbound)
        if not session.record.id_returned:
            session.record.id_returned = True
            self._sessions.changed(session)
        self._sessions.touch(session)
        inbound.notes["session"] = session.label
        return session

    def _find(
        self, inbound: IInbound, caller: Caller, spec: ServerSpec, message: Message | Batch
    ) -> Session:
        """
        Find the session of a POST, perhaps that of a client that never returns ids.

        What asks for a revision that is not known is never served from somebody's session.
        """
        if self._given_id(inbound) is not None:
            return self._require(inbound, caller, spec)
        newer = inbound.head.fields.get(VERSION) is not None and not self._is_legacy(inbound)
        probe = isinstance(message, Request) and message.method == DISCOVER
        session = None
        if spec.pool_lost_sessions and not newer and not probe:
            session = self._sessions.pooled(caller.principal, spec.name)
        if session is None:
            raise BadRequest("Mcp-Session-Id is missing. Send initialize first.")
        self._check_version(inbound)
        self._sessions.touch(session)
        inbound.notes["session"] = session.label
        return session

    def _is_legacy(self, inbound: IInbound) -> bool:
        value = inbound.head.fields.get(VERSION) or b""
        revision = REVISIONS.get(value.decode("latin-1"))
        return revision is not None and revision.era is Era.LEGACY
