"""Tests of `mcpgate.gate.access.challenge`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import InvalidCredential, Unauthenticated
from mcpgate.gate.access.challenge import unauthenticated_fields


class ChallengeTests(SynchronousTestCase):
    """A 401 says how to do better."""

    def test_missing_key(self) -> None:
        """Without a key there is no error to tell."""
        fields = unauthenticated_fields("mcpgate", Unauthenticated())
        self.assertEqual(fields, ((b"www-authenticate", b'Bearer realm="mcpgate"'),))

    def test_wrong_key(self) -> None:
        """A wrong key is called an invalid token."""
        ((_, value),) = unauthenticated_fields("g", InvalidCredential())
        self.assertEqual(value, b'Bearer realm="g", error="invalid_token"')

    def test_metadata(self) -> None:
        """The metadata address is told where there is one."""
        ((_, value),) = unauthenticated_fields("g", Unauthenticated(), "https://g.example/m")
        self.assertEqual(value, b'Bearer realm="g", resource_metadata="https://g.example/m"')

    def test_quoting(self) -> None:
        """Quotes are escaped, line ends and foreign characters left out."""
        ((_, value),) = unauthenticated_fields('a"b\\c\r\nX: é', Unauthenticated())
        self.assertEqual(value, b'Bearer realm="a\\"b\\\\cX: "')
