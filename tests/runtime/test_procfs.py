"""What /proc tells."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import Usage
from mcpgate.runtime.procfs import ProcFS


class ProcFSTests(SynchronousTestCase):
    """A /proc of our own making."""

    def setUp(self) -> None:
        """Make it."""
        self.root = Path(self.mktemp())
        self.root.mkdir()
        (self.root / "self").mkdir()
        self.clock = Clock()
        self.proc = ProcFS(self.clock, root=str(self.root))
        self.add(10, session=10, started=100)
        self.add(11, session=10, started=101, name="evil) R 1 1 1")
        self.add(12, session=10, started=102, state="Z")
        self.add(13, session=13, started=103, environ=b"A=b\0MCPGATE_INSTANCE=i1\0")
        self.add(14, session=14, started=104, environ=b"MCPGATE_INSTANCE=i12\0")
        self.add(15, session=10, started=50)

    def add(
        self,
        pid: int,
        *,
        session: int,
        started: int,
        state: str = "S",
        name: str = "toy",
        environ: bytes | None = None,
    ) -> None:
        """Add a process."""
        folder = self.root / str(pid)
        folder.mkdir()
        zeros = " ".join("0" * 6)
        (folder / "stat").write_text(
            f"{pid} ({name}) {state} 1 {session} {session} 0 0 {zeros[:9]} 7 5 "
            f"0 0 20 0 1 0 {started} 0 0\n"
        )
        (folder / "statm").write_text("1000 300 100 1 0 50 0\n")
        if environ is not None:
            (folder / "environ").write_bytes(environ)

    def test_process(self) -> None:
        """A process is read, whatever its name holds; none is None."""
        process = self.proc.process(11)
        assert process is not None
        self.assertEqual(
            (process.state, process.parent, process.session, process.started, process.cpu_ticks),
            ("S", 1, 10, 101, 12),
        )
        self.assertIsNone(self.proc.process(99))

    def test_belonging(self) -> None:
        """Found by session or mark, if it lives and is not older than the instance."""
        self.assertEqual(sorted(self.proc.belonging(10, "i1", 100)), [10, 11, 13])

    def test_usage(self) -> None:
        """Memory, time and number of a session's living processes are added up."""
        usage = self.proc.usage(10)
        self.assertEqual(usage.processes, 3)
        self.assertEqual(usage.memory_bytes, 3 * 200 * self.proc._page_bytes)
        self.assertEqual(usage.cpu_s, 36 / self.proc._tick_hz)
        (self.root / "10" / "statm").unlink()
        self.assertEqual(self.proc.usage(10).memory_bytes, 2 * 200 * self.proc._page_bytes)

    def test_one_scan_for_all(self) -> None:
        """Within a second known sessions are answered from one scan."""
        self.proc.usage(10)
        self.add(16, session=10, started=200)
        self.assertEqual(self.proc.usage(10).processes, 3)
        self.clock.advance(1.0)
        self.assertEqual(self.proc.usage(10).processes, 4)
        self.assertEqual(self.proc.usage(77), Usage(memory_bytes=0, cpu_s=0.0, processes=0))

    def test_machine(self) -> None:
        """Boot id and the kernel's count of memory kills; harmless where there are none."""
        self.assertEqual((self.proc.boot_id(), self.proc.oom_kills()), ("", 0))
        (self.root / "sys/kernel/random").mkdir(parents=True)
        (self.root / "sys/kernel/random/boot_id").write_text("some-id\n")
        (self.root / "vmstat").write_text("pgfault 3\n")
        self.assertEqual((self.proc.boot_id(), self.proc.oom_kills()), ("some-id", 0))
        (self.root / "vmstat").write_text("pgfault 3\noom_kill 5\n")
        self.assertEqual(self.proc.oom_kills(), 5)
