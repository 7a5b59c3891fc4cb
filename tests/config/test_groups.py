"""Tests of mcpgate.config.groups."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.groups import EVERY
from mcpgate.model import Eras, Group, Transport
from tests.config.writing import BASE, found, problems, read

TWO = BASE + "[server:time]\ncommand = time\n[server:off]\ncommand = x\nenabled = off\n"


class GroupTests(SynchronousTestCase):
    """Servers at one address."""

    def test_every_server(self) -> None:
        """All servers that are served are shown together, unless that is turned off."""
        (every,) = read(TWO).groups
        self.assertEqual(every.name, EVERY)
        self.assertEqual(every.group, Group(servers=("notes", "time")))
        self.assertEqual((every.transport, every.era), (Transport.GROUP, Eras.MODERN))
        self.assertEqual(read(TWO.replace("[gate]", "[gate]\naggregate = off")).groups, ())
        self.assertEqual(read(TWO.partition("[server")[0]).groups, ())

    def test_some(self) -> None:
        """A group names its servers, and what is shown of them and how."""
        text = (
            "[group:team]\nservers = time notes\nalias = ours\nallow = time__* notes__?\n"
            "deny = *__delete\nrename.time__get = now\npage_size = 50\n[group:all]\n"
        )
        team, every, _ = read(TWO + text).groups
        self.assertEqual(
            team.group,
            Group(
                servers=("time", "notes"),
                alias="ours",
                allow=("time__*", "notes__?"),
                deny=("*__delete",),
                rename=(("time__get", "now"),),
                page_size=50,
            ),
        )
        self.assertEqual(every.group, Group(servers=("notes", "time")))

    def test_for_keys(self) -> None:
        """Keys can be for a group."""
        text = TWO.replace("keys_file = keys", "keys_file = keys\nservers = team")
        self.assertEqual(problems(text + "[group:team]\n"), ())
        self.assertNotEqual(problems(text), ())

    def test_no_rest(self) -> None:
        """A group may do without the OpenAPI face."""
        team, every = read(TWO + "[group:team]\nopenapi_face = off\n").groups
        self.assertEqual((team.openapi_face, every.openapi_face), (False, True))

    def test_faults(self) -> None:
        """Servers that are not there, names that are taken, and bad patterns are told."""
        self.assertEqual(
            found(TWO + "[group:a]\nservers = time nots off\n"),
            [(14, "group:a", "servers"), (14, "group:a", "servers")],
        )
        self.assertEqual(found(TWO + "[group:time]\n"), [(13, "group:time", "")])
        self.assertEqual(found(TWO + "[group:sse]\n"), [(13, "group:sse", "")])
        self.assertEqual(
            found(TWO + "[group:a]\nallow = a;b\nrename.x = a b\n"),
            [(14, "group:a", "allow"), (15, "group:a", "rename.x")],
        )
        self.assertEqual(
            found(TWO + "[group:a]\nrename.x = one\nrename.y = one\n"), [(13, "group:a", "")]
        )
