"""Tests of looking at this machine."""

from __future__ import annotations

import ctypes
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import (
    AuthSection,
    CertificatePair,
    Config,
    GateSection,
    StaticSource,
    TLSSection,
)
from mcpgate.model import Container, ServerSpec, Transport
from mcpgate.service.doctor import machine
from mcpgate.service.machine import MachineFiles
from mcpgate.web.listening.certificates import make_self_signed

PIPE = ServerSpec(name="pipe", transport=Transport.STDIO, command=("sh", "-c", "x"))


def levels(found: Any) -> list[str]:
    """Give the levels of findings."""
    return [one.level for one in found]


class MachineTests(SynchronousTestCase):
    """`mcpgate.service.doctor.machine`."""

    def setUp(self) -> None:
        """Make a directory."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(mode=0o700)

    def test_advice(self) -> None:
        """What check warns of is repeated, what has a look of its own is not."""
        keys = StaticSource(name="keys", keys_file=self.folder / "keys")
        config = Config(
            auth=AuthSection(sources=(keys,)), servers=(replace(PIPE, command=("no-such-x",)),)
        )
        texts = [one.text for one in machine.advice(config, {})]
        self.assertTrue(any("keys_file" in text for text in texts))
        self.assertFalse(any("no-such-x" in text for text in texts))
        self.patch(machine, "advise", lambda *_: [])
        (told,) = machine.advice(config, {})
        self.assertEqual((told.level, told.text), ("ok", f"{config.path} is good"))

    def test_state_dir(self) -> None:
        """Owner, mode and space of the state directory are looked at."""
        self.assertEqual(levels(machine.state_dir(self.folder, None)), ["ok"])
        self.assertEqual(levels(machine.state_dir(self.folder / "none", None)), ["ok"])
        (self.folder / "file").touch()
        self.assertEqual(levels(machine.state_dir(self.folder / "file" / "x", None)), ["fail"])
        self.folder.chmod(0o750)
        (told,) = machine.state_dir(self.folder, None)
        self.assertEqual((told.level, told.remedy), ("warn", f"chmod 700 {self.folder}"))
        self.folder.chmod(0o700)
        (told,) = machine.state_dir(self.folder, os.geteuid() + 7)
        self.assertEqual(told.level, "fail")
        self.assertIn("chown", told.remedy)

    def test_space(self) -> None:
        """Little room is warned of, none fails."""
        for blocks, level in ((100 << 10, "warn"), (1 << 10, "fail")):
            space = SimpleNamespace(f_bavail=blocks, f_frsize=1024)
            self.patch(os, "statvfs", lambda _, space=space: space)
            self.assertEqual(levels(machine.state_dir(self.folder, None)), [level])

    def certificate(self, left: timedelta) -> Config:
        """Write a certificate that ends after so long."""
        made = datetime.now(UTC) + left - timedelta(days=825)
        chain, key = make_self_signed(["gate.example"], made)
        for name, content in (("chain", chain), ("key", key)):
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(stat.S_IRUSR)
        pair = CertificatePair(self.folder / "chain", self.folder / "key")
        return Config(tls=TLSSection(certificates=(pair,)))

    def test_certificates(self) -> None:
        """A certificate that ended fails, one that will soon is warned of."""
        for left, level in ((400, "ok"), (10, "warn"), (-2, "fail")):
            found = machine.certificates(self.certificate(timedelta(days=left)))
            self.assertEqual(levels(found), [level], left)
        config = self.certificate(timedelta(days=400))
        (self.folder / "chain").unlink()
        self.assertEqual(levels(machine.certificates(config)), ["fail"])
        (told,) = machine.certificates(Config())
        self.assertIn("self-signed", told.text)
        plain = Config(gate=GateSection(listen=("tcp:8080",)))
        self.assertEqual(list(machine.certificates(plain)), [])

    def test_programs(self) -> None:
        """Programs of servers are looked for; what is a template can not be."""
        specs = (
            PIPE,
            replace(PIPE, name="lost", command=("no-such-program",)),
            replace(PIPE, name="late", command=("{data_dir}/x",)),
            replace(PIPE, name="far", runtime="remote", command=()),
        )
        found = list(machine.programs(Config(servers=specs), {"PATH": os.environ["PATH"]}))
        self.assertEqual(
            [(one.check, one.level) for one in found],
            [("server pipe", "ok"), ("server lost", "fail")],
        )

    def test_open_files(self) -> None:
        """Few open files are warned of."""
        files = MachineFiles()
        for most, level in ((None, "ok"), (65536, "ok"), (1024, "warn")):
            self.patch(files, "open_files", lambda _, most=most: most)
            self.assertEqual(levels(machine.open_files(files, None)), [level])

    def test_clock(self) -> None:
        """The kernel is asked; a clock nobody keeps is warned of."""
        self.assertEqual([one.check for one in machine.clock()], ["clock"])
        self.assertEqual(machine.clock_finding(0x2001).level, "ok")
        self.assertEqual(machine.clock_finding(0x40).level, "warn")
        self.patch(ctypes, "CDLL", lambda _: SimpleNamespace(adjtimex=lambda _: -1))
        self.assertIn("does not tell", next(machine.clock()).text)

    def test_files_dir(self) -> None:
        """Files of servers belong in memory."""
        mounts = "/dev/sda / ext4 rw\ntmpfs /run tmpfs rw\nodd\n"
        box = replace(PIPE, runtime="docker", container=Container(image="x"))
        config = Config(servers=(replace(box, files=(("token", "{key}"),)),))
        self.assertEqual(levels(machine.files_dir(config, "/run/mcpgate", mounts)), ["ok"])
        self.assertEqual(levels(machine.files_dir(config, "/runway/x", mounts)), ["warn"])
        self.assertEqual(levels(machine.files_dir(config, "x", "")), ["warn"])
        self.assertEqual(list(machine.files_dir(Config(servers=(box,)), "/var", mounts)), [])
