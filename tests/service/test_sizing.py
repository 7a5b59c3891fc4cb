"""Tests of what a machine carries."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config, DockerSection, GateSection
from mcpgate.model import GIB, MIB, Container, Isolation, Restraint, ServerSpec, Transport
from mcpgate.service.sizing import EVERYTHING, Machine, Use, rows, shared_bytes, sizes

MACHINE = Machine(
    memory_bytes=2 * GIB,
    others_bytes=350 * MIB,
    gate_bytes=100 * MIB,
    cpus=2.0,
    pids=32768,
    open_files=65536,
    ports=28232,
)
BOX = ServerSpec(
    name="box", transport=Transport.HTTP, runtime="docker", container=Container(image="x:1")
)
PIPE = ServerSpec(
    name="pipe",
    transport=Transport.STDIO,
    command=("x",),
    restraint=Restraint(memory_bytes=0, cpus=0, pids=0, open_files=0),
)
SHARED = replace(BOX, name="clock", isolation=Isolation.SHARED)
REMOTE = replace(BOX, name="far", runtime="remote")


def config(*servers: ServerSpec, docker: DockerSection | None = None, **gate: int) -> Config:
    """Make a configuration."""
    return Config(
        gate=GateSection(**gate),  # type: ignore[arg-type]  # numbers only
        docker=docker or DockerSection(),
        servers=servers,
    )


class SizingTests(SynchronousTestCase):
    """`rows` and `sizes`."""

    def first(self, made: Config, machine: Machine = MACHINE, **seen: Use) -> tuple[int, str]:
        """Give the first bound at the limit of the first row."""
        bound = rows(made, machine, seen)[0].at_limit[0]
        return bound.most, bound.key

    def test_memory(self) -> None:
        """The machine of the seed: 2 GiB, 256 MiB and 0.3 processors each, 6 users."""
        (row,) = rows(config(BOX), MACHINE, {})
        told = [(bound.what, bound.most) for bound in row.at_limit]
        self.assertEqual(told[:2], [("memory", 6), ("processors", 6)])
        self.assertEqual({what for what, _ in told[2:]}, {"processes", "networks", "open files"})
        self.assertIsNone(row.measured)

    def test_measured(self) -> None:
        """What copies really take says how many more fit; the budget counts limits all the same."""
        use = Use(memory_bytes=50 * MIB, cpus=0.01, pids=10, seen=3)
        (row,) = rows(config(BOX), MACHINE, {"box": use})
        assert row.measured is not None
        self.assertEqual((row.measured[0].what, row.measured[0].most), ("memory", 31))
        (row,) = rows(config(BOX, memory_budget_bytes=GIB), MACHINE, {"box": use})
        assert row.measured is not None
        self.assertEqual((row.measured[0].most, row.measured[0].key), (4, "[gate] memory_budget"))

    def test_caps(self) -> None:
        """Each cap of the configuration is named by its key."""
        self.assertEqual(self.first(config(BOX, max_running=3)), (3, "[gate] max_running"))
        capped = replace(BOX, max_instances=2)
        self.assertEqual(self.first(config(capped)), (2, "[server:box] max_instances"))
        narrow = DockerSection(subnets=IPv4Network("10.213.0.0/27"))
        self.assertEqual(self.first(config(BOX, docker=narrow)), (2, "[docker] subnets"))
        few = replace(MACHINE, open_files=110)
        self.assertEqual(self.first(config(BOX), few), (2, "LimitNOFILE of the gate"))
        published = DockerSection(reach="published")
        scarce = replace(MACHINE, ports=4)
        told = self.first(config(BOX, docker=published), scarce)
        self.assertEqual(told, (4, "net.ipv4.ip_local_port_range"))
        self.assertEqual(self.first(config(BOX), replace(MACHINE, pids=300))[0], 2)

    def test_without_limits(self) -> None:
        """What has no limit is bounded by what does not depend on one."""
        (row,) = rows(config(PIPE), MACHINE, {})
        self.assertEqual([bound.what for bound in row.at_limit], ["open files"])
        bare = replace(MACHINE, pids=None, open_files=None, ports=None)
        (row,) = rows(config(PIPE), bare, {})
        self.assertEqual(row.at_limit, ())

    def test_each_of_them(self) -> None:
        """A user with a copy of each takes what they take together; what is shared counts once."""
        made = config(BOX, replace(BOX, name="other"), SHARED, REMOTE)
        *single, both = rows(made, MACHINE, {})
        self.assertEqual([row.name for row in single], ["box", "other"])
        self.assertEqual((both.name, both.limit.memory_bytes), (EVERYTHING, 512 * MIB))
        self.assertEqual(both.at_limit[0].most, 2)
        self.assertEqual(shared_bytes(made, {}), 256 * MIB)
        seen = {"clock": Use(memory_bytes=10.0, seen=1), "box": Use(memory_bytes=1.0, seen=1)}
        self.assertEqual(shared_bytes(made, seen), 10.0)
        self.assertIsNone(rows(made, MACHINE, seen)[-1].measured)
        some = {**seen, "other": Use(memory_bytes=2.0, cpus=0.5, seen=4)}
        use = rows(made, MACHINE, some)[-1].use
        self.assertEqual(use, Use(memory_bytes=3.0, cpus=None, pids=None, seen=1))

    def test_nothing_to_count(self) -> None:
        """Without servers of users there is nothing to count."""
        self.assertEqual(rows(config(REMOTE), MACHINE, {}), [])
        self.assertIsNone(sizes(config(REMOTE), {})[0].at_limit)

    def test_sizes(self) -> None:
        """Machines of other sizes: the seed's 1-2, 5-6 and 10-12 users, for memory alone."""
        use = Use(memory_bytes=64 * MIB, seen=1)
        told = [(size.at_limit, size.measured) for size in sizes(config(BOX), {"box": use})]
        self.assertEqual(told[:3], [(2, 8), (6, 24), (14, 56)])
