"""Tests of `mcpgate.gate.access.credentials`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadRequest, InvalidCredential, Unauthenticated
from mcpgate.gate.access.credentials import CREDENTIAL_LIMIT, extract
from mcpgate.http.fields import Fields
from mcpgate.model import Secret

EXTRA = (b"x-outline-api-key",)


def found(*lines: tuple[bytes, bytes], query: bytes | None = None) -> str | None:
    """Give the credential in clear."""
    secret = extract(Fields(lines), query, EXTRA)
    return None if secret is None else secret.reveal()


class ExtractTests(SynchronousTestCase):
    """A key is found where clients put it."""

    def test_each_place(self) -> None:
        """Bearer in any case, a bare token, X-API-Key and the configured header all work."""
        for line in (
            (b"authorization", b"Bearer k1"),
            (b"authorization", b"bearer k1"),
            (b"authorization", b"BEARER   k1"),
            (b"authorization", b"k1"),
            (b"x-api-key", b"k1"),
            (b"x-outline-api-key", b"k1"),
        ):
            self.assertEqual(found((b"host", b"a"), line), "k1", line)

    def test_none(self) -> None:
        """No field, an empty field and a scheme without a key are no credential."""
        self.assertIsNone(found((b"host", b"a")))
        for value in (b"", b"Bearer", b"bearer", b"Bearer  "):
            self.assertIsNone(found((b"authorization", value)), value)
        self.assertIsNone(found((b"x-api-key", b"")))
        self.assertIsNone(found((b"x-outline-api-key", b"")))

    def test_unconfigured_header(self) -> None:
        """A header nobody configured is not looked at."""
        self.assertIsNone(found((b"x-other-key", b"k1")))

    def test_same_key_twice(self) -> None:
        """The same key in two fields is one key."""
        self.assertEqual(found((b"authorization", b"Bearer k1"), (b"x-api-key", b"k1")), "k1")

    def test_standard_names_configured(self) -> None:
        """Configuring a header that is looked at anyway changes nothing."""
        fields = Fields([(b"authorization", b"Bearer k1")])
        self.assertEqual(extract(fields, None, (b"authorization", b"x-api-key")), Secret("k1"))

    def test_two_keys(self) -> None:
        """Two different keys are refused: nobody can tell which is meant."""
        for other in (b"x-api-key", b"x-outline-api-key"):
            with self.assertRaises(BadRequest):
                found((b"authorization", b"Bearer k1"), (other, b"k2"))

    def test_field_twice(self) -> None:
        """A field that stands there twice is refused, even with the same key."""
        for name in (b"authorization", b"x-api-key", b"x-outline-api-key"):
            with self.assertRaises(BadRequest):
                found((name, b"k1"), (name, b"k1"))

    def test_other_scheme(self) -> None:
        """Basic and friends are not accepted."""
        with self.assertRaises(Unauthenticated) as caught:
            found((b"authorization", b"Basic dTpw"))
        self.assertNotIsInstance(caught.exception, InvalidCredential)

    def test_characters(self) -> None:
        """Control characters, blanks inside and bytes beyond ASCII can not be a key."""
        for value in (b"a\tb", b"a b", b"a\x00b", b"a\x7f", "ä".encode(), b"a\r\nb"):
            with self.assertRaises(Unauthenticated):
                found((b"x-api-key", value))

    def test_length(self) -> None:
        """A key of 4 KiB passes, one byte more does not."""
        self.assertEqual(found((b"x-api-key", b"k" * CREDENTIAL_LIMIT)), "k" * CREDENTIAL_LIMIT)
        with self.assertRaises(Unauthenticated):
            found((b"x-api-key", b"k" * (CREDENTIAL_LIMIT + 1)))

    def test_query(self) -> None:
        """A key in the URL is refused, also with its name percent-encoded."""
        for query in (
            b"access_token=k1",
            b"a=b&api_key=k1",
            b"API_KEY=k1",
            b"acc%65ss_token=k1",
            b"apikey",
            b"key=k1",
            b"token=k1",
        ):
            with self.assertRaises(BadRequest):
                found(query=query)

    def test_query_beside_field(self) -> None:
        """With a key in a field, a relayed server may have its own token and key parameters."""
        line = (b"x-api-key", b"k1")
        self.assertEqual(found(line, query=b"token=page2&key=x"), "k1")
        with self.assertRaises(BadRequest):
            found(line, query=b"access_token=k1")

    def test_harmless_query(self) -> None:
        """Other parameters do not matter."""
        self.assertIsNone(found(query=b"monkey=1&tokens=2&a=token"))
        self.assertIsNone(found(query=b""))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=40))
    def test_any_value(self, value: bytes) -> None:
        """Whatever is sent gives a visible ASCII key, nothing, or one of the two refusals."""
        try:
            key = found((b"authorization", value))
        except (Unauthenticated, BadRequest) as error:
            self.assertEqual(error.data, {})
            return
        if key is not None:
            self.assertTrue(all("\x21" <= c <= "\x7e" for c in key) and key)
