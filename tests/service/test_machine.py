"""Tests of reading what a machine has."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.service.machine import MachineFiles


class MachineTests(SynchronousTestCase):
    """`MachineFiles`."""

    def setUp(self) -> None:
        """Make folders in place of the kernel's."""
        self.root = Path(self.mktemp())
        self.files = MachineFiles(str(self.root / "proc"), str(self.root / "cg"))

    def write(self, path: str, text: str) -> None:
        """Write a file of the kernel's."""
        where = self.root / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)

    def test_nothing(self) -> None:
        """What can not be read is told as such."""
        self.assertEqual(self.files.memory(), (0, 0))
        self.assertEqual(self.files.cpus(), len(os.sched_getaffinity(0)))
        told = (self.files.pids(), self.files.ports(), self.files.open_files(7))
        self.assertEqual((*told, self.files.resident(7)), (None,) * 4)

    def test_machine(self) -> None:
        """Memory, processes, ports and descriptors are read."""
        self.write("proc/meminfo", "MemTotal: 2048 kB\nMemAvailable: 1024 kB\nHugePages_Total: x\n")
        self.assertEqual(self.files.memory(), (2 << 20, 1 << 20))
        self.write("proc/sys/kernel/pid_max", "32768\n")
        self.write("proc/sys/kernel/threads-max", "9000\n")
        self.assertEqual(self.files.pids(), 9000)
        self.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
        self.assertEqual(self.files.ports(), 28232)
        self.write("proc/7/limits", "Limit Soft\nMax open files            1024 4096 files\n")
        self.assertEqual(self.files.open_files(7), 1024)
        self.write("proc/7/statm", "100 3 1\n")
        self.assertEqual(self.files.resident(7), 3 * os.sysconf("SC_PAGE_SIZE"))

    def test_cgroup_2(self) -> None:
        """In a container of version 2, its bounds count."""
        self.write("proc/meminfo", "MemTotal: 2048 kB\nMemAvailable: 1900 kB\n")
        self.write("cg/memory.max", "1048576\n")
        self.assertEqual(self.files.memory(), (1 << 20, 1 << 20))
        self.write("cg/cpu.max", "50000 100000\n")
        self.assertEqual(self.files.cpus(), 0.5)
        self.write("cg/cpu.max", "max 100000\n")
        self.assertEqual(self.files.cpus(), len(os.sched_getaffinity(0)))
        self.write("cg/pids.max", "max\n")
        self.assertIsNone(self.files.pids())

    def test_cgroup_1(self) -> None:
        """In one of version 1, too."""
        self.write("proc/meminfo", "MemTotal: 2048 kB\nMemAvailable: 100 kB\n")
        self.write("cg/memory/memory.limit_in_bytes", "1048576\n")
        self.assertEqual(self.files.memory(), (1 << 20, 100 << 10))
        self.write("cg/cpu/cpu.cfs_quota_us", "25000\n")
        self.write("cg/cpu/cpu.cfs_period_us", "100000\n")
        self.assertEqual(self.files.cpus(), 0.25)
        self.write("cg/pids/pids.max", "77\n")
        self.assertEqual(self.files.pids(), 77)

    def test_own_open_files(self) -> None:
        """Where no gate runs, what one of this user could have counts."""
        for hard, told in ((4096, 4096), (resource.RLIM_INFINITY, None)):
            self.patch(resource, "getrlimit", lambda _, hard=hard: (10, hard))
            self.assertEqual(self.files.open_files(None), told)
