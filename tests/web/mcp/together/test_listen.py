"""Tests of mcpgate.web.mcp.together.listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.listening import ACKNOWLEDGED, Filter, acknowledgement, farewell
from mcpgate.mcp.modern import META_SUBSCRIPTION
from mcpgate.model import Transport
from mcpgate.web.mcp.together.listen import ACK_WAIT_S, AGAIN_S
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.together.group_kit import ANN, CONTEXT, GroupWorld, Heard

TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


class ListenCase(SynchronousTestCase):
    """A group, and who listens to it."""

    def setUp(self) -> None:
        """Make a group."""
        self.world = GroupWorld()

    def listen(self, **told: object) -> tuple[Heard, Callable[[], None]]:
        """Subscribe."""
        return self.world.ask("subscriptions/listen", notifications=told)

    def acknowledge(self, server: str, **told: object) -> None:
        """Have a server acknowledge."""
        self.world.servers.say(server, acknowledgement(Filter(told)))

    def notifications(self, heard: Heard) -> list[tuple[str, Any]]:
        """Give methods and parameters of what was told, without the subscription's id."""
        found = []
        for one in heard.told:
            assert isinstance(one, Notification)
            params = dict(one.params or {})
            meta: Any = params.pop("_meta")
            self.assertEqual(meta[META_SUBSCRIPTION], 7)
            found.append((one.method, params))
        return found


class ListenTests(ListenCase):
    """A subscription to a group."""

    def test_acknowledged(self) -> None:
        """The acknowledgement comes when every server has said what it honours, as one."""
        heard, _ = self.listen(
            toolsListChanged=True,
            promptsListChanged=False,
            resourceSubscriptions=["git+file:///a", "notes+note://1", "odd"],
        )
        self.acknowledge("notes", toolsListChanged=True)
        self.assertEqual(heard.told, [])
        self.acknowledge("git", resourceSubscriptions=["file:///a"])
        self.assertEqual(
            self.notifications(heard),
            [
                (
                    ACKNOWLEDGED,
                    {
                        "notifications": {
                            "toolsListChanged": True,
                            "resourceSubscriptions": ["git+file:///a"],
                        }
                    },
                )
            ],
        )
        (asked,) = self.world.servers.asked("git")
        self.assertEqual(
            (asked.params or {})["notifications"],
            {
                "toolsListChanged": True,
                "promptsListChanged": False,
                "resourceSubscriptions": ["file:///a"],
            },
        )

    def test_too_slow(self) -> None:
        """A server that does not acknowledge keeps the others from nothing for long."""
        heard, _ = self.listen(toolsListChanged=True)
        self.acknowledge("notes", toolsListChanged=True)
        self.world.servers.say("notes", Notification(TOOLS))
        self.world.clock.advance(ACK_WAIT_S + 1)
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.acknowledge("git", toolsListChanged=True)
        self.world.servers.say("git", Notification(TOOLS))
        self.assertEqual(heard.methods, [ACKNOWLEDGED, TOOLS])

    def test_told(self) -> None:
        """What a server tells is passed on, resources under the addresses clients know."""
        heard, _ = self.listen(toolsListChanged=True, resourceSubscriptions=["git+file:///a"])
        self.acknowledge("notes", toolsListChanged=True)
        self.acknowledge("git", resourceSubscriptions=["file:///a"])
        self.world.servers.say("git", Notification(UPDATED, {"uri": "file:///a/b"}))
        self.world.servers.say("notes", Notification(TOOLS))
        self.assertEqual(
            self.notifications(heard)[1:], [(UPDATED, {"uri": "git+file:///a/b"}), (TOOLS, {})]
        )

    def test_refusing_servers(self) -> None:
        """Servers without subscriptions are left in peace; the rest is honoured."""
        self.world.servers.results["git", "subscriptions/listen"] = ErrorResponse(7, -32601, "no")
        heard, _ = self.listen(toolsListChanged=True)
        self.acknowledge("notes", toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.world.clock.advance(AGAIN_S * 20)
        self.assertEqual(len(self.world.servers.asked("git")), 1)

    def test_lost_and_back(self) -> None:
        """A server that was lost is asked again, and what may have changed is told."""
        self.world.servers.results["git", "subscriptions/listen"] = BackendUnavailable()
        heard, cancel = self.listen(toolsListChanged=True)
        self.acknowledge("notes", toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.world.clock.advance(AGAIN_S + 1)
        self.assertEqual(len(self.world.servers.asked("git")), 2)
        del self.world.servers.results["git", "subscriptions/listen"]
        self.world.clock.advance(2 * AGAIN_S + 1)
        self.acknowledge("git", toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED, TOOLS])
        self.world.servers.say("git", farewell(7))
        self.world.clock.advance(AGAIN_S + 1)
        self.assertEqual(len(self.world.servers.asked("git")), 4)
        cancel()
        self.world.clock.advance(1)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_absences(self) -> None:
        """When a server drops out of the lists, and when it comes back, listeners are told."""
        heard, cancel = self.listen(toolsListChanged=True, resourceSubscriptions=["git+file:///a"])
        for server in ("notes", "git"):
            self.acknowledge(server, toolsListChanged=True)
        self.world.lists("tools/list", "tools", notes=[], git=[])
        self.world.result("tools/list")
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.world.servers.results["git", "tools/list"] = BackendUnavailable()
        self.world.result("tools/list")
        self.assertEqual(heard.methods, [ACKNOWLEDGED, TOOLS])
        self.world.result("tools/list")
        self.assertEqual(len(heard.told), 2)
        self.world.lists("tools/list", "tools", git=[])
        self.world.result("tools/list")
        self.assertEqual(heard.methods, [ACKNOWLEDGED, TOOLS, TOOLS])
        cancel()
        cancel()
        self.world.servers.results["git", "tools/list"] = BackendUnavailable()
        self.world.result("tools/list")
        self.assertEqual(len(heard.told), 3)

    def test_gone(self) -> None:
        """A client that goes ends the subscriptions at every server."""
        heard, cancel = self.listen(toolsListChanged=True)
        gone: list[str] = []
        for server in ("notes", "git"):
            inbound = self.world.servers.listens[server].inbound
            inbound.on_gone(partial(gone.append, server))
        cancel()
        self.assertEqual(sorted(gone), ["git", "notes"])
        self.world.clock.advance(1)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        self.assertEqual((heard.answer, heard.told), (None, []))

    def test_nobody(self) -> None:
        """A group of no servers acknowledges at once, and stays silent."""
        self.world.specs.clear()
        heard, _ = self.listen(toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED])

    def test_only_notifications(self) -> None:
        """Anything but notifications on a server's stream is passed over."""
        heard, _ = self.listen(toolsListChanged=True)
        for server in ("notes", "git"):
            self.acknowledge(server, toolsListChanged=True)
        self.world.servers.say("git", Response(99, {}))
        self.assertEqual(heard.methods, [ACKNOWLEDGED])


