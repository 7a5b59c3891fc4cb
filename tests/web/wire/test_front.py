"""Tests of the front door as a whole: what goes in, what comes out, what is counted."""

from __future__ import annotations

import json
import resource

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.interfaces import IInbound, ISlots
from mcpgate.web.wire.bounds import Bounds, connections_allowed
from mcpgate.web.wire.front import BodyBudget, Places
from tests.http.raw_requests import BY_NAME, CORPUS, Raw, head
from tests.web.front_kit import ClientEnd, Door, answers, ok

SHORT = [raw for raw in CORPUS if len(raw.data) < 2000]


class CorpusTests(SynchronousTestCase):
    """Every raw request of the corpus gets its answer from the whole front door."""

    def check(self, raw: Raw, pieces: list[bytes]) -> None:
        """Send the pieces of one input and look at everything that comes of it."""
        bodies: list[bytes] = []

        def collect(inbound: IInbound) -> None:
            def done(body: bytes) -> None:
                bodies.append(body)
                ok(inbound)

            inbound.read_body(4 * 1024 * 1024, done)

        door = Door(dispatch=collect)
        end = door.visit()
        for piece in pieces:
            if end.protocol is not None:
                door.send(piece, end)
        said = answers(end.value().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
        if raw.status is None:
            self.assertEqual((said, end.ended), ([], "aborted"), raw.name)
        elif raw.status == 200:
            statuses = [200] * len(raw.bodies) + [400] * (raw.name == "then-garbage")
            self.assertEqual([status for status, _, _ in said], statuses, raw.name)
            self.assertEqual(bodies, list(raw.bodies), raw.name)
        else:
            self.assertEqual([status for status, _, _ in said], [raw.status], raw.name)
            self.assertEqual(bodies, [], raw.name)
            _, fields, body = said[0]
            self.assertEqual(fields[b"connection"], b"close", raw.name)
            error = json.loads(body)["error"]
            self.assertEqual(error["requestId"].encode(), fields[b"x-request-id"])
            self.assertTrue(error["reason"])
            self.assertTrue(error["message"])
            self.assertEqual(end.ended, "half", raw.name)
            dispatched = len(door.inbounds)
            door.send(head(), end)
            self.assertEqual(len(door.inbounds), dispatched, raw.name)
            door.pass_time(1)
            self.assertEqual(end.ended, "closed", raw.name)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_size(self) -> None:
        """The corpus is not a small one."""
        self.assertGreaterEqual(len(CORPUS), 90)

    def test_whole(self) -> None:
        """It does in one piece."""
        for raw in CORPUS:
            self.check(raw, [raw.data])

    def test_pieces(self) -> None:
        """It does in two pieces."""
        for raw in SHORT:
            middle = len(raw.data) // 2
            self.check(raw, [raw.data[:middle], raw.data[middle:]])

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(SHORT), st.lists(st.integers(1, 60), max_size=8))
    def test_any_split(self, raw: Raw, sizes: list[int]) -> None:
        """It does however the network splits it."""
        pieces = []
        rest = raw.data
        for size in sizes:
            pieces.append(rest[:size])
            rest = rest[size:]
        self.check(raw, [piece for piece in [*pieces, rest] if piece])

    def test_reject_is_counted(self) -> None:
        """A refused request is counted and has its entry in the access log."""
        door = Door()
        door.send(BY_NAME["clte"].data)
        self.assertEqual(door.meters.events["http_reject"], 1)
        (entry,) = door.entries
        self.assertEqual((entry.status, entry.method, entry.path), (400, "-", "-"))
        self.assertEqual(entry.notes["reason"], "bad_request")


