"""What is done when memory runs out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import MIB
from mcpgate.service.gateway import SHED_AT_ONCE, Gateway
from mcpgate.service.memory import MemoryFiles, MemoryWatch
from mcpgate.telemetry.meters import Meters


class MemoryFilesTests(SynchronousTestCase):
    """The limit, and what is used of it."""

    def setUp(self) -> None:
        """Make a machine of nothing."""
        self.root = Path(self.mktemp())
        self.files = MemoryFiles(str(self.root / "proc"), str(self.root / "cgroup"))

    def write(self, path: str, text: str) -> None:
        """Write a file of the kernel's."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def test_nothing_known(self) -> None:
        """Where nothing can be read there is no limit."""
        self.assertIsNone(self.files.ratio())
        self.write("proc/self/cgroup", "nonsense\n0::/gone\n")
        self.assertIsNone(self.files.ratio())

    def test_unit(self) -> None:
        """The limit of a systemd unit, or of the slice it is in: the tighter one counts."""
        self.write("proc/self/cgroup", "0::/system.slice/mcpgate.service\n")
        unit = "cgroup/system.slice/mcpgate.service/"
        self.write(unit + "memory.max", f"{100 * MIB}\n")
        self.write(unit + "memory.current", f"{90 * MIB}\n")
        self.assertAlmostEqual(self.files.ratio() or 0, 0.9)
        self.write(unit + "memory.stat", f"anon 1\ninactive_file {20 * MIB}\nactive_file {MIB}\n")
        self.assertAlmostEqual(self.files.ratio() or 0, 0.69)
        self.write("cgroup/system.slice/memory.max", f"{200 * MIB}\n")
        self.write("cgroup/system.slice/memory.current", f"{190 * MIB}\n")
        self.assertAlmostEqual(self.files.ratio() or 0, 0.95)
        self.write("cgroup/system.slice/memory.max", "max\n")
        self.write(unit + "memory.max", "max\n")
        self.assertIsNone(self.files.ratio())

    def test_container(self) -> None:
        """In a container of version 1 the path is another one; its root is ours."""
        self.write("proc/self/cgroup", "9:cpu:/docker/x\n5:memory:/docker/x\n0::/\n")
        self.write("cgroup/memory/memory.limit_in_bytes", f"{100 * MIB}")
        self.write("cgroup/memory/memory.usage_in_bytes", f"{60 * MIB}")
        self.write("cgroup/memory/memory.stat", f"total_inactive_file {10 * MIB}")
        self.assertAlmostEqual(self.files.ratio() or 0, 0.5)
        self.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
        self.assertIsNone(self.files.ratio())

    def test_this_machine(self) -> None:
        """What this machine says can be read."""
        ratio = MemoryFiles().ratio()
        self.assertTrue(ratio is None or ratio >= 0)


class SheddingTests(SynchronousTestCase):
    """Which streams are closed."""

    def test_idle_ones(self) -> None:
        """Those of sessions in which nothing else goes on, the longest unused first."""
        closed: list[int] = []

        def session(number: int, *, in_use: int = 1, over: bool = False) -> Any:
            stream = SimpleNamespace(over=over)
            link = SimpleNamespace(stream=stream, close_stream=lambda: closed.append(number))
            return SimpleNamespace(extras=link, in_use=in_use)

        sessions = [
            SimpleNamespace(extras=None, in_use=0),
            session(1),
            session(2, in_use=2),
            session(3, over=True),
            *(session(number) for number in range(4, 4 + SHED_AT_ONCE)),
        ]
        gateway: Any = SimpleNamespace(sessions=sessions)
        self.assertEqual(Gateway._shed_streams(gateway), SHED_AT_ONCE)
        self.assertEqual(closed, [1, *range(4, 3 + SHED_AT_ONCE)])


class MemoryWatchTests(SynchronousTestCase):
    """The three levels."""

    def setUp(self) -> None:
        """Watch a number."""
        self.used: float | None = None
        self.accepting = [True]
        self.meters = Meters()
        self.watch = MemoryWatch(
            self.meters,
            ratio=lambda: self.used,
            shed=lambda: 3,
            accept=self.accepting.append,
        )

    def at(self, used: float | None) -> tuple[bool, int, bool]:
        """Look; give whether there is room, how many streams were closed, who is accepted."""
        before = self.meters.events["streams_shed"]
        self.used = used
        self.watch.look()
        shed = self.meters.events["streams_shed"] - before
        return self.watch.has_room(), shed, self.accepting[-1]

    def test_no_limit(self) -> None:
        """Without a limit everything is let in."""
        self.assertEqual(self.at(None), (True, 0, True))

    def test_up_and_down(self) -> None:
        """Each level begins above its number and is over a good deal below it."""
        for used, expected in (
            (0.79, (True, 0, True)),
            (0.81, (False, 0, True)),
            (0.76, (False, 0, True)),
            (0.74, (True, 0, True)),
            (0.91, (False, 3, True)),
            (0.96, (False, 3, False)),
            (0.86, (False, 3, False)),
            (0.84, (False, 0, True)),
            (0.97, (False, 3, False)),
            (0.10, (True, 0, True)),
        ):
            self.assertEqual(self.at(used), expected, used)
        self.assertEqual(self.meters.events["memory_low"], 4)
        self.assertEqual(self.accepting, [True, False, True, False, True])
        self.assertAlmostEqual(self.watch.used, 0.1)