class ModestTests(ListenCase):
    """What is listened to for a client of the legacy era, which only has a stream open."""

    def test_used_later(self) -> None:
        """A server that does not run is not started for it; it is heard once it was used."""
        self.world.stopped.add("git")
        heard, cancel = self.listen(toolsListChanged=True)
        self.acknowledge("notes", toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.world.clock.advance(20 * AGAIN_S)
        self.assertEqual(self.world.servers.asked("git"), [])
        self.world.lists("tools/list", "tools", notes=[], git=[])
        for _ in range(2):
            self.world.result("tools/list")
        self.assertEqual(
            [asked.method for asked in self.world.servers.asked("git")],
            ["tools/list", "subscriptions/listen", "tools/list"],
        )
        self.acknowledge("git", toolsListChanged=True)
        # It was not heard before, so nothing was missed.
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.world.servers.say("git", Notification(TOOLS))
        self.assertEqual(heard.methods, [ACKNOWLEDGED, TOOLS])
        cancel()

    def test_called(self) -> None:
        """A call is use as well, of that one server, by that one caller."""
        self.world.stopped |= {"git", "notes"}
        heard, cancel = self.listen(toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED])
        self.world.servers.results["git", "tools/call"] = {"resultType": "complete", "content": []}
        bob = replace(ANN, principal=ANN.principal._replace(subject="bob"))
        self.world.ask("tools/call", bob, name="git__log", arguments={})
        self.assertEqual(len(self.world.servers.asked("git")), 1)
        self.world.ask("tools/call", ANN, name="git__log", arguments={})
        self.assertEqual(len(self.world.servers.asked("git")), 3)
        self.assertEqual(self.world.servers.asked("notes"), [])
        cancel()
        self.world.ask("tools/call", ANN, name="git__log", arguments={})
        self.assertEqual(len(self.world.servers.asked("git")), 4)

    def test_lost(self) -> None:
        """A server that was lost and stays away is waited for, and then told of."""
        self.world.servers.results["git", "subscriptions/listen"] = BackendUnavailable()
        heard, cancel = self.listen(toolsListChanged=True)
        self.acknowledge("notes", toolsListChanged=True)
        self.world.stopped.add("git")
        self.world.clock.advance(20 * AGAIN_S)
        self.assertEqual(len(self.world.servers.asked("git")), 1)
        self.world.servers.results.clear()
        self.world.lists("tools/list", "tools", notes=[], git=[])
        self.world.result("tools/list")
        self.acknowledge("git", toolsListChanged=True)
        self.assertEqual(heard.methods, [ACKNOWLEDGED, TOOLS])
        cancel()

    def test_wanted(self) -> None:
        """For a resource somebody subscribed to, or a client that listens itself, they start."""
        self.world.stopped |= {"git", "notes"}
        _, cancel = self.listen(resourceSubscriptions=["git+file:///a"])
        self.assertEqual(len(self.world.servers.asked("git")), 1)
        self.assertEqual(self.world.servers.asked("notes"), [])
        cancel()
        params = {"notifications": {"toolsListChanged": True}, "_meta": CONTEXT.meta()}
        asked = Request(7, "subscriptions/listen", params)
        self.world.aggregate.ask(self.world.group, ANN, asked, Heard(), source=FakeInbound())
        self.assertEqual(len(self.world.servers.asked("git")), 2)
        self.assertEqual(len(self.world.servers.asked("notes")), 1)

    def test_elsewhere(self) -> None:
        """What runs elsewhere, or in the gate, needs no start; what has gone is not asked."""
        self.world.stopped |= {"git", "notes"}
        specs = self.world.specs
        specs["git"] = replace(specs["git"], url="https://git.example/mcp")
        specs["notes"] = replace(specs["notes"], transport=Transport.REST)
        _, cancel = self.listen(toolsListChanged=True)
        for name in specs:
            self.assertEqual(len(self.world.servers.asked(name)), 1, name)
        self.assertFalse(self.world.aggregate.runs("gone", ANN))
        cancel()
