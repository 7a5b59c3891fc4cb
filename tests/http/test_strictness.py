"""Tests of the strict checks on a request head."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadRequest, ExpectationFailed, TooLarge
from mcpgate.http.fields import Fields
from mcpgate.http.strictness import (
    HeadWalk,
    WireBounds,
    check_field_line,
    check_request_line,
    connection_tokens,
    is_sensitive,
    make_head,
    trailer_line,
)

HOST = (b"host", b"gate.test")


class StrictnessTests(SynchronousTestCase):
    """The checks one by one; whole requests are judged in `tests.http.test_parsing`."""

    def test_words(self) -> None:
        """A refused line is refused with a sentence that says what is wrong with it."""
        for line, word in [
            (b" folded", "Folded"),
            (b"nonsense", "no colon"),
            (b": v", "no name"),
            (b"X : v", "before its colon"),
            (b"X(: v", "must not hold"),
            (b"X: \x01", "control"),
        ]:
            error = self.assertRaises(BadRequest, check_field_line, line)
            self.assertIn(word, error.detail)

    def test_good_lines(self) -> None:
        """Good lines pass."""
        check_field_line(b"X-A: b")
        check_request_line(b"GET /a HTTP/1.1")

    def test_sensitive(self) -> None:
        """Names are sensitive with '_' for '-' as well, and by prefix."""
        for name in (b"host", b"x_api_key", b"mcp-session-id", b"x-forwarded-host", b"sec_fetch"):
            self.assertTrue(is_sensitive(name), name)
        for name in (b"accept", b"x-custom", b"x_custom"):
            self.assertFalse(is_sensitive(name), name)

    def test_limit(self) -> None:
        """A length above the limit is too large, however it is padded."""
        lines = [HOST, (b"content-length", b"00100")]
        self.assertEqual(make_head(b"POST", b"/", 1, lines, 100).content_length, 100)
        self.assertRaises(TooLarge, make_head, b"POST", b"/", 1, lines, 99)

    def test_expectation(self) -> None:
        """The one expectation we know may be written in any case."""
        make_head(b"POST", b"/", 1, [HOST, (b"expect", b"100-Continue")], 1)
        lines = [HOST, (b"expect", b"")]
        self.assertRaises(ExpectationFailed, make_head, b"POST", b"/", 1, lines, 1)

    def test_connection_tokens(self) -> None:
        """All Connection lines are read together."""
        fields = Fields([(b"connection", b"Close, x"), (b"connection", b"Upgrade")])
        self.assertEqual(connection_tokens(fields), [b"close", b"x", b"upgrade"])

    def test_trailer(self) -> None:
        """A trailer is a field like others, but none that means something in a head."""
        self.assertEqual(trailer_line(b"X-Sum:  1 "), (b"x-sum", b"1"))
        self.assertRaises(BadRequest, trailer_line, b"Host: x")

    def test_walk_goes_on(self) -> None:
        """A walk goes on where it stopped."""
        walk = HeadWalk(WireBounds())
        text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        verdicts = [walk.walk(text[: i + 1]) for i in range(len(text))]
        self.assertEqual(verdicts, [False] * (len(text) - 1) + [True])
