"""Tests for `mcpgate.web.forwarding`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer
from mcpgate.web.forwarding import Forwarded, TrustedProxies

PROXY = Peer("10.0.0.1", secure=False, port=9)


class ReadTests(SynchronousTestCase):
    """Who the client is."""

    @override
    def setUp(self) -> None:
        self.proxies = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])

    def client(self, *lines: tuple[bytes, bytes]) -> str:
        """Give the client's address; the proxy's own when nothing is believed."""
        told = self.proxies.read(Fields(lines), PROXY)
        return PROXY.address if told is None else told.peer.address

    def test_chain(self) -> None:
        """The nearest address that is no proxy of ours is the client, whatever stands before."""
        for value, client in (
            (b"203.0.113.5", "203.0.113.5"),
            (b"1.1.1.1, 203.0.113.5", "203.0.113.5"),
            (b"1.1.1.1, 203.0.113.5, 10.9.9.9", "203.0.113.5"),
            (b"10.1.1.1, 10.9.9.9", "10.1.1.1"),
            (b"203.0.113.5:4711", "203.0.113.5"),
            (b"[2001:db9::5]:4711", "2001:db9::5"),
            (b"2001:db9::5, 2001:db8::1", "2001:db9::5"),
            (b"203.0.113.5, unknown", "10.0.0.1"),
            (b"203.0.113.5, junk, 10.9.9.9", "10.9.9.9"),
            (b"203.0.113.5:port", "10.0.0.1"),
            (b" , ", "10.0.0.1"),
        ):
            self.assertEqual(self.client((b"x-forwarded-for", value)), client, value)

    def test_several_fields(self) -> None:
        """Several fields are one chain."""
        lines = [(b"x-forwarded-for", b"203.0.113.5"), (b"x-forwarded-for", b"10.9.9.9")]
        self.assertEqual(self.client(*lines), "203.0.113.5")

    def test_standard_field(self) -> None:
        """RFC 7239 is understood, with ports, quotes and host."""
        value = b'for=1.1.1.1, For="[2001:db9::5]:80";proto=HTTPS;host="a.example.org";by=_x'
        self.assertEqual(
            self.proxies.read(Fields([(b"forwarded", value)]), PROXY),
            Forwarded(Peer("2001:db9::5", secure=True, port=80), b"a.example.org"),
        )
        self.assertEqual(self.client((b"forwarded", b"for=_hidden")), "10.0.0.1")

    def test_two_stories(self) -> None:
        """Where both kinds of field name different clients neither is believed."""
        ours = (b"x-forwarded-for", b"203.0.113.5")
        self.assertEqual(self.client(ours, (b"forwarded", b"for=203.0.113.5")), "203.0.113.5")
        self.assertEqual(self.client(ours, (b"forwarded", b"for=1.1.1.1")), "10.0.0.1")

    def test_scheme_and_host_alone(self) -> None:
        """A proxy may tell scheme and host only; the last word counts."""
        lines = [(b"x-forwarded-proto", b"http, HTTPS"), (b"x-forwarded-host", b"a, b.example.org")]
        self.assertEqual(
            self.proxies.read(Fields(lines), PROXY),
            Forwarded(Peer("10.0.0.1", secure=True, port=9), b"b.example.org"),
        )

    def test_host_that_is_none(self) -> None:
        """What can not be a host does not become one."""
        told = self.proxies.read(Fields([(b"x-forwarded-host", b"a/b?<x>")]), PROXY)
        self.assertEqual(told, Forwarded(PROXY, b""))

    def test_prefix(self) -> None:
        """What a proxy has taken off the path is believed where it can be the front of one."""
        long = b"/" + b"x" * 65
        for value, prefix in (
            (b"/tools", b"/tools"),
            (b"/a/b-1.2_~/", b"/a/b-1.2_~"),
            (b"/other, /tools", b"/tools"),
            *((value, b"") for value in (b"/", b"", b"tools", b"//evil.example", b"/a/../b")),
            *((value, b"") for value in (b"/a b", b"/<x>", b"/%2e", b"/a//b", b"/.", long)),
            (b"/a" * 9, b""),
        ):
            told = self.proxies.read(Fields([(b"x-forwarded-prefix", value)]), PROXY)
            self.assertEqual(b"" if told is None else told.peer.prefix, prefix, value)
        lines = [(b"x-forwarded-for", b"203.0.113.5"), (b"x-forwarded-prefix", b"/tools")]
        told = self.proxies.read(Fields(lines), PROXY)
        self.assertEqual(told, Forwarded(Peer("203.0.113.5", False, 0, b"/tools"), b""))

    @given(st.binary(max_size=200), st.sampled_from([b"x-forwarded-for", b"forwarded"]))
    @settings(max_examples=100)
    def test_anything(self, value: bytes, name: bytes) -> None:
        """Whatever stands there, an answer is found."""
        self.assertTrue(self.client((name, value)))


class TrustTests(SynchronousTestCase):
    """Whose word counts."""

    def test_networks(self) -> None:
        """Networks, single addresses and addresses in IPv6 clothes."""
        proxies = TrustedProxies(["10.0.0.0/8", "192.0.2.7"])
        for address, trusted in (
            ("10.1.2.3", True),
            ("::ffff:10.1.2.3", True),
            ("192.0.2.7", True),
            ("192.0.2.8", False),
            ("::1", False),
            ("", False),
            ("junk", False),
        ):
            self.assertEqual(proxies.trusts(address), trusted, address)
        self.assertTrue(TrustedProxies(["unix"]).trusts(""))
        self.assertFalse(TrustedProxies([]).any)

    def test_memory_is_bounded(self) -> None:
        """A flood of addresses is forgotten."""
        proxies = TrustedProxies(["10.0.0.0/8"])
        for n in range(1500):
            proxies.trusts(f"192.0.{n // 256}.{n % 256}")
        self.assertLessEqual(len(proxies._known), 1024)

    def test_no_network(self) -> None:
        """What is no network is named."""
        error = self.assertRaises(ValueError, TrustedProxies, ["10.0.0.0/99"])
        self.assertIn("10.0.0.0/99", str(error))
