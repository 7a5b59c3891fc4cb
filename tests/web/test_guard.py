"""Tests for `mcpgate.web.guard`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface.verify import verifyObject

from mcpgate.errors import ForbiddenOrigin, MisdirectedRequest
from mcpgate.gate.server_hosts import ServerHosts, host_name
from mcpgate.http.heads import Peer
from mcpgate.interfaces import IInbound
from mcpgate.web.guard import Guard, own_names
from tests.web.asked import Asked

HOST = (b"host", b"gate.example.org:8443")


class HostTests(SynchronousTestCase):
    """Which Host values are ours (R06)."""

    def passes(self, guard: Guard, host: bytes | None) -> bool:
        """Tell whether a request with this Host goes on."""
        asked = Asked(*[(b"host", host)] if host is not None else [])
        verifyObject(IInbound, asked)
        try:
            return not guard.check(asked)
        except MisdirectedRequest:
            return False

    def test_names_of_its_own(self) -> None:
        """Names of certificates, bound addresses and localhost are served, with any port."""
        guard = Guard()
        names, everything = own_names(["gate.example.org", "*.w.example.org"], ["192.0.2.1", ""])
        guard.own_hosts(names, any_address=everything)
        for host in (
            b"gate.example.org",
            b"Gate.Example.Org.:8443",
            b"a.w.example.org",
            b"localhost:1",
            b"192.0.2.1",
            b"[::1]:8443",
            b"127.0.0.1",
        ):
            self.assertTrue(self.passes(guard, host), host)
            self.assertTrue(self.passes(guard, host), host)
        for foreign in (
            b"evil.example",
            b"w.example.org",
            b"a.b.w.example.org",
            b"192.0.2.2",
            b"",
            None,
        ):
            self.assertFalse(self.passes(guard, foreign), foreign)

    def test_every_address(self) -> None:
        """A gate that listens on every address is reached by any of them, by no strange name."""
        for bound in ("0.0.0.0", "::"):
            guard = Guard()
            names, everything = own_names([], [bound])
            guard.own_hosts(names, any_address=everything)
            self.assertTrue(self.passes(guard, b"198.51.100.3:8080"))
            self.assertTrue(self.passes(guard, b"[2001:db8::1]"))
            self.assertFalse(self.passes(guard, b"rebound.example"))

    def test_configured(self) -> None:
        """Configured names and that of the public URL are served beside the own ones."""
        guard = Guard(
            allowed_hosts=["a.example.org", "*.b.example.org"], public_url="https://p.example.org/x"
        )
        guard.own_hosts(["localhost"])
        for host in (b"a.example.org", b"x.b.example.org", b"p.example.org", b"localhost"):
            self.assertTrue(self.passes(guard, host), host)
        self.assertFalse(self.passes(guard, b"b.example.org"))

    def test_hosts_of_servers(self) -> None:
        """Names that stand for servers are served, and nothing that only looks alike."""
        guard = Guard(server_hosts=ServerHosts(["*.b.example.org", "mcp-*.c.example.org"]))
        for host in (b"x.b.example.org", b"mcp-x.c.example.org:8443"):
            self.assertTrue(self.passes(guard, host), host)
        for host in (b"b.example.org", b"x.y.b.example.org", b"x.c.example.org"):
            self.assertFalse(self.passes(guard, host), host)

    def test_all(self) -> None:
        """A star serves every name and none."""
        guard = Guard(allowed_hosts=["*"])
        self.assertTrue(self.passes(guard, b"anything"))
        self.assertTrue(self.passes(guard, None))

    def test_forgets_with_the_certificate(self) -> None:
        """A name that went with its certificate is no longer served."""
        guard = Guard()
        guard.own_hosts(["old.example.org"])
        self.assertTrue(self.passes(guard, b"old.example.org"))
        guard.own_hosts(["new.example.org"])
        self.assertFalse(self.passes(guard, b"old.example.org"))

    def test_memory_is_bounded(self) -> None:
        """Many ports of one name do not fill the memory."""
        guard = Guard(allowed_hosts=["a"], allowed_origins=["http://a:*"])
        for port in range(1000):
            self.assertTrue(self.passes(guard, b"a:%d" % port))
            self.assertTrue(guard.allows_origin(b"http://a:%d" % port, b"b"))
        self.assertLessEqual(len(guard._known_hosts), 256)
        self.assertLessEqual(len(guard._known_origins), 256)

    def test_host_name(self) -> None:
        """Ports, brackets, case and a final dot do not count."""
        for value, name in (("A.b.:1", "a.b"), ("[::1]:1", "::1"), ("::1", "::1"), (" a ", "a")):
            self.assertEqual(host_name(value), name)


class OriginTests(SynchronousTestCase):
    """Which web pages may call (R77)."""

    @override
    def setUp(self) -> None:
        self.guard = Guard(
            allowed_origins=[
                "https://app.example.org",
                "https://*.apps.example.org",
                "http://localhost:*",
                "vscode-webview://x",
            ],
            key_fields=["X-Outline-API-Key"],
            public_url="https://gate.example.org:8443",
        )

    def ask(self, origin: bytes, **options: object) -> Asked:
        """Let the guard look at a request of a page."""
        asked = Asked(HOST, (b"origin", origin), **options)  # type: ignore[arg-type]  # tests pass right ones
        self.answered = self.guard.check(asked)
        return asked

    def test_no_origin(self) -> None:
        """Programs send no Origin and see no CORS fields."""
        asked = Asked(HOST)
        self.assertFalse(self.guard.check(asked))
        self.assertEqual(asked.extra_fields, [])

    def test_allowed(self) -> None:
        """Listed pages may call, and see the fields they need."""
        for origin in (
            b"https://app.example.org",
            b"https://APP.example.org",
            b"https://one.apps.example.org",
            b"http://localhost:6274",
            b"http://localhost",
            b"vscode-webview://x",
            b"https://gate.example.org:8443",
            b"http://gate.example.org:8443",
        ):
            for _ in range(2):
                asked = self.ask(origin)
                self.assertFalse(self.answered)
                fields = dict(asked.extra_fields)
                self.assertEqual(fields[b"access-control-allow-origin"], origin)
                self.assertEqual(fields[b"vary"], b"Origin")
                self.assertIn(b"Mcp-Session-Id", fields[b"access-control-expose-headers"])

    def test_refused(self) -> None:
        """Others get 403, with an upgrade or without."""
        for origin in (
            b"https://evil.example",
            b"null",
            b"",
            b"http://app.example.org",
            b"https://app.example.org:444",
            b"https://a.b.apps.example.org",
            b"https://apps.example.org",
            b"https://gate.example.org",
            b"https://app.example.org.evil.example",
            b"https://localhost:1",
        ):
            self.assertRaises(ForbiddenOrigin, self.ask, origin)
        self.assertRaises(ForbiddenOrigin, self.ask, b"https://evil.example", method="OPTIONS")

    def test_two_origins(self) -> None:
        """Two Origin fields are refused, whatever they hold."""
        origin = (b"origin", b"https://app.example.org")
        self.assertRaises(ForbiddenOrigin, self.guard.check, Asked(HOST, origin, origin))

    def test_foreign_host_first(self) -> None:
        """A rebound name is refused though page and Host agree."""
        asked = Asked((b"host", b"evil.example"), (b"origin", b"http://evil.example"))
        self.assertRaises(MisdirectedRequest, self.guard.check, asked)

    def test_any_origin(self) -> None:
        """A star lets every page call."""
        self.guard = Guard(allowed_hosts=["*"], allowed_origins=["*"])
        self.assertEqual(len(self.ask(b"null").extra_fields), 3)

    def preflight(self, *wanted: bytes) -> Asked:
        """Ask as a browser does before a call."""
        asked = Asked(
            HOST,
            (b"origin", b"https://app.example.org"),
            (b"access-control-request-method", b"POST"),
            *[(b"access-control-request-headers", value) for value in wanted],
            method="OPTIONS",
        )
        self.assertTrue(self.guard.check(asked))
        return asked

    def test_preflight(self) -> None:
        """A preflight is answered here, before any key is asked for."""
        asked = self.preflight(b"content-type, mcp-param-region,Mcp-Param-X_y.z!", b"mcp-param-b")
        self.assertEqual((asked.status, asked.body, asked.extra_fields), (204, b"", []))
        self.assertEqual(
            asked.fields[b"access-control-allow-methods"], b"GET, POST, DELETE, OPTIONS"
        )
        allowed = asked.fields[b"access-control-allow-headers"]
        self.assertIn(b"X-Outline-API-Key", allowed)
        self.assertTrue(allowed.endswith(b", mcp-param-region, Mcp-Param-X_y.z!, mcp-param-b"))
        self.assertEqual(asked.fields[b"access-control-max-age"], b"7200")
        self.assertEqual(asked.fields[b"vary"], b"Origin")

    def test_preflight_echoes_names_only(self) -> None:
        """What is no name of a parameter is not echoed, and not without end."""
        asked = self.preflight(b"mcp-param-, x-evil, mcp-param-a b, mcp-param-<, mcp-param")
        self.assertTrue(asked.fields[b"access-control-allow-headers"].endswith(b"-Key"))
        asked = self.preflight(b",".join(b"mcp-param-%d" % n for n in range(1000)))
        self.assertEqual(asked.fields[b"access-control-allow-headers"].count(b"mcp-param"), 64)

    def test_options_without_preflight(self) -> None:
        """OPTIONS that asks for no method is no preflight."""
        self.ask(b"https://app.example.org", method="OPTIONS")
        self.assertFalse(self.answered)


class ProxyTests(SynchronousTestCase):
    """Requests through a trusted proxy."""

    @override
    def setUp(self) -> None:
        self.guard = Guard(allowed_hosts=["gate.example.org"], trusted_proxies=["10.0.0.0/8"])
        self.lines = [
            (b"host", b"10.0.0.2"),
            (b"x-forwarded-for", b"203.0.113.5"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"gate.example.org"),
        ]

    def test_believed(self) -> None:
        """The proxy's word replaces peer and Host."""
        asked = Asked(*self.lines, (b"accept", b"*/*"), peer=Peer("10.0.0.1", secure=False, port=9))
        self.assertFalse(self.guard.check(asked))
        self.assertEqual(asked.peer, Peer("203.0.113.5", secure=True))
        self.assertEqual(asked.head.fields.get_all(b"host"), [b"gate.example.org"])
        self.assertEqual(asked.head.fields.get(b"accept"), b"*/*")

    def test_stranger_is_not_believed(self) -> None:
        """The same fields of anybody else change nothing."""
        asked = Asked(*self.lines, peer=Peer("11.0.0.1", secure=False))
        self.assertRaises(MisdirectedRequest, self.guard.check, asked)
        self.assertEqual(asked.peer, Peer("11.0.0.1", secure=False))

    def test_silent_proxy(self) -> None:
        """Without forwarding fields the proxy is the client."""
        peer = Peer("10.0.0.1", secure=False)
        asked = Asked((b"host", b"gate.example.org"), peer=peer)
        self.assertFalse(self.guard.check(asked))
        self.assertEqual(asked.peer, peer)

    def test_host_stays(self) -> None:
        """Without a forwarded host Host counts."""
        asked = Asked(
            (b"host", b"gate.example.org"), self.lines[1], peer=Peer("10.0.0.1", secure=False)
        )
        self.assertFalse(self.guard.check(asked))
        self.assertEqual(asked.peer, Peer("203.0.113.5", secure=False))