class FrontFactoryTests(SynchronousTestCase):
    """Connections: counted, capped, drained."""

    def test_interfaces(self) -> None:
        """The parts provide what they say."""
        door = Door()
        verifyObject(IProtocolFactory, door.factory)
        verifyObject(ISlots, Places())
        end = door.send(head())
        verifyObject(IInbound, door.inbounds[0])
        protocol = end.protocol
        verifyObject(IPushProducer, protocol)
        self.assertTrue(IProtocol.providedBy(protocol))
        door.factory.doStart()
        door.factory.doStop()

    def test_counts(self) -> None:
        """Open connections and their total are counted."""
        door = Door(dispatch=ok)
        first, second = door.visit(), door.visit()
        self.assertEqual(door.meters.connections, 2)
        first.abortConnection()
        self.assertEqual((door.meters.connections, door.meters.connections_total), (1, 2))
        second.abortConnection()
        self.assertEqual(door.factory.connections, set())

    def test_total_cap(self) -> None:
        """Over the total cap a connection is closed at once; a place set free is used again."""
        door = Door(Bounds(connections=2))
        ends = [door.visit(f"192.0.2.{i}") for i in range(3)]
        self.assertEqual([end.ended for end in ends], ["", "", "aborted"])
        self.assertEqual(door.meters.events["connections_refused"], 1)
        ends[0].abortConnection()
        self.assertEqual(door.visit("192.0.2.9").ended, "")

    def test_address_cap(self) -> None:
        """Over the cap per address a plain connection is told 503, others are not hurt."""
        door = Door(Bounds(connections=0, connections_per_address=2), dispatch=ok)
        ends = [door.visit() for _ in range(3)]
        ((status, fields, _),) = answers(ends[2].value())
        self.assertEqual((status, fields[b"retry-after"]), (503, b"5"))
        self.assertEqual(ends[2].ended, "half")
        self.assertEqual(answers(door.send(head(), door.visit("192.0.2.2")).value())[0][0], 200)
        door.pass_time(1)
        self.assertEqual(ends[2].ended, "closed")
        ends[0].abortConnection()
        self.assertEqual(door.visit().value(), b"")

    def test_address_cap_overflow(self) -> None:
        """Only so many are told; the rest, and TLS clients, are closed unheard."""
        bounds = Bounds(connections=0, connections_per_address=1, overflow=1)
        door = Door(bounds)
        ends = [door.visit() for _ in range(3)]
        self.assertEqual([end.ended for end in ends], ["", "half", "aborted"])
        secure = Door(bounds, secure=True)
        self.assertEqual([secure.visit().ended for _ in range(2)], ["", "aborted"])

    def test_proxied_cap(self) -> None:
        """Behind a PROXY protocol the cap waits until the client's address is known."""
        door = Door(Bounds(connections=0, connections_per_address=1), dispatch=ok, proxied=True)
        ends = [door.send(head(), door.visit("192.0.2.7")) for _ in range(2)]
        self.assertEqual([answers(end.value())[0][0] for end in ends], [200, 503])
        ends[0].abortConnection()
        self.assertEqual(answers(door.send(head(), door.visit("192.0.2.7")).value())[0][0], 200)

    def test_proxied_reject(self) -> None:
        """A malformed first request behind a PROXY protocol takes no place."""
        door = Door(Bounds(connections=0, connections_per_address=1), dispatch=ok, proxied=True)
        door.send(b"x\n", door.visit("192.0.2.7"))
        self.assertEqual(door.entries[0].peer, "192.0.2.7")
        end = door.send(head(), door.visit("192.0.2.7"))
        self.assertEqual(answers(end.value())[0][0], 200)

    def test_unix(self) -> None:
        """Clients of a unix socket have no address and no cap per address."""
        door = Door(Bounds(connections=0, connections_per_address=1))
        for _ in range(3):
            self.assertIsNotNone(door.factory.buildProtocol(UNIXAddress(b"/x")))

    def test_shared_slots(self) -> None:
        """Two listeners that share slots share the caps."""
        slots = Places()
        one = Door(Bounds(connections=1), slots=slots)
        two = Door(Bounds(connections=1), slots=slots)
        end = one.visit()
        self.assertEqual(two.visit().ended, "aborted")
        end.abortConnection()
        self.assertEqual(two.visit().ended, "")

    def test_drain_idle(self) -> None:
        """Draining closes idle connections after a moment, and takes no new ones."""
        door = Door(dispatch=ok)
        end = door.send(head())
        drained = door.factory.drain()
        self.assertNoResult(drained)
        self.assertEqual(door.visit().ended, "aborted")
        door.pass_time(2)
        self.assertEqual(end.ended, "closed")
        self.assertIsNone(self.successResultOf(drained))

    def test_drain_late_request(self) -> None:
        """A request that comes in that moment is answered, and told it was the last."""
        door = Door(dispatch=ok)
        end = door.send(head())
        door.factory.drain()
        door.send(head(), end)
        said = answers(end.value())
        self.assertEqual([status for status, _, _ in said], [200, 200])
        self.assertEqual(said[1][1][b"connection"], b"close")
        self.assertEqual(end.ended, "half")

    def test_drain_new_connection(self) -> None:
        """A connection that never asked is closed without an answer."""
        door = Door(dispatch=ok)
        end = door.visit()
        drained = door.factory.drain()
        door.pass_time(2)
        self.assertEqual(end.value(), b"")
        self.successResultOf(drained)

    def test_drain_busy(self) -> None:
        """Draining waits for calls in work, and for more than one who asks."""
        door = Door()
        end = door.send(head())
        first, second = door.factory.drain(), door.factory.drain()
        door.pass_time(20)
        self.assertNoResult(first)
        second.addErrback(lambda _: None)
        second.cancel()
        ok(door.inbounds[0])
        self.assertEqual(answers(end.value())[0][1][b"connection"], b"close")
        door.pass_time(1)
        self.successResultOf(first)

    def test_drain_nothing(self) -> None:
        """Draining an empty front is done at once."""
        self.assertIsNone(self.successResultOf(Door().factory.drain()))

    def test_abort_all(self) -> None:
        """Aborting cuts everybody off."""
        door = Door()
        ends = [door.send(head()), door.visit()]
        drained = door.factory.drain()
        door.factory.abort_all()
        self.assertEqual([end.ended for end in ends], ["aborted", "aborted"])
        self.successResultOf(drained)
        self.assertEqual(door.entries[0].status, 0)

    def test_date(self) -> None:
        """Date is right, and made once a second."""
        door = Door(dispatch=ok)
        end = door.send(head() + head())
        dates = [fields[b"date"] for _, fields, _ in answers(end.value())]
        self.assertEqual(dates, [b"Mon, 12 Jan 1970 13:46:40 GMT"] * 2)
        self.assertIs(door.factory.date(), door.factory.date())

    def test_no_timers_left(self) -> None:
        """When everybody has gone, at most the wheel turns once more."""
        door = Door(dispatch=ok)
        for _ in range(3):
            door.send(head()).abortConnection()
        door.pass_time(1)
        self.assertEqual(door.clock.getDelayedCalls(), [])


