"""
Which fields cross the gate, in either direction.  Pure.

What is said about one connection stays there (hop-by-hop, RFC 9110 7.6.1), what proves who the
caller is stays here (R76), and what tells a server where a request came from is written by the
gate alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.model import Caller, ServerSpec, fill

FieldLines = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
# Written anew for the next connection, or answered by the gate itself.
_FRAMING: Final = frozenset({b"host", b"content-length", b"expect", b"max-forwards"})
# Who the caller is; let through only by name in ``forward_headers``.
_CREDENTIALS: Final = frozenset(
    {b"authorization", b"proxy-authorization", b"proxy-authenticate", b"cookie", b"x-api-key"}
)
# Where the request came from: a page's origin means nothing to the server behind, and what other
# proxies claimed was judged at the front door.
_PROVENANCE: Final = frozenset(
    {b"origin", b"forwarded", b"x-real-ip", b"true-client-ip", b"x-request-id", b"via"}
)
_GATE_PREFIXES: Final = (b"x-forwarded-", b"x-mcpgate-", b"proxy-")

# Fields with which a server would speak for the gate's whole origin: other servers live there.
_ORIGIN_WIDE: Final = frozenset(
    {
        b"alt-svc",
        b"clear-site-data",
        b"proxy-authenticate",
        b"public-key-pins",
        b"service-worker-allowed",
        b"set-cookie",
        b"strict-transport-security",
        b"www-authenticate",
    }
)
# ``Server`` and the like tell of the inside; the X- ones are orders to a proxy before the gate.
_INSIDE: Final = frozenset(
    {
        b"content-length",
        b"server",
        b"via",
        b"x-accel-redirect",
        b"x-powered-by",
        b"x-request-id",
        b"x-sendfile",
    }
)
_CORS_PREFIX: Final = b"access-control-"


def connection_options(fields: Fields) -> frozenset[bytes]:
    """Give the lower-case names that ``Connection`` lists: they go no further than this hop."""
    if b"connection" not in fields:
        return frozenset()
    listed = b",".join(fields.get_all(b"connection")).lower().split(b",")
    return frozenset(option.strip(b" \t") for option in listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """
    What of a client's fields a server gets; made once per server.

    :ivar dropped: lower-case names that never pass.
    :ivar identity: ask for an answer without content coding, whatever the client accepts.
    """

    dropped: frozenset[bytes]
    identity: bool = False


def request_rules(
    *,
    credential_fields: Iterable[bytes] = (),
    allowed: Iterable[bytes] = (),
    identity: bool = False,
) -> RequestRules:
    """
    Make the rules of one server.

    :param credential_fields: lower-case names in which clients send keys to the gate.
    :param allowed: lower-case names of credential and provenance fields passed nevertheless
        (``forward_headers``); hop-by-hop and framing fields can not be allowed.
    """
    private = (_CREDENTIALS | _PROVENANCE | frozenset(credential_fields)) - frozenset(allowed)
    dropped = HOP_BY_HOP | _FRAMING | private
    return RequestRules(
        dropped=dropped | {b"accept-encoding"} if identity else dropped, identity=identity
    )


def request_fields(
    fields: Fields,
    rules: RequestRules,
    *,
    peer: Peer,
    prefix: bytes = b"",
    request_id: str = "",
    added: FieldLines | None = None,
    upgrade: bytes = b"",
) -> FieldLines:
    """
    Make the fields of the request to the server.

    :param prefix: what was cut off the front of the path, for servers that build links.
    :param added: the server's own fields (``headers`` of its entry, filled in); a client's field
        of the same name is dropped.
    :param upgrade: the upgrade to ask the server for, or empty.
    """
    dropped = rules.dropped
    options = connection_options(fields)
    if options:
        dropped = dropped | options
    if added:
        dropped = dropped | {name.lower() for name, _ in added}
    out = [
        line
        for line in fields.lines
        if line[0] not in dropped and not line[0].startswith(_GATE_PREFIXES)
    ]
    if rules.identity:
        out.append((b"accept-encoding", b"identity"))
    if peer.address:
        out.append((b"x-forwarded-for", peer.address.encode("ascii", "replace")))
    out.append((b"x-forwarded-proto", b"https" if peer.secure else b"http"))
    host = fields.get(b"host")
    if host is not None:
        out.append((b"x-forwarded-host", host))
    if prefix:
        out.append((b"x-forwarded-prefix", prefix))
    if request_id:
        out.append((b"x-request-id", request_id.encode("ascii", "replace")))
    out.append((b"via", b"1.1 mcpgate"))
    if upgrade:
        out.append((b"upgrade", upgrade))
    if added:
        out += added
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRules:
    """
    What of a server's fields a client gets.

    :ivar dropped: lower-case names that never pass.
    :ivar authority: the server's own ``host:port``, to know its links by.
    :ivar prefix: public path under which the server is reached, to write its links anew.
    """

    dropped: frozenset[bytes]
    authority: bytes = b""
    prefix: bytes = b""


def response_rules(
    *,
    allowed: Iterable[bytes] = (),
    authority: bytes = b"",
    prefix: bytes = b"",
) -> ResponseRules:
    """
    Make the rules of one server.

    Cookies are dropped: all servers share the gate's origin, so one server's cookie would be sent
    to its neighbours, and a browser would be logged in without a key.  Who lists ``cookie`` or
    ``set-cookie`` in ``forward_headers`` gets them in both directions.

    :param allowed: as in `request_rules`.
    """
    free = set(allowed)
    if b"cookie" in free:
        free.add(b"set-cookie")
    if b"authorization" in free:
        free.add(b"www-authenticate")
    dropped = HOP_BY_HOP | _INSIDE | (_ORIGIN_WIDE - free)
    return ResponseRules(dropped=dropped, authority=authority, prefix=prefix)


def response_fields(fields: Fields, rules: ResponseRules) -> FieldLines:
    """Make the fields of the answer to the client, without framing."""
    dropped = rules.dropped
    options = connection_options(fields)
    if options:
        dropped = dropped | options
    out = [
        line
        for line in fields.lines
        if line[0] not in dropped and not line[0].startswith(_CORS_PREFIX)
    ]
    if b"location" in fields:
        return [
            (name, public_location(value, rules) if name == b"location" else value)
            for name, value in out
        ]
    return out


def public_location(value: bytes, rules: ResponseRules) -> bytes:
    """
    Write a redirect's target as the client has to call it.

    A target on the server itself, absolute or by path, gets the public prefix; any other stays.
    """
    for scheme in (b"http://", b"https://"):
        start = scheme + rules.authority
        if rules.authority and value[: len(start)].lower() == start.lower():
            rest = value[len(start) :]
            if rest[:1] in (b"/", b"?", b"#", b""):
                return rules.prefix + (rest if rest[:1] == b"/" else b"/" + rest)
    if value[:1] == b"/" and value[:2] != b"//":
        return rules.prefix + value
    return value


def trailer_fields(trailers: FieldLines) -> FieldLines:
    """Drop trailers that could be taken for framing, routing or identity (RFC 9110 6.5.1)."""
    dropped = HOP_BY_HOP | _FRAMING | _CREDENTIALS | _PROVENANCE | _ORIGIN_WIDE | _INSIDE
    return [
        line
        for line in trailers
        if line[0] not in dropped and not line[0].startswith((*_GATE_PREFIXES, b"content-"))
    ]


_MCP_ACCEPT: Final = (b"accept", b"application/json, text/event-stream")
_IDENTITY: Final = (b"accept-encoding", b"identity")
_JSON: Final = (b"content-type", b"application/json")
# Written by the session that speaks to the server, and kept from clients: the ids differ.
_SESSION_FIELDS: Final = frozenset({b"mcp-session-id", b"mcp-protocol-version"})
# Of a modern request: what repeats its body, and what that era does not know.
_ROUTING_FIELDS: Final = frozenset({b"mcp-method", b"mcp-name", b"last-event-id"})
_PARAM_PREFIX: Final = b"mcp-param-"


class Forwarding:
    """
    The rules of every server, made once per server and used for each request.

    :param credential_fields: names in which clients may send keys to the gate.
    """

    def __init__(self, credential_fields: Iterable[str] = ()) -> None:
        self._credential_fields = frozenset(n.lower().encode("ascii") for n in credential_fields)
        self._known: dict[str, _ServerRules] = {}

    def _rules(self, spec: ServerSpec) -> _ServerRules:
        rules = self._known.get(spec.name)
        # A reload brings a new spec under the old name.
        if rules is None or rules.spec is not spec:
            rules = self._known[spec.name] = _ServerRules(spec, self._credential_fields)
        return rules

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
        """Make the fields of a relayed request; ``Upgrade`` is kept for WebSocket only (R86)."""
        return request_fields(
            head.fields,
            self._rules(spec).relay,
            peer=peer,
            prefix=prefix,
            request_id=request_id,
            added=_filled(spec, caller),
            upgrade=head.upgrade if head.upgrade == b"websocket" else b"",
        )

    def relay_response(
        self, fields: Fields, spec: ServerSpec, *, authority: bytes, prefix: bytes
    ) -> FieldLines:
        """Make the fields of a relayed answer; ``authority`` and ``prefix``: `ResponseRules`."""
        rules = self._rules(spec).answers
        if b"location" in fields:
            rules = replace(rules, authority=authority, prefix=prefix)
        return response_fields(fields, rules)

    def endpoint_request(
        self, head: RequestHead, peer: Peer, spec: ServerSpec, caller: Caller
    ) -> FieldLines:
        """
        Make the fields of a client's MCP message; session id and revision are added by the caller.

        The answer has to be read on its way, so it is asked for plain, in both forms.  What the
        message is is said whether the client said it or not: it may be the gate's own.
        """
        memo = head.memo
        known = None if memo is None else memo.get("forwarded")
        if known is None or known[0] is not spec or known[1] is not caller or known[2] is not peer:
            added = [_MCP_ACCEPT, _JSON, *_filled(spec, caller)]
            rules = self._rules(spec).endpoint
            lines = request_fields(head.fields, rules, peer=peer, added=added)
            known = (spec, caller, peer, lines)
            if memo is not None:
                memo["forwarded"] = known
        made: FieldLines = known[3]
        return made.copy()

    def modern_request(
        self,
        head: RequestHead,
        peer: Peer,
        spec: ServerSpec,
        caller: Caller,
        routing: FieldLines,
        *,
        own_params: bool,
    ) -> FieldLines:
        """
        Make the fields of a modern MCP request (2026-07-28).

        :param routing: the fields that repeat the body, made anew from it.
        :param own_params: the client's ``Mcp-Param-*`` fields go with its own body.
        """
        added = [_MCP_ACCEPT, _JSON, *routing, *_filled(spec, caller)]
        lines = request_fields(head.fields, self._rules(spec).endpoint, peer=peer, added=added)
        kept = len(lines) - len(added)
        return [
            line
            for number, line in enumerate(lines)
            if number >= kept
            or (
                line[0] not in _ROUTING_FIELDS
                and (own_params or not line[0].startswith(_PARAM_PREFIX))
            )
        ]

    def own_request(self, spec: ServerSpec, caller: Caller) -> FieldLines:
        """Make the fields of an MCP message that is the gate's own."""
        return [_JSON, _MCP_ACCEPT, _IDENTITY, *_filled(spec, caller)]

    def rest_request(
        self, head: RequestHead | None, spec: ServerSpec, caller: Caller, own: FieldLines
    ) -> FieldLines:
        """
        Make the fields of a request to a REST service.

        :param head: of the client's request; what ``forward_headers`` names is passed on.
        :param own: those of the call; none of them stands in for one the configuration gives.
        """
        filled = _filled(spec, caller)
        allowed = {name.lower().encode("ascii") for name in spec.forward_headers}
        fixed = allowed.union(name for name, _ in filled)
        passed = [line for line in head.fields if line[0] in allowed] if head is not None else []
        return [
            *passed,
            *(line for line in own if line[0] not in fixed),
            _IDENTITY,
            *(line for line in filled if line[0] != _IDENTITY[0]),
        ]

    def own_stream(self, spec: ServerSpec, caller: Caller) -> FieldLines:
        """Make the fields of a GET of the gate's own for an event stream."""
        return [(b"accept", b"text/event-stream"), _IDENTITY, *_filled(spec, caller)]


class _ServerRules:
    """Everything `Forwarding` knows of one server."""

    __slots__ = ("answers", "endpoint", "relay", "spec")

    def __init__(self, spec: ServerSpec, credential_fields: frozenset[bytes]) -> None:
        allowed = frozenset(name.lower().encode("ascii") for name in spec.forward_headers)
        self.spec = spec
        self.relay = request_rules(credential_fields=credential_fields, allowed=allowed)
        self.endpoint = request_rules(
            credential_fields=credential_fields | _SESSION_FIELDS,
            allowed=allowed - _SESSION_FIELDS,
            identity=True,
        )
        self.answers = response_rules(allowed=allowed)


def impersonal_fields(spec: ServerSpec) -> FieldLines:
    """Give the fields of a server's entry that are the same whoever calls."""
    return [
        (name.lower().encode("ascii"), text.encode("utf-8"))
        for name, text in spec.headers
        if "{key}" not in text and "{user}" not in text
    ]


def _filled(spec: ServerSpec, caller: Caller) -> FieldLines:
    if not spec.headers:
        return []
    values = {"key": caller.credential.reveal(), "user": caller.principal.subject}
    return [
        (name.lower().encode("ascii"), fill(text, values).encode("utf-8"))
        for name, text in spec.headers
    ]
