"""Tests for `mcpgate.web.listening.redirect`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.web.guard import Guard
from mcpgate.web.listening.redirect import Redirect
from tests.web.asked import Asked


class RedirectTests(SynchronousTestCase):
    """The plain port."""

    @override
    def setUp(self) -> None:
        self.guard = Guard(allowed_hosts=["a.example.org", "::1"])
        self.port = 443
        self.redirect = Redirect(guard=self.guard, https_port=lambda: self.port)

    def ask(
        self, host: bytes = b"a.example.org", *more: tuple[bytes, bytes], **head: object
    ) -> Asked:
        """Answer one request."""
        asked = Asked((b"host", host), *more, **head)  # type: ignore[arg-type]  # tests pass right ones
        self.redirect(asked)
        return asked

    def test_get(self) -> None:
        """A browser is sent to the same page over HTTPS."""
        asked = self.ask(path=b"/x%20y", query=b"a=b")
        self.assertEqual(asked.status, 301)
        self.assertEqual(asked.fields[b"location"], b"https://a.example.org/x%20y?a=b")
        self.assertNotIn(b"a=b", asked.body)

    def test_post_keeps_its_method(self) -> None:
        """A POST is told 308, and the right URL in words."""
        asked = self.ask(method="POST")
        self.assertEqual(asked.status, 308)
        self.assertIn(b"https://a.example.org/a/mcp", asked.body)
        self.assertNotIn(b"unencrypted", asked.body)

    def test_key_in_the_clear(self) -> None:
        """Whoever sent a key is told that it went in the clear, without repeating it."""
        asked = self.ask(b"a.example.org", (b"authorization", b"Bearer secret"), method="POST")
        self.assertIn(b"unencrypted", asked.body)
        self.assertNotIn(b"secret", asked.body)

    def test_ports(self) -> None:
        """The port asked is left out, that of HTTPS is put in."""
        self.port = 8443
        for host, url in (
            (b"A.example.org:8080", b"https://a.example.org:8443/a/mcp"),
            (b"[::1]:8080", b"https://[::1]:8443/a/mcp"),
            (b"[::1]", b"https://[::1]:8443/a/mcp"),
        ):
            self.assertEqual(self.ask(host).fields[b"location"], url)

    def test_foreign_names(self) -> None:
        """A foreign Host is not redirected, nor is a missing one."""
        self.assertEqual(self.ask(b"evil.example").status, 421)
        asked = Asked()
        self.redirect(asked)
        self.assertEqual(asked.status, 400)

    def test_challenges(self) -> None:
        """Challenges of a certificate authority go to their hook, of any Host."""
        path = b"/.well-known/acme-challenge/token"
        self.assertEqual(self.ask(b"new.example.org", path=path).status, 404)
        self.redirect = Redirect(
            guard=self.guard,
            https_port=lambda: 443,
            challenge=lambda inbound: inbound.respond(200, [], b"proof"),
        )
        self.assertEqual(self.ask(b"new.example.org", path=path).body, b"proof")
