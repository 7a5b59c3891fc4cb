"""Results that may be kept: for how long, for whom, within which bounds."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.gate.results import ResultCache
from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.model import Principal
from mcpgate.telemetry.meters import Meters

ANN = Principal("file", "ann", "a" * 32)
BOB = Principal("file", "bob", "b" * 32)


def listing(**params: object) -> Request:
    """Make a request for a list."""
    return Request(1, "tools/list", params or None)


def reading(uri: str) -> Request:
    """Make a request for a resource."""
    return Request(1, "resources/read", {"uri": uri})


class ResultCacheTests(SynchronousTestCase):
    """One cache."""

    @override
    def setUp(self) -> None:
        self.clock = Clock()
        self.meters = Meters()
        self.cache = ResultCache(
            self.clock, self.meters, entries=6, of_one=4, size_bytes=600, of_one_bytes=400
        )

    def keep(
        self,
        request: Request,
        who: Principal = ANN,
        scope: object = "private",
        ttl: object = 1000,
        size: int = 10,
        **options: Any,
    ) -> None:
        """Keep a result that tells who got it."""
        mark = options.pop("mark", self.cache.mark("notes"))
        result = {"for": who.subject, "ttlMs": ttl, "cacheScope": scope, **options.pop("more", {})}
        self.cache.keep(
            "notes",
            who,
            request,
            result,
            size,
            mark=mark,
            sharable=options.pop("sharable", True),
        )

    def whose(self, request: Request, who: Principal = ANN, server: str = "notes") -> object:
        """Tell who got what is found."""
        found = self.cache.find(server, who, request)
        return None if found is None else found["for"]

    def test_private_results_stay_private(self) -> None:
        """R74: nobody but the principal who got it finds it."""
        self.keep(listing())
        self.assertEqual(self.whose(listing()), "ann")
        self.assertIdentical(self.whose(listing(), BOB), None)
        self.keep(listing(), BOB)
        self.assertEqual((self.whose(listing()), self.whose(listing(), BOB)), ("ann", "bob"))
        self.assertEqual(self.meters.events["result_cache_hit"], 3)

    def test_public_results_are_everybodys(self) -> None:
        """If the server is the same for everybody; any other scope is private."""
        self.keep(listing(), scope="public")
        self.assertEqual(self.whose(listing(), BOB), "ann")
        self.assertIdentical(self.whose(listing(), server="other"), None)
        for scope, sharable in (("public", False), ("Public", True), (None, True)):
            self.cache.forget("notes")
            self.keep(listing(), scope=scope, sharable=sharable)
            self.assertIdentical(self.whose(listing(), BOB), None)

    def test_time(self) -> None:
        """What is left of it is told on; a day is the most."""
        self.keep(listing(), ttl=1500)
        self.clock.advance(1)
        found = self.cache.find("notes", ANN, listing())
        assert found is not None
        self.assertEqual(found["ttlMs"], 500)
        self.clock.advance(0.5)
        self.assertIdentical(self.whose(listing()), None)
        self.keep(listing(), ttl=10**12)
        self.clock.advance(86401)
        self.assertIdentical(self.whose(listing()), None)
        for ttl in (0, -1, None, True, "9", float("nan"), float("inf")):
            self.keep(listing(cursor="c"), ttl=ttl)
            self.assertIdentical(self.whose(listing(cursor="c")), None, ttl)

    def test_params_count_and_the_context_does_not(self) -> None:
        """Each page and each resource is kept for itself; whatever stands in _meta."""
        self.keep(listing(cursor="a", _meta={"progressToken": 1}))
        self.assertEqual(self.whose(listing(cursor="a", _meta={"x": 2})), "ann")
        self.assertIdentical(self.whose(listing(cursor="")), None)
        self.assertIdentical(self.whose(listing()), None)

    def test_what_is_never_kept(self) -> None:
        """Calls, answers to questions, questions, monsters."""
        for request in (
            Request(1, "tools/call", {"name": "a"}),
            Request(1, "resources/read", {"uri": "a", "requestState": "s"}),
            Request(1, "resources/read", {"uri": "a", "inputResponses": {}}),
            reading("a" * 5000),
        ):
            self.keep(request)
        self.keep(listing(), more={"resultType": "input_required"})
        self.keep(listing(), size=401)
        self.assertEqual(len(self.cache), 0)

    def test_changes(self) -> None:
        """What a server says has changed is asked for again; also what was on its way."""
        self.keep(listing())
        self.keep(reading("file:///a/b"))
        self.keep(reading("file:///c"))
        mark = self.cache.mark("notes")
        self.cache.heard("notes", Notification("notifications/progress"))
        self.assertEqual(len(self.cache), 3)
        self.cache.heard("notes", Notification("notifications/tools/list_changed"))
        self.assertIdentical(self.whose(listing()), None)
        self.keep(listing(), mark=mark)
        self.assertIdentical(self.whose(listing()), None)
        changed = Notification("notifications/resources/updated", {"uri": "file:///a"})
        self.cache.heard("other", changed)
        self.assertEqual(len(self.cache), 2)
        self.cache.heard("notes", changed)
        self.assertIdentical(self.whose(reading("file:///a/b")), None)
        self.assertEqual(self.whose(reading("file:///c")), "ann")
        self.cache.heard("notes", Notification("notifications/resources/updated"))
        self.assertEqual((len(self.cache), self.cache.bytes), (0, 0))

    def test_bounds(self) -> None:
        """The oldest goes: one's own first, then anybody's."""
        for number in range(6):
            self.keep(reading(str(number)), ANN)
        self.assertEqual(len(self.cache), 4)
        self.assertIdentical(self.whose(reading("1")), None)
        self.assertEqual(self.whose(reading("2")), "ann")
        for number in range(3):
            self.keep(reading(str(number)), BOB)
        self.assertEqual(len(self.cache), 6)
        self.keep(reading("big"), BOB, size=390)
        self.assertEqual(self.cache.bytes, 390 + sum(10 for _ in range(len(self.cache) - 1)))
        self.keep(reading("big"), ANN, size=390)
        self.assertLessEqual(self.cache.bytes, 600)

    def test_what_a_server_last_said_of_itself(self) -> None:
        """It is kept whatever its time, for while the server can not be asked."""
        discover = Request(1, "server/discover")
        self.assertIdentical(self.cache.last_discovery("notes", ANN, discover), None)
        self.keep(discover, ttl=0)
        self.assertIdentical(self.whose(discover), None)
        last = self.cache.last_discovery("notes", ANN, discover)
        self.assertEqual(last, {"for": "ann", "ttlMs": 0, "cacheScope": "private"})
        self.assertIdentical(self.cache.last_discovery("notes", BOB, discover), None)
