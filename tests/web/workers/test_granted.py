"""Tests of mcpgate.web.workers.granting and granted: an owner and two workers, in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BackendUnavailable, GateError
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.admission import Admission, RateLimiter, Slots
from mcpgate.gate.routing import Routes
from mcpgate.gate.server_hosts import ServerHosts
from mcpgate.gate.tolls import Tolls
from mcpgate.http.fields import Fields
from mcpgate.http.forwarding import Forwarding
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IInbound, ILoan
from mcpgate.model import Caller, Isolation, Owner, Principal, Rate, Secret, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.web.guard import Guard
from mcpgate.web.workers.grant import GRANT_S
from mcpgate.web.workers.granted import Granted
from mcpgate.web.workers.granting import Grants
from mcpgate.web.workers.uses import Uses, make_table
from tests.web.fake_inbound import FakeInbound

DIGEST = KeyDigest(b"d" * 32)
HOSTS = ServerHosts(["*.example.org"])


class Server:
    """A server's connections, as a worker has them."""

    def __init__(self) -> None:
        self.heard_s = 0.0
        self.held_up = False
        self.authority = b"127.0.0.1:1"
        self.closed: GateError | None = None
        self.sent: list[tuple[str, bytes, Any]] = []
        self.fields: list[tuple[bytes, bytes]] = []

    def send(
        self, method: str, target: bytes, fields: Any, body: Any, receiver: Any, **_: Any
    ) -> Server:
        """See `IHTTPUpstream.send`."""
        self.fields = fields
        self.sent.append((method, target, receiver))
        return self

    def abort(self) -> None:
        """See `IUpstreamCall.abort`."""

    def register_flow(self, *flow: Any) -> None:
        """See `IUpstreamCall.register_flow`."""

    pause = resume = abort

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`."""
        self.closed = error

    def answer(self, number: int = -1, *fields: tuple[bytes, bytes]) -> None:
        """Answer a request."""
        receiver = self.sent[number][2]
        head = ResponseHead(
            status=200, reason=b"OK", version=(1, 1), fields=Fields(fields), content_length=2
        )
        receiver.response_head(head)
        receiver.response_data(b"{}")
        receiver.response_end([])


def nowhere() -> Any:
    """Connect to nothing."""


class Instance:
    """A copy of a server."""

    address = ("127.0.0.1", 1)

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id

    @staticmethod
    @cache
    def make(instance_id: str) -> Instance:
        """Give the one copy with this id."""
        return Instance(instance_id)


class Lease:
    """What the owner's pool lends."""

    def __init__(self, instance_id: str, upstream: Any) -> None:
        self.instance = Instance.make(instance_id)
        self.upstream = upstream
        self.loan: Any = None
        self.recalled: Any = None
        self.released = 0

    def release(self) -> None:
        """See `ILease.release`."""
        self.released += 1


class GrantedTests(SynchronousTestCase):
    """What passes by the owner, and what a worker does by itself."""

    def setUp(self) -> None:
        """Join an owner and two workers."""
        self.clock: Any = MemoryReactorClock()
        self.clock.advance(1000)
        self.wheel = DeadlineWheel(self.clock)
        self.addCleanup(self.wheel.stop)
        self.meters = Meters()
        self.table = make_table(3)
        self.addCleanup(os.close, self.table)
        self.revocations = Revocations()
        self.told: list[dict[str, Any]] = []
        self.leases: list[Lease] = []
        self.copy = "copy-1"
        self.upstream = HTTPUpstream(
            self.clock,
            nowhere,
            authority=b"a",
            wheel=self.wheel,
            meters=self.meters,
        )
        self.room = True
        self.ahead_s = 0.0
        self.owner = Grants(
            self.clock,
            uses=Uses(self.table, 0),
            digest=DIGEST,
            lend=self.lend,
            watch=self.revocations.watch,
            tell=self.tell,
            ahead_s=lambda: self.ahead_s,
        )
        self.spec = ServerSpec(name="web", transport=Transport.HTTP, headers=(("X-Who", "{user}"),))
        self.limiter, self.slots = RateLimiter(self.clock), Slots()
        self.rate: Rate | None = None
        self.passed: list[IInbound] = []
        self.servers: list[Server] = []
        self.workers = [self.worker(part) for part in (1, 2)]
        self.dispatches = [one.channel(0, self.by_owner) for one in self.workers]

    def lend(
        self, spec: ServerSpec, owner: Owner, loan: ILoan, recalled: Callable[..., None]
    ) -> Any:
        """See `InstancePool.lend`."""
        lease = Lease(self.copy, self.upstream)
        lease.loan, lease.recalled = loan, recalled
        self.leases.append(lease)
        return lease

    def tell(self, message: dict[str, Any]) -> None:
        """Say something to both workers."""
        message = json.loads(json.dumps(message))
        self.told.append(message)
        for worker in self.workers:
            worker.told(message)

    def worker(self, part: int, **limits: Any) -> Granted:
        """Make a worker."""
        worker = Granted(
            self.clock,
            wheel=self.wheel,
            meters=self.meters,
            uses=Uses(self.table, part),
            guard=Guard(
                allowed_hosts=("*",),
                trusted_proxies=("198.51.100.0/24",),
                allowed_origins=("https://app.example.org",),
            ),
            server_hosts=HOSTS,
            headers=(b"x-own-key",),
            anonymous=True,
            digest=DIGEST,
            tolls=Tolls(
                Admission(
                    self.limiter,
                    self.slots,
                    per_key=limits.get("per_key"),
                    per_address=None,
                    concurrent_per_key=2,
                ),
                self.meters,
            ),
            forwarding=Forwarding(),
            keepalive_s=15.0,
            reach=lambda spec, address: None,  # type: ignore[arg-type,return-value]  # not asked
            renew=self.owner.renew,
            has_room=lambda: self.room,
        )

        def connect(grant: object) -> Any:
            self.servers.append(Server())
            return self.servers[-1]

        worker._connect = connect  # type: ignore[method-assign]  # no real connection
        return worker

    def by_owner(self, inbound: IInbound) -> None:
        """Serve a request in the owner, as far as grants are concerned."""
        self.passed.append(inbound)
        fields = inbound.head.fields
        key = (fields.get(b"x-own-key") or b"").decode()
        caller = self.caller(key)
        route = Routes([self.spec], HOSTS).find(inbound.head.path, fields.get(b"host"))
        assert route is not None
        inbound.channel = 0  # type: ignore[attr-defined]  # as the link does
        lease: Any = Lease(self.copy, self.upstream)
        self.owner.passing(inbound, caller, route, lease)

    def caller(self, key: str) -> Caller:
        """Tell who has a key."""
        name = key or "anonymous"
        return Caller(Principal("keys", name, DIGEST(Secret("p" + key))), Secret(key))

    def ask(
        self,
        path: bytes = b"/web/x",
        *,
        key: bytes = b"k1",
        host: bytes = b"gate",
        worker: int = 0,
        method: str = "GET",
        more: tuple[tuple[bytes, bytes], ...] = (),
        address: str = "192.0.2.7",
        **how: Any,
    ) -> tuple[FakeInbound, bool]:
        """Ask a worker; tell whether it passed the request on."""
        fields = [(b"host", host), *more]
        if key:
            fields.append((b"x-own-key", key))
        inbound = FakeInbound(method, path, fields=fields, **how)
        inbound.peer = type(inbound.peer)(address, True, 1)
        before = len(self.passed)
        self.dispatches[worker](inbound)
        return inbound, len(self.passed) > before

    def granted(self, **how: Any) -> None:
        """Have a key get its grant."""
        for _ in range(2):
            self.assertTrue(self.ask(**how)[1])

    # --- Serving ------------------------------------------------------------------------------

    def test_served(self) -> None:
        """From the third request on every worker serves it by itself, by the same rules."""
        self.granted()
        for worker in (0, 1):
            inbound, passed = self.ask(b"/web/a?x=1"[:6], worker=worker, query=b"x=1")
            self.assertFalse(passed)
            server = self.servers[worker]
            self.assertEqual(server.sent[-1][:2], ("GET", b"/a?x=1"))
            self.assertIn((b"x-forwarded-prefix", b"/web"), server.fields)
            self.assertIn((b"x-who", b"k1"), server.fields)
            self.assertEqual(self.leases[0].loan.in_work, 1)
            server.heard_s = self.clock.seconds()
            server.answer()
            self.assertEqual((inbound.status, inbound.body), (200, b"{}"))
            self.assertEqual(inbound.notes["server"], "web")
            self.assertEqual(self.leases[0].loan.in_work, 0)
            self.assertEqual(self.leases[0].loan.heard_s, 1000.0)
            self.assertEqual(self.leases[0].loan.used_s, 1000.0)
        self.assertEqual(self.meters.calls_in_work, 0)

    def test_another_clock(self) -> None:
        """The owner's clock may read otherwise than the workers'."""
        self.granted()
        loan = self.leases[0].loan
        self.ahead_s = 5000.0
        self.assertEqual((loan.used_s, loan.heard_s), (0.0, 0.0))
        self.ask()
        self.servers[0].heard_s = 990.0
        self.servers[0].answer()
        self.assertEqual((loan.used_s, loan.heard_s), (6000.0, 5990.0))

    def test_what_fits_no_grant(self) -> None:
        """Everything else goes to the owner, as it came."""
        self.granted()
        every: tuple[dict[str, Any], ...] = (
            {"key": b"k2"},
            {"key": b""},
            {"host": b"other"},
            {"host": b"web.example.org"},
            {"path": b"/servers/web/x"},
            {"path": b"/web/mcp"},
            {"path": b"/web/sse"},
            {"path": b"/web/openapi.json"},
            {"method": "OPTIONS", "more": ((b"origin", b"https://app.example.org"),)},
            {"more": ((b"origin", b"https://evil.example"),)},
            {"more": ((b"authorization", b"Bearer other"),)},
            {"query": b"access_token=x"},
        )
        for how in every:
            inbound, passed = self.ask(**how)
            self.assertTrue(passed, how)
            self.assertEqual(inbound.extra_fields, [])
            self.assertEqual(inbound.notes, {})
        self.room = False
        self.assertTrue(self.ask()[1])

    def test_behind_a_proxy(self) -> None:
        """What trusted proxies say is part of the request, and gone when it is passed on."""
        more = ((b"x-forwarded-host", b"gate"), (b"x-forwarded-prefix", b"/tools"))
        self.granted()
        how: dict[str, Any] = {"host": b"inner", "more": more, "address": "198.51.100.1"}
        inbound, passed = self.ask(**how)
        self.assertFalse(passed)
        self.assertIn((b"x-forwarded-prefix", b"/tools/web"), self.servers[0].fields)
        how["key"] = b"k2"
        inbound, passed = self.ask(**how)
        self.assertTrue(passed)
        self.assertEqual(inbound.peer.prefix, b"")
        self.assertEqual(inbound.head.fields.get(b"host"), b"inner")

    def test_host_of_a_server(self) -> None:
        """Where the host names the server, all its paths are the grant's."""
        how: dict[str, Any] = {"host": b"web.example.org", "path": b"/a/b"}
        self.granted(**how)
        self.assertFalse(self.ask(**how)[1])
        self.assertEqual(self.servers[0].sent[-1][1], b"/a/b")
        self.assertTrue(self.ask(host=b"web.example.org", path=b"/mcp")[1])
        self.owner.withdraw_all()
        self.assertTrue(self.ask(**how)[1])

    def test_origin(self) -> None:
        """A page that may call sees what it needs to."""
        more = ((b"origin", b"https://app.example.org"),)
        self.granted()
        inbound, passed = self.ask(more=more)
        self.assertFalse(passed)
        self.assertIn((b"access-control-allow-origin", more[0][1]), inbound.extra_fields)

    def test_without_a_key(self) -> None:
        """Who needs no key has a grant like anybody else."""
        self.granted(key=b"")
        self.assertFalse(self.ask(key=b"")[1])
        self.assertTrue(self.ask()[1])

    def test_refused(self) -> None:
        """Limits and paths out of the server's are told of here, and nothing stays taken."""
        self.granted()
        for _ in range(2):
            self.ask()
        inbound, passed = self.ask()
        self.assertEqual((inbound.status, passed), (503, False))
        self.servers[0].answer(0)
        self.servers[0].answer(1)
        self.assertEqual(self.ask(b"/web/../x")[0].status, 404)
        self.assertEqual(self.leases[0].loan.in_work, 0)
        self.assertEqual(self.slots.taken(self.caller("k1").principal), 0)
        self.dispatches[0] = self.worker(1, per_key=Rate(1.0, 1.0)).channel(0, self.by_owner)

    def test_rate(self) -> None:
        """A request too many is refused with the time to wait."""
        self.workers[0] = self.worker(1, per_key=Rate(1.0, 1.0))
        self.dispatches[0] = self.workers[0].channel(0, self.by_owner)
        self.granted()
        self.ask()
        inbound, passed = self.ask()
        self.assertEqual((inbound.status, passed), (429, False))
        self.assertEqual(inbound.fields[b"retry-after"], b"1")
        self.assertEqual(self.meters.events["rate_limited"], 1)
        self.assertEqual(self.leases[0].loan.in_work, 1)

    def test_unforeseen(self) -> None:
        """A fault of ours gives everything back."""
        self.granted()
        self.workers[0]._relay.relay = lambda *_, **__: 1 / 0  # type: ignore[method-assign,assignment]  # a fault
        self.assertRaises(ZeroDivisionError, self.ask)
        self.assertEqual(self.leases[0].loan.in_work, 0)
        self.assertEqual(self.meters.calls_in_work, 0)

    # --- Ends ---------------------------------------------------------------------------------

    def test_renewed(self) -> None:
        """The owner is asked once when the time is nearly up, and the grant goes on."""
        self.granted()
        self.clock.advance(GRANT_S * 0.8)
        self.assertFalse(self.ask()[1])
        self.assertEqual(self.told[-1], {"renewed": 1, "for_s": GRANT_S})
        self.owner.renew(1)
        self.owner.renew(7)
        self.assertEqual(len(self.told), 2)
        self.clock.advance(GRANT_S * 0.7)
        self.owner.look()
        self.assertFalse(self.ask(worker=1)[1])
        self.assertEqual(len(self.owner), 1)

    def test_one_connection_at_a_time(self) -> None:
        """The owner keeps no connection to a server that workers speak to now."""
        gone: list[object] = []
        self.upstream.let_go = gone.append  # type: ignore[method-assign,assignment]  # a stand-in
        self.granted()
        self.owner.look()
        self.assertEqual(gone, [self.caller("k1").principal])

    def test_out_of_time(self) -> None:
        """A grant that is not renewed ends, here and there."""
        self.granted()
        self.clock.advance(GRANT_S * 0.8)
        self.owner.renew = lambda serial: None  # type: ignore[method-assign]  # does not answer
        self.workers[0]._renew = self.owner.renew
        self.assertFalse(self.ask()[1])
        self.clock.advance(GRANT_S * 0.3)
        self.assertTrue(self.ask()[1])
        self.workers[1].look()
        self.assertEqual((self.workers[1]._held, self.workers[1]._by_serial), ({}, {}))
        self.owner.look()
        self.assertEqual((len(self.owner), self.leases[0].released), (0, 0))
        self.servers[0].answer()
        self.owner.look()
        self.assertEqual(self.leases[0].released, 1)
        self.clock.advance(0)
        self.assertIsInstance(self.servers[0].closed, BackendUnavailable)
        self.assertEqual(self.revocations.watched("keys"), [])

    def test_withdrawn(self) -> None:
        """After a reload nothing begins under a grant, even where the word has not come yet."""
        self.granted()
        self.ask()
        workers, self.workers = self.workers, []
        self.owner.withdraw_all()
        self.assertTrue(self.ask(worker=0)[1])
        for worker in workers:
            worker.told(self.told[-1])
        self.assertIsNone(self.servers[0].closed)
        self.owner.look()
        self.assertEqual((self.leases[0].released, self.owner.in_work), (0, 1))
        self.servers[0].answer()
        self.owner.look()
        self.assertEqual((self.leases[0].released, self.owner.in_work), (1, 0))

    def test_revoked(self) -> None:
        """With its key a grant ends, and streams under it."""
        self.granted()
        self.granted(key=b"k2")
        stream, _ = self.ask()
        head = ResponseHead(
            status=200,
            reason=b"OK",
            version=(1, 1),
            fields=Fields([(b"content-type", b"text/event-stream")]),
        )
        self.servers[0].sent[-1][2].response_head(head)
        self.assertEqual(self.meters.streams, 1)
        self.revocations.announce(self.caller("k1").principal)
        self.assertTrue(stream.aborted)
        self.assertEqual(stream.notes["reason"], "revoked")
        self.assertEqual(self.meters.streams, 0)
        self.assertTrue(self.ask()[1])
        self.assertFalse(self.ask(key=b"k2")[1])

    def test_stopped(self) -> None:
        """When the copy ends, calls in work are told why, in the owner's words."""
        self.granted()
        self.granted(key=b"k2")
        self.ask()
        for lease in self.leases:
            lease.recalled(BackendDied(data={"exitCode": 3}))
        closed = self.servers[0].closed
        assert isinstance(closed, BackendDied)
        self.assertEqual(closed.data, {"exitCode": 3})
        self.servers[0].sent[-1][2].response_failed(closed, True)
        self.copy = "copy-2"
        self.granted()
        self.assertFalse(self.ask()[1])
        self.assertEqual(len(self.servers[2].sent), 1)

    def test_nobody_there(self) -> None:
        """A request that could not be sent goes to the owner, and costs once."""
        self.workers[0] = self.worker(1, per_key=Rate(0.001, 1.0))
        self.dispatches[0] = self.workers[0].channel(0, self.by_owner)
        self.granted()
        inbound, _ = self.ask()
        self.servers[0].sent[-1][2].response_failed(BackendUnavailable(), False)
        self.assertIs(self.passed[-1], inbound)
        self.assertEqual((inbound.notes, inbound.status), ({}, 0))
        key = ("key", self.caller("k1").principal)
        self.assertTrue(self.limiter.take(key, Rate(0.001, 1.0), 1.0).allowed)
        self.assertEqual(self.slots.taken(self.caller("k1").principal), 0)
        self.assertTrue(self.ask()[1])

    def test_failed(self) -> None:
        """What may have reached the server, or has a body, is not tried again."""
        self.granted()
        inbound, _ = self.ask()
        self.servers[0].sent[-1][2].response_failed(BackendDied(), True)
        self.assertEqual(inbound.status, 502)
        inbound, passed = self.ask(method="POST", body=b"x")
        self.assertFalse(passed)
        self.servers[0].sent[-1][2].response_failed(BackendUnavailable(), False)
        self.assertEqual(inbound.status, 503)

    def test_a_client_that_does_not_read(self) -> None:
        """A server whose answers are not taken is not silent."""
        self.granted()
        self.ask()
        self.servers[0].held_up = True
        self.clock.advance(5)
        self.workers[0].look()
        self.assertEqual(self.leases[0].loan.heard_s, 1005.0)

    # --- Given --------------------------------------------------------------------------------

    def test_who_gets_none(self) -> None:
        """One request in a while, another transport, a copy that has changed meanwhile."""
        self.assertTrue(self.ask()[1])
        self.clock.advance(GRANT_S + 1)
        self.assertTrue(self.ask()[1])
        self.assertEqual(self.told, [])
        self.spec = ServerSpec(name="web", transport=Transport.SSE)
        self.assertTrue(self.ask()[1])
        self.spec = ServerSpec(name="web", transport=Transport.HTTP)
        lend = self.lend

        def another(*about: Any) -> Any:
            self.copy = "copy-2"
            return lend(*about)

        self.owner._lend = another
        self.assertTrue(self.ask()[1])
        self.assertEqual((self.told, self.leases[0].released), ([], 1))
        self.owner._lend = lambda *_: None
        self.granted(key=b"k2")
        self.assertEqual(self.told, [])
        self.owner.close()
        self.granted(key=b"k3")
        self.assertEqual(len(self.owner), 0)

    def test_a_worker_that_comes_later(self) -> None:
        """It is told of the grants there are."""
        self.granted()
        late = self.worker(2)
        for message in self.owner.told():
            late.told(json.loads(json.dumps(message)))
        self.dispatches[1] = late.channel(0, self.by_owner)
        self.assertFalse(self.ask(worker=1)[1])

    def test_entries_that_are_equal(self) -> None:
        """One object stands for them, so that rules made for it are made once."""
        self.spec = ServerSpec(name="web", transport=Transport.HTTP, isolation=Isolation.SHARED)
        self.granted()
        self.granted(key=b"k2")
        one, two = self.workers[0]._held.values()
        self.assertIs(one.spec, two.spec)
        self.assertIs(one.server, two.server)

    def test_only_so_many_are_remembered(self) -> None:
        """Who asked once is forgotten when many others did."""
        from mcpgate.web.workers import granting

        self.patch(granting, "_ASKED", 2)
        for key in (b"a", b"b", b"c", b"a"):
            self.assertTrue(self.ask(key=key)[1])
        self.assertEqual(self.told, [])
