"""Tests of `mcpgate.gate.access.outbound`; the network is in the functional tests."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.access.outbound import (
    PrivateAddressError,
    PublicOnlyEndpoint,
    is_public,
    read_authorities,
)
from tests.upstream.test_addresses import LeadsTo


class PublicTests(SynchronousTestCase):
    """Keys do not leave for addresses of the inner network by mistake."""

    def test_addresses(self) -> None:
        """Loopback, private, link-local, shared, metadata and mapped addresses are not public."""
        for address in (
            *("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254"),
            *("100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
            *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "ff02::1"),
            *("2002:7f00:1::", "localhost", "", "0x7f.1"),
        ):
            self.assertFalse(is_public(address), address)
        for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
            self.assertTrue(is_public(address), address)

    def test_factory(self) -> None:
        """A connection to a private address is given up, one to a public one goes on."""
        for host, given_up in (("10.0.0.1", True), ("8.8.8.8", False)):
            endpoint = PublicOnlyEndpoint(LeadsTo(IPv4Address("TCP", host, 443)))
            connecting = endpoint.connect(Factory.forProtocol(Protocol))
            if given_up:
                self.failureResultOf(connecting, PrivateAddressError)
            else:
                self.assertIsInstance(self.successResultOf(connecting), Protocol)


class AuthoritiesTests(SynchronousTestCase):
    """A CA file is read whole or refused."""

    def test_bad_files(self) -> None:
        """A file without certificates, or with a broken one, is told by name."""
        path = Path(self.mktemp())
        path.write_text("nothing")
        with self.assertRaisesRegex(ValueError, "holds no PEM"):
            read_authorities(path)
        path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        with self.assertRaisesRegex(ValueError, "malformed"):
            read_authorities(path)
