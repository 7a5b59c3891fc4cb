"""Tests of mcpgate.config.listeners."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.listeners import Listener, parse_listener
from mcpgate.config.problems import BadValueError
from mcpgate.web.listening.listeners import parse_listen


class ParseListenerTests(SynchronousTestCase):
    """Endpoint strings."""

    def test_tcp(self) -> None:
        """Prefix, port and interface of TCP endpoints are told."""
        self.assertEqual(
            parse_listener("tls:tcp:8443:interface=127.0.0.1"),
            Listener("tls", "tcp", 8443, "127.0.0.1", public=False),
        )
        self.assertEqual(
            parse_listener("tcp:port=0:backlog=9"), Listener("", "tcp", 0, "", public=True)
        )
        self.assertEqual(
            parse_listener(r"redirect:tcp6:80:interface=\:\:1"),
            Listener("redirect", "tcp6", 80, "::1", public=False),
        )

    def test_public(self) -> None:
        """Only loopback addresses and local sockets are out of reach of other machines."""
        for text, public in {
            "tcp:1": True,
            "tcp:1:interface=0.0.0.0": True,
            "tcp:1:interface=10.0.0.1": True,
            "tls:haproxy:tcp:1:interface=::1".replace("::1", r"\:\:1"): False,
            "tcp:1:interface=127.8.8.8": False,
            "unix:/run/x": False,
            "unix:address=/run/x:mode=660": False,
            "systemd:name=web": True,
            "systemd:domain=INET:index=0": True,
            "fd:3": True,
        }.items():
            self.assertEqual(parse_listener(text).public, public, text)

    def test_refused(self) -> None:
        """What can not be an endpoint is refused with a remedy."""
        for text in (
            "",
            ":",
            "tls:",
            "8443",
            "tcp",
            "tcp:",
            "tcp:http",
            "tcp:65536",
            "tcp:-1",
            "tcp:80:443",
            "tcp:80:interface=::1",
            "tcp:80:interface=eth0",
            "tcp:80:backlog=x",
            "tcp:80:port=81",
            "tcp:80:ip=1.1.1.1",
            "tcp:80:backlog=1:backlog=2",
            "ssl:443",
            "tls:tls:tcp:443",
            "tls:redirect:tcp:443",
            "unix:",
            "unix:run/x",
            "unix:/x:mode=999",
            "unix:/x:lockfile=2",
            "unix:/x:wantPID=1",
            "systemd:web",
            "systemd:domain=INET",
            "systemd:index=x",
            "haproxy:tls:tcp:1",
            "tcp:1:interface=localhost",
            "tcp6:1:interface=127.0.0.1",
            "stdio:",
            "unix",
            "https://x",
            "tcp:80\\",
        ):
            with self.assertRaises(BadValueError, msg=text):
                parse_listener(text)

    def test_front_door_agrees(self) -> None:
        """What is let through here is understood where the listeners are made."""
        pieces = ("", "tls:", "redirect:", "haproxy:", "tls:haproxy:", "tls:tls:")
        ends = (
            "tcp:1", "tcp:", "tcp6:1", "tcp:1:interface=127.0.0.1", "tcp6:1:interface=127.0.0.1",
            r"tcp6:1:interface=\:\:1", r"tcp:1:interface=\:\:1", "tcp:1:backlog=65537", "unix:/a",
            "unix:/a:mode=8", "unix:a", "systemd:index=0", "systemd:name=a:index=0", "fd:1", "x",
            "tcp:999999", "tcp:1:x=1", "unix:/a:b", "tcp:1:interface=localhost", "stdio:",
        )  # fmt: skip
        for text in (piece + end for piece in pieces for end in ends):
            try:
                parse_listener(text)
            except BadValueError:
                continue
            self.assertEqual(parse_listen(text).text, text)

    @given(st.text(alphabet=st.sampled_from(list("tcpls:=\\01./ifx")), max_size=30))
    @settings(max_examples=100)
    def test_any_text(self, text: str) -> None:
        """Whatever is typed is read or refused."""
        try:
            parse_listener(text)
        except BadValueError as error:
            self.assertTrue(error.remedy)
