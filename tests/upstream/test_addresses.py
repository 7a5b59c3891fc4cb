"""Names of servers that lead to link-local addresses."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mcpgate.upstream.addresses import LinkLocalError, NamedEndpoint, is_link_local
from mcpgate.upstream.remote import plain_endpoint, remote


@implementer(IStreamClientEndpoint)
class LeadsTo:
    """An endpoint whose name leads to this address."""

    def __init__(self, address: Any) -> None:
        self._address = address

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See `IStreamClientEndpoint`."""
        factory.doStart()
        factory.doStop()
        connecting: Deferred[Any] = maybeDeferred(factory.buildProtocol, self._address)
        return connecting


class NamedEndpointTests(SynchronousTestCase):
    """Connecting by name."""

    def connect(self, address: Any) -> Deferred[IProtocol]:
        """Connect to a name that leads there."""
        return NamedEndpoint(LeadsTo(address)).connect(Factory.forProtocol(Protocol))

    def test_link_local(self) -> None:
        """No connection is made to where a cloud keeps its keys, however that is written."""
        for host in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fe80::1"):
            kind = IPv6Address if ":" in host else IPv4Address
            failure = self.failureResultOf(self.connect(kind("TCP", host, 80)), LinkLocalError)
            self.assertIn("write the address into url", failure.getErrorMessage())

    def test_elsewhere(self) -> None:
        """Private addresses and those of the Internet are an administrator's business."""
        for host in ("10.0.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::1", ""):
            kind = IPv6Address if ":" in host else IPv4Address
            self.assertIsInstance(
                self.successResultOf(self.connect(kind("TCP", host, 80))), Protocol
            )
        self.assertFalse(is_link_local("no address"))

    def test_which_are_checked(self) -> None:
        """Names in URLs are; addresses in URLs, and servers the gate started, are meant."""
        reactor: Any = MemoryReactorClock()
        self.assertIsInstance(
            remote(reactor, "http://a.example/mcp").make_endpoint(), NamedEndpoint
        )
        for endpoint in (
            remote(reactor, "http://169.254.10.1/mcp").make_endpoint(),
            remote(reactor, "http://[fe80::1]/mcp").make_endpoint(),
            plain_endpoint(reactor, "localhost", 80),
        ):
            self.assertNotIsInstance(endpoint, NamedEndpoint)
        self.assertIsInstance(plain_endpoint(reactor, "localhost", 80), HostnameEndpoint)