class PartsTests(SynchronousTestCase):
    """The small parts."""

    def test_places(self) -> None:
        """Places are counted by key; a limit of 0 is none."""
        places = Places()
        self.assertTrue(places.acquire("a", 1))
        self.assertFalse(places.acquire("a", 1))
        self.assertTrue(places.acquire("b", 1))
        self.assertTrue(places.acquire("a", 0))
        places.release("a")
        places.release("a")
        self.assertTrue(places.acquire("a", 1))

    def test_budget(self) -> None:
        """What is held is never more than the limit; giving back always works."""
        budget = BodyBudget(10)
        self.assertTrue(budget.hold(6))
        self.assertFalse(budget.hold(5))
        self.assertTrue(budget.hold(-6))
        self.assertTrue(budget.hold(10))
        self.assertTrue(BodyBudget(0).hold(10**9))

    def test_connections_allowed(self) -> None:
        """The number of connections follows the limit on open files."""
        self.assertGreaterEqual(connections_allowed(), 0)
        self.patch(resource, "getrlimit", lambda _: (1256, 5000))
        self.assertEqual(connections_allowed(), 500)
        self.patch(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 0))
        self.assertEqual(connections_allowed(), 0)

    def test_kit(self) -> None:
        """The client's end of the tests ends once."""
        end = ClientEnd()
        end.loseConnection()
        end.loseConnection()
        self.assertEqual(end.ended, "closed")
