"""Who may use a server's other paths, and whose instance answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable, Starting
from mcpgate.gate.routing import Routes
from mcpgate.interfaces import IInbound, ILease
from mcpgate.model import Caller, Isolation, Principal, Rate, Secret, Transport
from mcpgate.web.relay.relay_route import RelayRoute
from tests.web.endpoint_kit import World
from tests.web.fake_inbound import FakeInbound


class FakeRelay:
    """Keeps what it was given; ends a passage when told."""

    def __init__(self) -> None:
        self.passages: list[dict[str, Any]] = []
        self.broken = False

    def relay(self, inbound: IInbound, lease: ILease, *args: object, **kwargs: Any) -> None:
        """See `Relay.relay`."""
        if self.broken:
            raise ZeroDivisionError
        self.passages.append({"inbound": inbound, "lease": lease, **kwargs})

    def end(self) -> None:
        """Have every passage come to its end."""
        for passage in self.passages:
            passage["lease"].release()
            passage["ended"]()


class RelayRouteTests(SynchronousTestCase):
    """``ANY /{server}/{path}``."""

    def make(self, **spec: Any) -> tuple[World, FakeRelay]:
        """Make a gate with such a server."""
        world = World(**{"transport": Transport.HTTP, **spec})
        relay = FakeRelay()
        world.dispatcher._relay = RelayRoute(
            gate=world.gate,
            pool=world.pool,
            relay=relay,  # type: ignore[arg-type]  # a stand-in with the one method used
        )
        return world, relay

    def ask(self, world: World, path: bytes, query: bytes | None = None) -> FakeInbound:
        """Ask for a path."""
        inbound = FakeInbound("GET", path, query=query, fields=[(b"authorization", b"Bearer k1")])
        world.dispatcher(inbound)
        return inbound

    def test_a_path_is_relayed(self) -> None:
        """The server is started, the path cut, the query kept, everything given back."""
        world, relay = self.make()
        for path, prefix in (
            (b"/notes/a/b", b"/notes"),
            (b"/servers/notes/a/b", b"/servers/notes"),
        ):
            self.ask(world, path, b"x=1")
            self.assertEqual(relay.passages[-1]["target"], b"/a/b?x=1")
            self.assertEqual(relay.passages[-1]["prefix"], prefix)
        self.assertEqual(len(world.pool.instances), 1)
        self.assertEqual(world.leaks(), {"leases": 2, "calls": 2, "slots": 2})
        relay.end()
        self.assertEqual(world.leaks(), {})

    def test_the_same_head_again(self) -> None:
        """What it led to is kept, for the same peer, key and server only."""
        world, relay = self.make()
        first = self.ask(world, b"/notes/a")
        self.assertIsNone(relay.passages[-1]["kept"])
        first.head.came_again()
        ann = Caller(Principal("i", "ann", "0" * 32), Secret("k"))
        routes = Routes([world.spec])

        def again(inbound: FakeInbound, caller: Caller = ann) -> Any:
            inbound.head = first.head
            route = routes.of(first.head)
            assert route is not None
            world.dispatcher._relay(inbound, caller, route)
            passage = relay.passages[-1]
            self.assertEqual((passage["target"], passage["prefix"]), (b"/a", b"/notes"))
            return passage["kept"]

        def like() -> FakeInbound:
            inbound = FakeInbound("GET", b"/notes/a")
            inbound.peer = first.peer
            return inbound

        kept = again(like())
        self.assertIs(again(like()), kept)
        elsewhere = like()
        elsewhere.peer = replace(first.peer, port=7)
        self.assertIsNot(again(elsewhere), kept)
        kept = again(like())
        self.assertIs(again(like()), kept)
        self.assertIsNot(again(like(), replace(ann, credential=Secret("other"))), kept)
        kept = again(like())
        routes.replace([replace(world.spec, call_timeout_s=1.0)])
        self.assertIsNot(again(like()), kept)

    def test_behind_a_path(self) -> None:
        """What a trusted proxy has taken off the path before is part of what is cut off."""
        world, relay = self.make()
        inbound = FakeInbound("GET", b"/notes/a", fields=[(b"authorization", b"Bearer k1")])
        inbound.peer = replace(inbound.peer, prefix=b"/tools")
        world.dispatcher(inbound)
        self.assertEqual(relay.passages[-1]["target"], b"/a")
        self.assertEqual(relay.passages[-1]["prefix"], b"/tools/notes")
        relay.end()

    def test_a_remote_servers_paths_are_beside_its_endpoint(self) -> None:
        """The URL's directory is where they begin."""
        world, relay = self.make(runtime="remote", url="https://a.example/v1/mcp")
        self.ask(world, b"/notes/files")
        self.assertEqual(relay.passages[-1]["target"], b"/v1/files")

    def test_no_way_out_of_the_base(self) -> None:
        """Dots that could lead out of a server's paths are refused, however they are written."""
        world, relay = self.make(runtime="remote", url="https://a.example/v1/mcp")
        for path in (
            b"/..",
            b"/../admin",
            b"/a/./b",
            b"/%2e%2E/admin",
            b"/a%2f..%2fadmin",
            b"/%252e%252e/admin",
            b"/..\\admin",
            b"/..%5cadmin",
            b"/..;x/admin",
            b"/a%00",
            b"/%2525252e",
        ):
            self.assertEqual(self.ask(world, b"/notes" + path).status, 404, path)
        self.assertEqual(relay.passages, [])
        for path in (b"/a..b/...", b"/a%2Fb%20c", b"/100%", b"/a;b=c", b"/.well-known"):
            self.ask(world, b"/notes" + path)
            self.assertEqual(relay.passages[-1]["target"], b"/v1" + path)

    def test_who_has_no_paths(self) -> None:
        """Stdio servers, per-session servers, and those that do not want it."""
        for spec in (
            {"transport": Transport.STDIO},
            {"isolation": Isolation.PER_SESSION},
            {"relay": False},
        ):
            world, _ = self.make(**spec)
            self.assertEqual(self.ask(world, b"/notes/x").status, 404)
            self.assertEqual(world.leaks(), {})

    def test_a_start_that_fails(self) -> None:
        """Ordinary statuses are used here."""
        world, _ = self.make()
        world.pool.error = BackendUnavailable(retry_after_s=2)
        answer = self.ask(world, b"/notes/x")
        self.assertEqual((answer.status, answer.fields[b"retry-after"]), (503, b"2"))
        self.assertEqual(answer.json["error"]["retryAfterMs"], 2000)
        self.assertEqual(world.leaks(), {})

    def test_a_start_is_paid_once(self) -> None:
        """Who waits on, or waits too, does not pay again; the next start costs again."""
        world, relay = self.make(rate=Rate(0.001, 30.0))
        world.pool.at_once = False
        waiting = [self.ask(world, b"/notes/x") for _ in range(2)]
        world.pool.started(Starting(retry_after_s=3))
        self.assertEqual([w.status for w in waiting], [503, 503])
        self.ask(world, b"/notes/x")
        world.pool.started()
        self.assertEqual(len(relay.passages), 1)
        self.ask(world, b"/notes/x")
        relay.end()
        del world.pool._running[world.pool.newest.key]
        self.ask(world, b"/notes/x")
        world.pool.started(BackendUnavailable())
        self.assertEqual(self.ask(world, b"/notes/x").status, 429)
        self.assertEqual(world.meters.events["rate_limited"], 1)
        self.assertEqual(world.leaks(), {})

    def test_a_start_nobody_waited_for_in_the_end(self) -> None:
        """The instance is ready when the next one comes: that was no start of his."""
        world, relay = self.make(rate=Rate(0.001, 30.0))
        world.pool.at_once = False
        self.ask(world, b"/notes/x")
        world.pool.started(Starting())
        world.pool.at_once = True
        self.ask(world, b"/notes/x")
        world.pool.at_once = False
        self.ask(world, b"/notes/x")
        self.assertEqual(len(relay.passages), 2)

    def test_a_client_that_does_not_wait(self) -> None:
        """What was leased for it is given back."""
        world, relay = self.make()
        world.pool.at_once = False
        self.ask(world, b"/notes/x").go()
        world.pool.started()
        self.assertEqual(relay.passages, [])
        self.assertEqual(world.leaks(), {})

    def test_a_bug_gives_the_place_back(self) -> None:
        """Unforeseen failures are answered, before and after a wait."""
        world, relay = self.make()
        relay.broken = True
        for _ in range(2):
            self.assertEqual(self.ask(world, b"/notes/x").status, 500)
            self.assertEqual(world.leaks(), {})
        self.flushLoggedErrors(ZeroDivisionError)


class RoutesTests(SynchronousTestCase):
    """The table behind it."""

    def test_specs(self) -> None:
        """Every server is known, in order."""
        world = World()
        routes = Routes([world.spec, world.other])
        self.assertEqual(routes.specs(), [world.spec, world.other])
