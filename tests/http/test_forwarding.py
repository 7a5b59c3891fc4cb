"""Tests for `mcpgate.http.forwarding`."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.http.fields import Fields
from mcpgate.http.forwarding import (
    HOP_BY_HOP,
    FieldLines,
    Forwarding,
    public_location,
    request_fields,
    request_rules,
    response_fields,
    response_rules,
    trailer_fields,
)
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.model import Caller, Principal, Secret, ServerSpec, Transport

PEER = Peer("192.0.2.7", True)
CALLER = Caller(Principal("i", "ann", "0" * 32), Secret("k{user}"))


def passed(lines: FieldLines, **rules: object) -> dict[bytes, bytes]:
    """Give what the server gets of a client's fields."""
    made = request_rules(**rules)  # type: ignore[arg-type]  # as the test says
    return dict(request_fields(Fields(lines), made, peer=PEER))


class RequestFieldsTests(SynchronousTestCase):
    """What a server gets."""

    def test_kept(self) -> None:
        """What the request means passes."""
        lines = [
            (b"accept", b"*/*"),
            (b"content-type", b"application/json"),
            (b"mcp-session-id", b"1"),
            (b"last-event-id", b"2"),
            (b"traceparent", b"3"),
            (b"accept-encoding", b"gzip"),
        ]
        got = passed(lines)
        for name, value in lines:
            self.assertEqual(got[name], value)

    def test_identity_stays(self) -> None:
        """What proves who the caller is, and what it claims about its way here, stays."""
        for name in (
            b"authorization",
            b"cookie",
            b"x-api-key",
            b"proxy-authorization",
            b"proxy-foo",
            b"origin",
            b"forwarded",
            b"x-forwarded-user",
            b"x-mcpgate-server",
            b"x-real-ip",
            b"x-outline-api-key",
        ):
            got = passed([(name, b"evil")], credential_fields=[b"x-outline-api-key"])
            self.assertNotIn(name, got)

    def test_allowed(self) -> None:
        """A credential passes where the server's entry names its field; routing never does."""
        got = passed(
            [(b"authorization", b"a"), (b"x-forwarded-for", b"b"), (b"te", b"c")],
            allowed=[b"authorization", b"x-forwarded-for", b"te"],
        )
        self.assertEqual(got[b"authorization"], b"a")
        self.assertEqual(got[b"x-forwarded-for"], b"192.0.2.7")
        self.assertNotIn(b"te", got)

    def test_added(self) -> None:
        """The server's own fields win over the client's, the gate's word is the gate's."""
        rules = request_rules()
        got = request_fields(
            Fields([(b"x-key", b"client"), (b"host", b"gate"), (b"via", b"x")]),
            rules,
            peer=Peer("", False),
            prefix=b"/srv",
            request_id="r1",
            added=[(b"X-Key", b"server")],
            upgrade=b"websocket",
        )
        self.assertEqual(
            got,
            [
                (b"x-forwarded-proto", b"http"),
                (b"x-forwarded-host", b"gate"),
                (b"x-forwarded-prefix", b"/srv"),
                (b"x-request-id", b"r1"),
                (b"via", b"1.1 mcpgate"),
                (b"upgrade", b"websocket"),
                (b"X-Key", b"server"),
            ],
        )

    def test_identity(self) -> None:
        """Where the answer must be read, it is asked for plain."""
        self.assertEqual(
            passed([(b"accept-encoding", b"gzip")], identity=True)[b"accept-encoding"], b"identity"
        )

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.sampled_from([b"x-a", b"x-b", b"te", b"close", b"X-C"]), max_size=5),
        st.sampled_from([b",", b", ", b" ,\t"]),
    )
    def test_connection_listed(self, names: list[bytes], comma: bytes) -> None:
        """No field that Connection lists, nor any other of this hop, gets further."""
        lines = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3"), (b"te", b"trailers")]
        got = passed([*lines, (b"connection", comma.join(names))])
        self.assertFalse(HOP_BY_HOP & set(got))
        listed = {name.lower() for name in names}
        for name, _ in lines[:3]:
            self.assertEqual(name in got, name not in listed)


class ResponseFieldsTests(SynchronousTestCase):
    """What a client gets."""

    def test_dropped(self) -> None:
        """Nothing of this hop, of the inside, or for the gate's whole origin gets out."""
        lines = [
            (name, b"x")
            for name in (
                b"connection",
                b"x",
                b"transfer-encoding",
                b"content-length",
                b"server",
                b"set-cookie",
                b"alt-svc",
                b"strict-transport-security",
                b"www-authenticate",
                b"access-control-allow-origin",
                b"x-accel-redirect",
            )
        ]
        kept = (b"content-type", b"text/plain")
        rules = response_rules()
        self.assertEqual(response_fields(Fields([*lines, kept]), rules), [kept])

    def test_allowed(self) -> None:
        """Cookies and challenges come back where the credential may go out."""
        rules = response_rules(allowed=[b"cookie", b"authorization"])
        lines = [(b"set-cookie", b"a"), (b"www-authenticate", b"b")]
        self.assertEqual(response_fields(Fields(lines), rules), lines)

    def test_location(self) -> None:
        """Redirects to the server itself lead through the gate, others are left alone."""
        rules = response_rules(authority=b"127.0.0.1:80", prefix=b"/srv")
        for before, after in (
            (b"http://127.0.0.1:80/a?b", b"/srv/a?b"),
            (b"HTTP://127.0.0.1:80", b"/srv/"),
            (b"https://127.0.0.1:80?x", b"/srv/?x"),
            (b"http://127.0.0.1:8000/a", b"http://127.0.0.1:8000/a"),
            (b"http://127.0.0.1:80.evil/", b"http://127.0.0.1:80.evil/"),
            (b"/a", b"/srv/a"),
            (b"//other/a", b"//other/a"),
            (b"a", b"a"),
        ):
            self.assertEqual(public_location(before, rules), after)
        self.assertEqual(
            response_fields(Fields([(b"location", b"/a"), (b"x", b"/a")]), rules),
            [(b"location", b"/srv/a"), (b"x", b"/a")],
        )

    def test_trailers(self) -> None:
        """Trailers never tell of framing, routing or identity."""
        lines = [(b"x-sum", b"1"), (b"content-length", b"2"), (b"host", b"3"), (b"cookie", b"4")]
        more = [(b"x-forwarded-for", b"5"), (b"content-encoding", b"6")]
        self.assertEqual(trailer_fields(lines + more), [(b"x-sum", b"1")])


