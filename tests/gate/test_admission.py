"""Tests of `mcpgate.gate.admission`."""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import Overloaded, RateLimited
from mcpgate.gate.admission import Admission, RateLimiter, Slots, address_group
from mcpgate.interfaces import IRateLimiter, ISlots
from mcpgate.model import Caller, Decision, Principal, Rate, Secret

DEFAULT = Rate(20.0, 40.0)
ANN = Caller(Principal("wiki", "ann", "a" * 32), Secret("k"))
BOB = Caller(Principal("wiki", "bob", "b" * 32), Secret("l"))


class RateLimiterTests(SynchronousTestCase):
    """Token buckets: exact, small, fair."""

    def setUp(self) -> None:
        """Start a clock that does not begin at zero."""
        self.clock = Clock()
        self.clock.advance(1e6)
        self.limiter = RateLimiter(self.clock)

    def take(self, cost: float = 1.0, rate: Rate = DEFAULT, key: str = "a") -> Decision:
        """Take tokens."""
        return self.limiter.take(key, rate, cost)

    def test_interface(self) -> None:
        """It is a rate limiter."""
        verifyObject(IRateLimiter, self.limiter)

    def test_burst_then_rate(self) -> None:
        """40 calls at once pass, the 41st waits 50 ms, and passes then."""
        left = [self.take().remaining for _ in range(40)]
        self.assertEqual(left, list(range(39, -1, -1)))
        refused = self.take()
        self.assertFalse(refused.allowed)
        self.assertAlmostEqual(refused.retry_after_s, 0.05, 6)
        self.clock.advance(refused.retry_after_s)
        self.assertTrue(self.take().allowed)

    def test_refusal_costs_nothing(self) -> None:
        """Asking too soon does not postpone the answer."""
        for _ in range(40):
            self.take()
        for _ in range(10):
            self.clock.advance(0.004)
            self.assertFalse(self.take().allowed)
        self.clock.advance(0.0101)
        self.assertTrue(self.take().allowed)

    def test_costs(self) -> None:
        """A start takes ten tokens; a refused one tells how many are left."""
        for _ in range(3):
            self.assertTrue(self.take(10.0).allowed)
        self.take(5.0)
        refused = self.take(10.0)
        self.assertEqual((refused.allowed, refused.remaining), (False, 5))
        self.assertAlmostEqual(refused.retry_after_s, 0.25, 6)
        self.assertTrue(self.take(5.0).allowed)

    def test_cost_above_burst(self) -> None:
        """What costs more than the burst is granted from a full bucket, not never."""
        rate = Rate(1.0, 5.0)
        self.assertTrue(self.take(10.0, rate).allowed)
        refused = self.take(10.0, rate)
        self.assertAlmostEqual(refused.retry_after_s, 5.0, 6)
        self.clock.advance(5.0)
        self.assertTrue(self.take(10.0, rate).allowed)

    def test_no_limit(self) -> None:
        """A rate of nothing per second limits nothing and remembers nothing."""
        for _ in range(100):
            self.assertTrue(self.take(rate=Rate(0.0, 0.0)).allowed)
        self.limiter.give_back("a", Rate(0.0, 0.0), 1.0)
        self.assertEqual(len(self.limiter), 0)

    def test_large_burst(self) -> None:
        """Large buckets count as exactly as small ones."""
        self.assertEqual(self.take(rate=Rate(1000.0, 5000.0)).remaining, 4999)

    def test_keys_apart(self) -> None:
        """One key's calls do not cost another's tokens."""
        for _ in range(41):
            self.take()
        self.assertTrue(self.take(key="b").allowed)

    def test_give_back(self) -> None:
        """What did not happen is not counted; a forgotten bucket needs nothing back."""
        for _ in range(40):
            self.take()
        self.limiter.give_back("a", DEFAULT, 1.0)
        self.limiter.give_back("b", DEFAULT, 1.0)
        self.assertTrue(self.take().allowed)
        self.assertFalse(self.take().allowed)

    def test_two_minutes_at_double_load(self) -> None:
        """At 40 calls a second for two minutes 20 a second and the burst pass, to 1 %."""
        passed = 0
        for _ in range(120 * 40):
            passed += self.take().allowed
            self.clock.advance(1 / 40)
        self.assertLessEqual(abs(passed - (120 * 20 + 40)), 0.01 * 120 * 20)

    @settings(max_examples=60, deadline=None)
    @given(
        per_s=st.floats(0.5, 500.0),
        burst=st.integers(1, 100),
        jitter=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=20),
        start=st.floats(0.0, 1e8),
    )
    def test_exact_at_double_load(
        self, per_s: float, burst: int, jitter: list[float], start: float
    ) -> None:
        """Whatever the rhythm, at twice the rate what passes is the rate and the burst, to 1 %."""
        clock = Clock()
        clock.advance(start)
        limiter = RateLimiter(clock)
        rate = Rate(per_s, float(burst))
        mean = sum(jitter) / len(jitter) or 1.0
        passed, calls = 0, 1000
        for number in range(calls):
            passed += limiter.take("a", rate, 1.0).allowed
            clock.advance(jitter[number % len(jitter)] / mean / (2 * per_s))
        elapsed = clock.seconds() - start
        # One call more or less is the grain of counting.
        self.assertLessEqual(passed, burst + elapsed * per_s * 1.01 + 1)
        # A bucket of one loses what comes in while it is full; one of two never is full so long.
        if burst > 1 and all(part > 0 for part in jitter) and max(jitter) <= 2 * mean:
            self.assertGreaterEqual(passed, min(calls, elapsed * per_s * 0.99) - 1)

    @settings(max_examples=100, deadline=None)
    @given(
        per_s=st.floats(0.01, 1000.0),
        burst=st.floats(1.0, 1000.0),
        costs=st.lists(st.floats(0.1, 50.0), max_size=30),
        start=st.floats(0.0, 1e8),
    )
    def test_retry_after_is_true(
        self, per_s: float, burst: float, costs: list[float], start: float
    ) -> None:
        """Who waits as long as told is granted, and who comes much sooner is not."""
        clock = Clock()
        clock.advance(start)
        limiter = RateLimiter(clock)
        rate = Rate(per_s, burst)
        for cost in costs:
            decision = limiter.take("a", rate, cost)
            if decision.allowed:
                continue
            if decision.retry_after_s > 1e-3:
                clock.advance(decision.retry_after_s / 2)
                self.assertFalse(limiter.take("a", rate, cost).allowed)
                clock.advance(decision.retry_after_s / 2)
            else:
                clock.advance(decision.retry_after_s)
            self.assertTrue(limiter.take("a", rate, cost).allowed)

    def test_full_buckets_are_forgotten(self) -> None:
        """Keys that come and go do not pile up."""
        for number in range(1000):
            self.take(key=f"k{number}")
            self.clock.advance(0.1)
        self.assertLess(len(self.limiter), 5)

    def test_bound(self) -> None:
        """Beyond the bound the longest untouched bucket is forgotten, others keep their level."""
        limiter = RateLimiter(self.clock, max_keys=10)
        for number in range(100):
            limiter.take(f"k{number}", DEFAULT, 40.0)
            self.assertFalse(limiter.take(f"k{number}", DEFAULT, 1.0).allowed)
        self.assertEqual(len(limiter), 10)
        self.assertFalse(limiter.take("k95", DEFAULT, 1.0).allowed)
        self.assertTrue(limiter.take("k1", DEFAULT, 1.0).allowed)

    def test_memory(self) -> None:
        """A bucket takes 200 bytes at most, beside the key itself."""
        count = 10_000
        for number in range(count):
            self.limiter.take(number, DEFAULT, 40.0)
        buckets = self.limiter._full_at
        used = sys.getsizeof(buckets) + count * sys.getsizeof(1.0)
        self.assertLessEqual(used / count, 200)


