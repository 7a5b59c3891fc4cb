"""Tests of hiding secrets by name and by value."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import Secret
from mcpgate.telemetry.redaction import HIDDEN, Redactor, is_secret_name


class NameTests(SynchronousTestCase):
    """Fields hidden whatever they hold."""

    def test_names(self) -> None:
        """Names that hold credentials are hidden, others are not."""
        for name in (
            *("key", "api_key", "token", "access-token", "Authorization", "password", "secret"),
            *("session_id", "mcp-session-id", "Cookie", "upstream_session", "client_secret"),
        ):
            self.assertTrue(is_secret_name(name), name)
        for name in ("server", "session", "monkey", "keyword", "fingerprint", "owner", "reason"):
            self.assertFalse(is_secret_name(name), name)


class RedactorTests(SynchronousTestCase):
    """Values hidden wherever they stand."""

    def test_value_in_text(self) -> None:
        """A known value is taken out of any text, as often as it stands there."""
        redactor = Redactor(["canary-1234", Secret("other-secret")])
        self.assertEqual(
            redactor.text("GET /canary-1234/x?k=canary-1234 other-secret!"),
            f"GET /{HIDDEN}/x?k={HIDDEN} {HIDDEN}!",
        )

    def test_nothing_to_hide(self) -> None:
        """Other texts stay as they are."""
        self.assertEqual(Redactor().text("plain"), "plain")
        self.assertEqual(Redactor(["secret-x"]).text("plain secret"), "plain secret")
        self.assertEqual(Redactor(["secret-x"]).text("ab"), "ab")

    def test_encoded_forms(self) -> None:
        """The value is found percent-encoded, JSON-escaped and in a repr, too."""
        redactor = Redactor(['p/w "q"\u00e4'])
        for form in ("p%2Fw%20%22q%22%C3%A4", 'p/w \\"q\\"\\u00e4', 'p/w "q"\u00e4'):
            self.assertEqual(redactor.text(f"<{form}>"), f"<{HIDDEN}>")

    def test_one_begins_with_another(self) -> None:
        """The longer of two values is hidden whole."""
        redactor = Redactor(["abcd", "abcdefgh"])
        self.assertEqual(redactor.text("abcdefgh abcd abcz"), f"{HIDDEN} {HIDDEN} abcz")

    def test_short_values_are_not_looked_for(self) -> None:
        """A value of three characters would hide half the log."""
        self.assertEqual(Redactor(["abc", ""]).text("abc"), "abc")

    def test_discard(self) -> None:
        """A value is hidden as long as somebody still uses it."""
        redactor = Redactor(["abcd-1", "abcd-2"])
        redactor.add("abcd-1")
        version = redactor.version
        redactor.discard("abcd-1")
        self.assertEqual(redactor.text("abcd-1"), HIDDEN)
        self.assertEqual(redactor.version, version)
        redactor.discard("abcd-1")
        self.assertEqual(redactor.text("abcd-1 abcd-2"), f"abcd-1 {HIDDEN}")
        redactor.discard("abcd-2")
        redactor.discard("abcd-2")
        self.assertEqual(redactor.text("abcd-2"), "abcd-2")
        self.assertGreater(redactor.version, version)

    def test_part_of_a_text(self) -> None:
        """A value across the edge of what is shown is hidden, not half shown."""
        redactor = Redactor(["abcdefgh"])
        text = "12abcdefgh34abcdefgh56"
        self.assertEqual(redactor.text(text, 0, 6), f"12{HIDDEN}")
        self.assertEqual(redactor.text(text, 6, 12), f"{HIDDEN}34")
        self.assertEqual(redactor.text(text, 15), f"{HIDDEN}56")
        self.assertEqual(redactor.text(text, 10, 12), "34")
        for start in range(len(text)):
            for stop in range(start, len(text) + 9):
                shown = redactor.text(text, start, stop)
                self.assertFalse(set(shown) - set("123456*"), (start, stop, shown))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.text(min_size=4, max_size=12), min_size=1, max_size=5),
        st.lists(st.text(max_size=6), min_size=1, max_size=6),
    )
    def test_never_left(self, secrets: list[str], between: list[str]) -> None:
        """No known value is left in a text that was put together from them."""
        redactor = Redactor(secrets)
        for secret in secrets:
            text = f"{HIDDEN}{secret}{HIDDEN}".join(between)
            if len(between) > 1:
                shown = redactor.text(text)
                pieces = shown.replace("".join(between), "")
                self.assertIn(HIDDEN, pieces)
            self.assertNotIn(secret, redactor.text(secret).replace(HIDDEN, ""))