class ForwardingTests(SynchronousTestCase):
    """The rules as the configuration says them."""

    def setUp(self) -> None:
        """Make rules and a server."""
        self.forwarding = Forwarding(["X-Outline-API-Key"])
        self.spec = ServerSpec(
            name="srv",
            transport=Transport.HTTP,
            headers=(("X-Key", "{key}"), ("X-User", "{user}")),
            forward_headers=("Cookie", "Mcp-Session-Id"),
        )

    def head(self, *lines: tuple[bytes, bytes], upgrade: bytes = b"") -> RequestHead:
        """Make a request's head."""
        return RequestHead(
            method="GET",
            path=b"/srv/x",
            query=None,
            version=(1, 1),
            fields=Fields(lines),
            upgrade=upgrade,
        )

    def test_relay(self) -> None:
        """Credentials are replaced by the server's own, filled in for the caller, once."""
        got = dict(
            self.forwarding.relay_request(
                self.head((b"x-outline-api-key", b"k"), (b"cookie", b"c"), (b"x-key", b"no")),
                PEER,
                self.spec,
                CALLER,
                prefix=b"/srv",
            )
        )
        self.assertEqual((got[b"x-key"], got[b"x-user"]), (b"k{user}", b"ann"))
        self.assertEqual(got[b"cookie"], b"c")
        self.assertNotIn(b"x-outline-api-key", got)
        self.assertNotIn(b"upgrade", got)

    def test_upgrade(self) -> None:
        """Only WebSocket is asked for."""
        for token, there in ((b"websocket", True), (b"h2c", False)):
            got = dict(
                self.forwarding.relay_request(self.head(upgrade=token), PEER, self.spec, CALLER)
            )
            self.assertEqual(b"upgrade" in got, there)

    def test_endpoint(self) -> None:
        """An MCP message asks for both forms, plain; the session's fields are not the client's."""
        lines = (
            (b"mcp-session-id", b"1"),
            (b"mcp-protocol-version", b"2"),
            (b"accept", b"*/*"),
            (b"content-type", b"Application/JSON; charset=utf-8"),
        )
        got = self.forwarding.endpoint_request(self.head(*lines), PEER, self.spec, CALLER)
        names = [name for name, _ in got]
        self.assertNotIn(b"mcp-session-id", names)
        self.assertNotIn(b"mcp-protocol-version", names)
        self.assertEqual(names.count(b"accept"), 1)
        self.assertEqual(
            [value for name, value in got if name == b"content-type"], [b"application/json"]
        )
        bare = self.forwarding.endpoint_request(self.head(), PEER, self.spec, CALLER)
        self.assertIn((b"content-type", b"application/json"), bare)
        self.assertIn((b"accept-encoding", b"identity"), got)
        own = self.forwarding.own_request(self.spec, CALLER)
        self.assertIn((b"content-type", b"application/json"), own)
        self.assertIn((b"x-user", b"ann"), own)

    def test_endpoint_again(self) -> None:
        """For a head that came again it is worked out once, for one peer, key and server."""
        head = self.head((b"accept", b"*/*"), (b"x-a", b"b"))
        head.came_again()
        for peer, spec, caller in (
            (PEER, self.spec, CALLER),
            (PEER, self.spec, CALLER),
            (Peer("192.0.2.8", True), self.spec, CALLER),
            (PEER, replace(self.spec, headers=(("X-Own", "{user}"),)), CALLER),
            (PEER, self.spec, replace(CALLER, credential=Secret("other"))),
        ):
            forwarding = Forwarding()
            plain = self.head(*head.fields.lines)
            got = self.forwarding.endpoint_request(head, peer, spec, caller)
            self.assertEqual(got, forwarding.endpoint_request(plain, peer, spec, caller))
            got.append((b"added", b"by the caller"))

    def test_answers(self) -> None:
        """The relay shows links as the client must call them."""
        fields = Fields([(b"location", b"http://in:1/a"), (b"mcp-session-id", b"s")])
        self.assertEqual(
            self.forwarding.relay_response(fields, self.spec, authority=b"in:1", prefix=b"/srv"),
            [(b"location", b"/srv/a"), (b"mcp-session-id", b"s")],
        )
        plain = Fields([(b"mcp-session-id", b"s"), (b"x", b"y")])
        self.assertEqual(
            self.forwarding.relay_response(plain, self.spec, authority=b"", prefix=b""),
            plain.lines,
        )

    def test_reload(self) -> None:
        """A new entry under the old name brings new rules."""
        head = self.head((b"cookie", b"c"))
        plain = ServerSpec(name="srv", transport=Transport.HTTP)
        for spec, there in ((self.spec, True), (plain, False), (self.spec, True)):
            got = dict(self.forwarding.relay_request(head, PEER, spec, CALLER))
            self.assertEqual(b"cookie" in got, there)
