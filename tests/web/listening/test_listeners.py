"""Tests for `mcpgate.web.listening.listeners`."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening import listeners
from mcpgate.web.listening.listeners import (
    BadListen,
    Bound,
    CannotBind,
    Kind,
    Listeners,
    make_endpoint,
    parse_listen,
)
from mcpgate.web.listening.proxied import ProxiedFactory
from tests.web.memory_tls import RecorderFactory


class ParseTests(SynchronousTestCase):
    """Entries of ``[gate] listen``."""

    def test_forms(self) -> None:
        """Every form is understood, with our defaults."""
        for text, kind, proxied, endpoint in (
            ("tcp:8080", Kind.PLAIN, False, "tcp:8080:backlog=1024"),
            (
                "tls:tcp:8443:interface=127.0.0.1",
                Kind.TLS,
                False,
                "tcp:8443:interface=127.0.0.1:backlog=1024",
            ),
            (
                r"tcp:80:interface=\:\:1:backlog=5",
                Kind.PLAIN,
                False,
                r"tcp:80:interface=\:\:1:backlog=5",
            ),
            ("tls:haproxy:tcp:443", Kind.TLS, True, "tcp:443:backlog=1024"),
            ("haproxy:tcp6:port=80", Kind.PLAIN, True, "tcp6:port=80:backlog=1024"),
            ("redirect:tcp:80", Kind.REDIRECT, False, "tcp:80:backlog=1024"),
            (
                " unix:/run/x.sock ",
                Kind.PLAIN,
                False,
                "unix:/run/x.sock:backlog=1024:mode=660:lockfile=1",
            ),
            (
                "unix:address=/x:mode=600:lockfile=0",
                Kind.PLAIN,
                False,
                "unix:address=/x:mode=600:lockfile=0:backlog=1024",
            ),
            ("systemd:name=web", Kind.PLAIN, False, "systemd:name=web:domain=INET"),
            (
                "tls:systemd:domain=UNIX:index=0",
                Kind.TLS,
                False,
                "systemd:domain=UNIX:index=0",
            ),
            ("onion:80", Kind.PLAIN, False, "onion:80"),
        ):
            listen = parse_listen(text)
            self.assertEqual((listen.kind, listen.proxied), (kind, proxied), text)
            self.assertEqual(listen.endpoint, endpoint)

    def test_addresses(self) -> None:
        """What will be bound is told."""
        for text, host, port in (
            ("tcp:8080", "0.0.0.0", 8080),
            ("tcp6:0", "::", 0),
            ("unix:/x", "/x", 0),
        ):
            listen = parse_listen(text)
            self.assertEqual((listen.host, listen.port), (host, port))

    def test_refused(self) -> None:
        """What can not work is refused with what is wrong, and the entry as written."""
        for text, said in (
            ("", "not an endpoint"),
            ("8443", "not an endpoint"),
            ("tcp:", "the port"),
            ("tcp:70000", "65535"),
            ("tcp:http", "the port"),
            ("tcp:80:interface=localhost", "numeric IPv4"),
            (r"tcp6:80:interface=1.2.3.4", "no address"),
            ("tcp:80:interface=::1", "only the port"),
            ("tcp:80:intreface=1.2.3.4", "intreface= is not known"),
            ("tcp:80:backlog=many", "backlog"),
            ("tcp:80:backlog=1:backlog=2", "twice"),
            ("tcp:80\\", "backslash"),
            ("tls:ssl:443", "tls:tcp:PORT"),
            ("stdio:", "stdin"),
            ("haproxy:tls:tcp:443", "order"),
            ("tls:redirect:tcp:443", "order"),
            ("tls:tls:tcp:443", "order"),
            ("unix:relative", "begin with /"),
            ("unix:/x:mode=rw", "octal"),
            ("unix:/x:mode=899", "octal"),
            ("unix:/x:lockfile=yes", "lockfile"),
            ("unix:/" + "x" * 110, "107"),
            ("systemd:domain=INET", "systemd:name"),
            ("systemd:index=0:name=x", "systemd:name"),
            ("systemd:0", "systemd:name"),
            ("systemd:index=-1", "index"),
            ("systemd:name=x:domain=IPX", "domain"),
        ):
            error = self.assertRaises(BadListen, parse_listen, text)
            self.assertIn(said, str(error), text)
            self.assertIn(repr(text), str(error))

    @given(st.text(alphabet="tlscpunix:/=\\01systemd", max_size=30))
    @settings(max_examples=100)
    def test_anything(self, text: str) -> None:
        """Whatever is written is understood or refused."""
        try:
            parse_listen(text)
        except BadListen:
            pass


class EndpointTests(SynchronousTestCase):
    """Making endpoints."""

    def test_unknown_type(self) -> None:
        """An endpoint no plugin offers is refused."""
        error = self.assertRaises(
            BadListen, make_endpoint, MemoryReactorClock(), parse_listen("nosuch:80")
        )
        self.assertIn("'nosuch:80' is not an endpoint", str(error))

    def test_nothing_inherited(self) -> None:
        """Without systemd there is no inherited socket, which is said."""
        for text in ("systemd:name=web", "systemd:index=9"):
            error = self.assertRaises(
                BadListen, make_endpoint, MemoryReactorClock(), parse_listen(text)
            )
            self.assertIn("FileDescriptorName=", str(error))

    def test_family_of_inherited_socket(self) -> None:
        """The family of an inherited socket is read from it."""
        mine = socket.socket(socket.AF_UNIX)
        self.addCleanup(mine.close)
        reactor = MemoryReactorClock()
        made = AdoptedStreamServerEndpoint(reactor, mine.fileno(), socket.AF_INET)
        self.patch(listeners, "serverFromString", lambda reactor, text: made)
        make_endpoint(reactor, parse_listen("systemd:name=web"))
        self.assertEqual(made.addressFamily, socket.AF_UNIX)


class BoundTests(SynchronousTestCase):
    """How a listener is shown to people."""

    def test_urls(self) -> None:
        """A URL that can be pasted, whatever was bound."""
        for text, address, url in (
            ("tcp:0", IPv4Address("TCP", "0.0.0.0", 81), "http://127.0.0.1:81"),
            ("tls:tcp6:0", IPv6Address("TCP", "::", 81), "https://[::1]:81"),
            ("redirect:tcp:0", IPv4Address("TCP", "192.0.2.1", 81), "http://192.0.2.1:81"),
            ("unix:/x", UNIXAddress(b"/x"), "unix:/x"),
            ("unix:/x", UNIXAddress(None), "unix:"),
        ):
            self.assertEqual(Bound(parse_listen(text), address).url, url)
        local = Bound(parse_listen("unix:/x"), UNIXAddress(b"/x"))
        self.assertEqual((local.host, local.port), ("", 0))


class BusyReactor(MemoryReactorClock):
    """A reactor on which port 81 is taken and port 82 needs privileges."""

    @override
    def listenTCP(
        self, port: int, factory: object, backlog: int = 50, interface: str = ""
    ) -> object:
        """Refuse two ports."""
        if port == 81:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        if port == 82:
            raise CannotListenError(interface, port, PermissionError(13, "Permission denied"))
        return super().listenTCP(port, factory, backlog, interface)


class ListenersTests(SynchronousTestCase):
    """Binding and letting go."""

    @override
    def setUp(self) -> None:
        self.reactor = BusyReactor()
        self.factories = {kind: RecorderFactory() for kind in Kind}

    def listeners(self, *texts: str) -> Listeners:
        """Make the service."""
        return Listeners(
            self.reactor,
            [parse_listen(text) for text in texts],
            self.factories,
            wheel=DeadlineWheel(self.reactor),
            meters=Meters(),
        )

    def test_start_and_stop(self) -> None:
        """Every listener is bound with its factory and a long queue, and let go again."""
        service = self.listeners(
            "tls:tcp:8443:interface=127.0.0.1", "redirect:haproxy:tcp:8080", "unix:/x"
        )
        self.successResultOf(service.startService())
        first, second = self.reactor.tcpServers
        self.assertEqual(first[:1] + first[2:], (8443, 1024, "127.0.0.1"))
        self.assertIs(first[1], self.factories[Kind.TLS])
        assert isinstance(second[1], ProxiedFactory)
        self.assertIs(second[1].wrappedFactory, self.factories[Kind.REDIRECT])
        self.assertEqual(self.reactor.unixServers[0][0], "/x")
        self.assertEqual(len(service.bound), 3)
        self.successResultOf(service.stopService())
        self.assertEqual(service.bound, ())
        self.successResultOf(service.stopService())

    def test_accept(self) -> None:
        """Who connects can be made to wait, where the kind of port can do that."""
        service = self.listeners("tcp:8080")
        self.successResultOf(service.startService())
        service.accept(False)
        told: list[str] = []
        port: Any = SimpleNamespace(
            startReading=lambda: told.append("start"), stopReading=lambda: told.append("stop")
        )
        service._ports.append(port)
        service.accept(False)
        service.accept(True)
        self.assertEqual(told, ["stop", "start"])

    def test_port_taken(self) -> None:
        """A taken port fails the start, names address and entry, and frees what was bound."""
        service = self.listeners("tcp:8080", "tcp:81:interface=127.0.0.1")
        self.patch(
            listeners,
            "port_holder",
            lambda port: "",
        )
        error = self.failureResultOf(service.startService(), CannotBind).value
        self.assertIn(
            "127.0.0.1 port 81 (listen = tcp:81:interface=127.0.0.1): Address already in use",
            str(error),
        )
        self.assertEqual(service.bound, ())

    def test_holder_is_named(self) -> None:
        """Who holds the port is named when it can be found."""
        self.patch(listeners, "port_holder", lambda port: f"nginx (pid {port})")
        error = self.failureResultOf(self.listeners("tcp:81").startService(), CannotBind).value
        self.assertIn("nginx (pid 81) listens there", str(error))

    def test_low_port(self) -> None:
        """A port that needs privileges comes with the remedy."""
        self.patch(listeners, "port_holder", lambda port: "")
        error = self.failureResultOf(self.listeners("tcp:82").startService(), CannotBind).value
        self.assertIn("CAP_NET_BIND_SERVICE", str(error))

    def test_mistake_shows_before_binding(self) -> None:
        """An impossible entry binds nothing at all."""
        service = self.listeners("tcp:8080", "systemd:name=web")
        self.failureResultOf(service.startService(), BadListen)
        self.assertEqual(self.reactor.tcpServers, [])

    def test_close_that_fails(self) -> None:
        """A socket that does not close is logged; the others are closed."""
        service = self.listeners("tcp:8080", "tcp:8081")
        self.successResultOf(service.startService())

        def broken() -> Deferred[None]:
            return fail(OSError("stuck"))

        service._ports[0].stopListening = broken  # type: ignore[method-assign]  # for the test
        self.successResultOf(service.stopService())
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
