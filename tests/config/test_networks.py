"""Tests of mcpgate.config.networks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.networks import is_loopback_host, is_private_host


class HostTests(SynchronousTestCase):
    """How far away a host is, by its name."""

    def test_loopback(self) -> None:
        """Only this machine's own names and addresses count as itself."""
        for host in ("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1"):
            self.assertTrue(is_loopback_host(host), host)
        for host in ("localhost.example", "10.0.0.1", "0.0.0.0", "2130706433", ""):
            self.assertFalse(is_loopback_host(host), host)

    def test_private(self) -> None:
        """Private networks count as private; the metadata address of clouds does not."""
        for host in ("localhost", "10.1.2.3", "192.168.0.1", "fd00::1", "mcp-server"):
            self.assertTrue(is_private_host(host), host)
        for host in ("example.org", "8.8.8.8", "169.254.169.254", "fe80::1", "0.0.0.0", "::"):
            self.assertFalse(is_private_host(host), host)