class SlotsTests(SynchronousTestCase):
    """Places are counted."""

    def setUp(self) -> None:
        """Make slots."""
        self.slots = Slots()

    def test_limit(self) -> None:
        """Only so many places are given, and given back ones again."""
        verifyObject(ISlots, self.slots)
        self.assertEqual([self.slots.acquire("a", 2) for _ in range(3)], [True, True, False])
        self.assertTrue(self.slots.acquire("b", 2))
        self.slots.release("a")
        self.assertEqual(self.slots.taken("a"), 1)
        self.assertTrue(self.slots.acquire("a", 2))

    def test_no_limit(self) -> None:
        """A limit of 0 gives every place, counted all the same."""
        for _ in range(100):
            self.assertTrue(self.slots.acquire("a", 0))
        self.assertFalse(self.slots.acquire("a", 100))

    def test_released_too_often(self) -> None:
        """Giving back what nobody took changes nothing."""
        self.slots.acquire("a", 1)
        for _ in range(3):
            self.slots.release("a")
        self.assertTrue(self.slots.acquire("a", 1))
        self.assertFalse(self.slots.acquire("a", 1))


class AdmissionTests(SynchronousTestCase):
    """The limits in the order a request meets them."""

    def setUp(self) -> None:
        """Make the default limits."""
        self.clock = Clock()
        self.admission = self.make()

    def make(self, **limits: Rate | float | None) -> Admission:
        """Make limits."""
        return Admission(RateLimiter(self.clock), Slots(), **limits)  # type: ignore[arg-type]  # by name

    def test_address(self) -> None:
        """100 requests of an address pass at once, the next hears when; others are not held up."""
        for _ in range(100):
            self.admission.knock("192.0.2.1")
        with self.assertRaises(RateLimited) as caught:
            self.admission.knock("192.0.2.1")
        self.assertAlmostEqual(caught.exception.retry_after_s or 0, 0.02, 6)
        self.admission.knock("192.0.2.2")

    def test_unix_sockets(self) -> None:
        """Without an address there is no limit by address."""
        for _ in range(200):
            self.admission.knock("")

    def test_key(self) -> None:
        """40 calls of a key pass at once; another key has its own."""
        for _ in range(40):
            self.admission.call(ANN, "s")
        with self.assertRaises(RateLimited):
            self.admission.call(ANN, "s")
        self.admission.call(BOB, "s")

    def test_server(self) -> None:
        """A server's own limit counts the calls of all keys; the general one where it has none."""
        self.admission = self.make(per_server=Rate(1.0, 3.0))
        self.admission.call(ANN, "s", Rate(1.0, 1.0))
        with self.assertRaises(RateLimited):
            self.admission.call(BOB, "s", Rate(1.0, 1.0))
        for _ in range(3):
            self.admission.call(BOB, "t")
        with self.assertRaises(RateLimited):
            self.admission.call(ANN, "t")

    def test_start(self) -> None:
        """A start costs ten calls, the call that caused it included: four use up the burst."""
        for _ in range(4):
            self.admission.call(ANN, "s")
            self.admission.start(ANN)
        with self.assertRaises(RateLimited):
            self.admission.call(ANN, "s")

    def test_no_limits(self) -> None:
        """What is not limited is not counted."""
        self.admission = self.make(per_key=None, per_address=None, concurrent_per_key=0)
        for _ in range(200):
            self.admission.knock("192.0.2.1")
            self.admission.call(ANN, "s")
            self.admission.start(ANN)
            self.admission.enter(ANN)

    def test_places(self) -> None:
        """64 requests of a key are in work at once; one that ends makes room."""
        for _ in range(64):
            self.admission.enter(ANN)
        with self.assertRaises(Overloaded) as caught:
            self.admission.enter(ANN)
        self.assertEqual(caught.exception.retry_after_s, 1.0)
        self.admission.enter(BOB)
        self.admission.leave(ANN)
        self.admission.enter(ANN)


class AddressGroupTests(SynchronousTestCase):
    """What one client can choose freely counts as one address."""

    def test_groups(self) -> None:
        """IPv4 stands for itself, also inside IPv6; IPv6 counts by /64."""
        for address, group in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("no:address", "no:address"),
            ("", ""),
        ):
            self.assertEqual(address_group(address), group)
