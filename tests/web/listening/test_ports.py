"""Tests for `mcpgate.web.listening.ports`."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.web.listening.ports import port_holder

HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  t inode\n"
)
LINE = "   0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 00:0 00000000  0  0 {inode} 1 0 100\n"


class PortHolderTests(SynchronousTestCase):
    """Finding the process behind a port, in a directory made like /proc."""

    @override
    def setUp(self) -> None:
        self.proc = self.mktemp()
        os.makedirs(os.path.join(self.proc, "net"))
        with open(os.path.join(self.proc, "net", "tcp"), "w") as table:
            table.write(HEAD + LINE.format(port=8443, state="01", inode=7))
            table.write(LINE.format(port=8443, state="0A", inode=77) + "short\n")

    def process(self, pid: int, name: str | None, *links: str) -> None:
        """Make a process with these descriptors."""
        descriptors = os.path.join(self.proc, str(pid), "fd")
        os.makedirs(descriptors)
        for number, link in enumerate(links):
            os.symlink(link, os.path.join(descriptors, str(number)))
        if name is not None:
            with open(os.path.join(self.proc, str(pid), "comm"), "w") as comm:
                comm.write(name + "\n")

    def test_found(self) -> None:
        """The listening process is named, not one with a connection."""
        self.process(5, "curl", "socket:[7]")
        self.process(12, "nginx", "/dev/null", "socket:[77]")
        self.assertEqual(port_holder(8443, self.proc), "nginx (pid 12)")

    def test_nameless(self) -> None:
        """A process that ends meanwhile is still told by its number."""
        self.process(12, None, "socket:[77]")
        self.assertEqual(port_holder(8443, self.proc), "a process (pid 12)")

    def test_unknown(self) -> None:
        """Free ports and processes of others give nothing."""
        os.makedirs(os.path.join(self.proc, "13"))
        self.process(14, "x")
        with open(os.path.join(self.proc, "14", "fd", "0"), "w"):
            pass
        self.assertEqual(port_holder(8443, self.proc), "")
        self.assertEqual(port_holder(8444, self.proc), "")
