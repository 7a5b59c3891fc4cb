"""Tests of mcpgate.web.mcp.cold.prestart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import Caller, Isolation, Lifetime, Owner, ServerSpec, Transport
from mcpgate.web.mcp.cold import prestart
from mcpgate.web.mcp.cold.prestart import Greeting
from tests.web.endpoint_kit import World, caller_of, request

NOTES = ServerSpec(
    name="notes", transport=Transport.STDIO, prestart=True, lifetime=Lifetime(idle_stop_s=60.0)
)
SHARED = replace(NOTES, name="all", isolation=Isolation.SHARED)
PLAIN = replace(NOTES, name="plain", prestart=False)


class GreetingTests(SynchronousTestCase):
    """Who is greeted with a start."""

    def setUp(self) -> None:
        """Make one over a pool that notes what it is asked."""
        self.clock = Clock()
        self.begun: list[tuple[str, Owner, str]] = []
        self.at_work: dict[str, float] = {}
        pool: Any = self
        self.greeting = Greeting(pool, self.clock, self.callers)

    def callers(self, within_s: float) -> list[Caller]:
        """See `InstancePool.callers`."""
        return [caller_of(name) for name, ago_s in self.at_work.items() if ago_s < within_s]

    def start_ahead(self, spec: ServerSpec, owner: Owner, caller: Caller) -> bool:
        """See `IInstancePool.start_ahead`."""
        self.begun.append((spec.name, owner, caller.principal.subject))
        return True

    def greet(self, caller: Caller, times: int = 1) -> list[str]:
        """Have somebody come; give what was begun for it."""
        self.greeting.serve([NOTES, PLAIN, SHARED])
        for _ in range(times):
            self.greeting(caller)
        self.assertEqual(self.begun, [])
        self.clock.advance(0)
        begun, self.begun = self.begun, []
        return [name for name, _, _ in begun]

    def test_first_request(self) -> None:
        """The first request of a key starts every server that says so, for that key."""
        self.assertEqual(self.greet(caller_of("ann"), 3), ["notes", "all"])
        self.assertEqual(self.greet(caller_of("ann")), [])
        self.assertEqual(self.greet(caller_of("bob")), ["notes", "all"])

    def test_after_a_pause(self) -> None:
        """Who comes back when its server was stopped for want of use is greeted again."""
        ann = caller_of("ann")
        self.greet(ann)
        for _ in range(3):
            self.clock.advance(59.0)
            self.assertEqual(self.greet(ann), [])
        self.clock.advance(60.0)
        self.assertEqual(self.greet(ann), ["notes", "all"])

    def test_only_what_it_may_use(self) -> None:
        """A server that is closed to a key is not started for it."""
        ann = caller_of("ann")
        self.assertEqual(self.greet(replace(ann, servers=frozenset({"all"}))), ["all"])

    def test_nobody_wants_it(self) -> None:
        """Without such a server there is nothing to do on any request."""
        self.greeting.serve([PLAIN])
        self.greeting(caller_of("ann"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_new_server(self) -> None:
        """One that a reload brings is started for whoever is at work, and would find it running."""
        self.greeting.serve([PLAIN, SHARED])
        self.clock.advance(0)
        self.at_work = {"ann": 59.0, "bob": 61.0}
        for _ in range(2):
            self.greeting.serve([PLAIN, NOTES, SHARED])
            self.clock.advance(0)
        self.assertEqual([(name, user) for name, _, user in self.begun], [("notes", "ann")])
        self.begun.clear()
        self.greeting.serve([])
        forever = replace(NOTES, lifetime=Lifetime(idle_stop_s=0.0))
        self.greeting.serve([forever])
        self.clock.advance(0)
        self.assertEqual([user for _, _, user in self.begun], ["ann", "bob"])

    def test_revoked(self) -> None:
        """Nothing is started for a key that was revoked, until it comes and is good again."""
        self.at_work = {"ann": 1.0, "bob": 1.0}

        def added() -> list[str]:
            self.begun.clear()
            self.greeting.serve([])
            self.greeting.serve([NOTES])
            self.clock.advance(0)
            return [user for _, _, user in self.begun]

        self.greeting.forget(caller_of("ann").principal)
        self.assertEqual(added(), ["bob"])
        self.greeting(caller_of("ann"))
        self.assertEqual(added(), ["ann", "ann", "bob"])  # it was seen just now, too
        self.patch(prestart, "_KNOWN", 3)
        for number in range(5):
            self.greeting.forget(caller_of(f"k{number}").principal)
        self.assertEqual(len(self.greeting._gone), 3)

    def test_bounded(self) -> None:
        """However many keys come, not all are remembered."""
        self.patch(prestart, "_KNOWN", 10)
        self.greet(caller_of("ann"))
        for number in range(11):
            self.greeting(caller_of(f"k{number}"))
        self.assertEqual(len(self.greeting._seen), 10)

    def test_by_any_request(self) -> None:
        """Any request of a known key greets, to whatever server; none of an unknown one."""
        world = World()
        greeted: list[str] = []
        world.dispatcher._greet = lambda caller: greeted.append(caller.principal.subject)
        world.pool.at_once = False
        world.post(request("tools/list"), path=b"/other/mcp")
        world.post(request("tools/list"), key="bad")
        world.ask("GET", key="k2", path=b"/notes/files/x")
        self.assertEqual(greeted, ["k1", "k2"])
