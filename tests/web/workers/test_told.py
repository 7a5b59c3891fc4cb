"""Tests of mcpgate.web.workers.told, and of the assignment."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.http.fields import Fields
from mcpgate.http.heads import Peer
from mcpgate.http.strictness import WireBounds
from mcpgate.web.listening.listeners import Kind
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.workers.assignment import Assignment, GrantRules, SharedSocket, read_assignment
from mcpgate.web.workers.told import FIELD, Told, read_told, write_told


class ToldTests(SynchronousTestCase):
    """The field on the link."""

    def test_there_and_back(self) -> None:
        """What was told is read."""
        for peer in (Peer("192.0.2.1", True, 4711), Peer("2001:db8::1", False), Peer("", False)):
            told = Told(3, peer, "0a1b-2c", protocol="HTTP/2", hostless=peer.secure)
            self.assertEqual(read_told(Fields([(FIELD, write_told(told))])), told)

    def test_not_told(self) -> None:
        """Nothing, twice, or something else is refused."""
        right = (FIELD, b"0 1 0 2 HTTP/1.1 x 192.0.2.1")
        read_told(Fields([right]))
        for lines in (
            [],
            [right, right],
            [(FIELD, b"0 1 0 2 HTTP/1.1 x")],
            [(FIELD, b"a 1 0 2 HTTP/1.1 x 192.0.2.1")],
            [(FIELD, b"0 1 0 b HTTP/1.1 x 192.0.2.1")],
            [(FIELD, b"0 1 0 2 HTTP/1.1 x \xff")],
        ):
            self.assertRaises(ValueError, read_told, Fields(lines))


class AssignmentTests(SynchronousTestCase):
    """What a worker is to do."""

    def test_there_and_back(self) -> None:
        """A worker reads what the owner wrote, on one line."""
        given = Assignment(
            name="worker 1",
            link="/run/x.sock",
            places=3,
            buckets=4,
            uses=5,
            part=1,
            sockets=(SharedSocket(descriptor=4, kind=Kind.TLS, proxied=True, channel=0),),
            bounds=Bounds(wire=WireBounds(head_bytes=9), connections=7),
            rules=GrantRules(
                digest_key="ab" * 32, headers=("X-Key",), per_key=(1.0, 2.0), public_url="https://a"
            ),
            certificates=(("a.pem", "a.key"),),
            http2=True,
        )
        line = given.write()
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(read_assignment(line), given)
