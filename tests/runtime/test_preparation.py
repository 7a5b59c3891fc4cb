"""What the launcher is told, and how it reads it."""

from __future__ import annotations

import os
import resource

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.model import MIB, Restraint, ServerSpec, Transport
from mcpgate.runtime.launcher import Instructions, found
from mcpgate.runtime.preparation import (
    NODE_RESERVE_BYTES,
    Preparation,
    is_node,
    prepare,
    rlimits,
)

VALUES = {"key": "sesame", "user": "ali", "data_dir": "/data", "files_dir": "/files"}


def prepared(**fields: object) -> Preparation:
    """Prepare a toy."""
    spec = ServerSpec(
        name="toy",
        transport=Transport.STDIO,
        **{"command": ("toy", "--dir={data_dir}"), **fields},  # type: ignore[arg-type]  # for brevity
    )
    return prepare(spec, instance_id="i1", values=VALUES, path="/bin", tmp_dir="/tmp")


class PreparationTests(SynchronousTestCase):
    """Writing and reading instructions."""

    def read(self, **fields: object) -> Instructions:
        """Read what was prepared."""
        return Instructions(prepared(**fields).message)

    def test_round_trip(self) -> None:
        """What is prepared is what the launcher reads."""
        told = self.read(env=(("TOKEN", "x={key}=y\nz"), ("LANG", "de_DE")))
        self.assertEqual(told.args, [b"toy", b"--dir=/data"])
        self.assertEqual(
            told.env,
            {
                b"PATH": b"/bin",
                b"HOME": b"/data",
                b"LANG": b"de_DE",
                b"TMPDIR": b"/tmp",
                b"TOKEN": b"x=sesame=y\nz",
                b"MCPGATE_INSTANCE": b"i1",
            },
        )
        self.assertEqual(told.options["cwd"], b"/data")
        self.assertEqual(told.options["parent"], str(os.getpid()).encode())

    def test_mark_can_not_be_changed(self) -> None:
        """No entry can make its processes look like another's."""
        told = self.read(env=(("MCPGATE_INSTANCE", "other"),))
        self.assertEqual(told.env[b"MCPGATE_INSTANCE"], b"i1")

    def test_nice(self) -> None:
        """A server below one core is polite, one with a core or no limit is not."""
        self.assertEqual(self.read(restraint=Restraint(cpus=0.3)).options["nice"], b"5")
        self.assertEqual(self.read(restraint=Restraint(cpus=1)).options["nice"], b"0")
        self.assertEqual(self.read(restraint=Restraint(cpus=0)).options["nice"], b"0")

    def test_limits(self) -> None:
        """Limits are those that work for a process; 0 sets none."""
        limits = rlimits(Restraint(memory_bytes=MIB, open_files=9, file_bytes=8))
        self.assertEqual((limits[resource.RLIMIT_DATA], limits[resource.RLIMIT_NOFILE]), (MIB, 9))
        self.assertEqual(limits[resource.RLIMIT_FSIZE], 8)
        self.assertNotIn(resource.RLIMIT_NPROC, limits)
        none = rlimits(Restraint(memory_bytes=0, open_files=0))
        self.assertEqual(set(none), {resource.RLIMIT_CORE, resource.RLIMIT_STACK})
        self.assertEqual(self.read().limits[resource.RLIMIT_CORE], 0)

    def test_node(self) -> None:
        """Node.js reserves what it does not touch: that much it may, found by name or script."""
        directory = self.mktemp()
        os.mkdir(directory)
        for name, text in (
            ("server", "#!/usr/bin/env node\n"),
            ("other", "#!/usr/bin/python3\n"),
            ("empty", ""),
        ):
            path = os.path.join(directory, name)
            with open(path, "w", encoding="ascii") as script:
                script.write(text)
            os.chmod(path, 0o755)
        self.assertTrue(is_node("/opt/bin/node", ""))
        self.assertTrue(is_node("npx", ""))
        self.assertTrue(is_node("server", directory))
        self.assertTrue(is_node(os.path.join(directory, "server"), ""))
        for program in ("other", "empty", "missing", os.path.join(directory, "nothing")):
            self.assertFalse(is_node(program, directory), program)
        plain, roomy = (
            rlimits(Restraint(memory_bytes=MIB), node=node)[resource.RLIMIT_DATA]
            for node in (False, True)
        )
        self.assertEqual((plain, roomy), (MIB, MIB + NODE_RESERVE_BYTES))

    def test_hidden(self) -> None:
        """The key and longer values of the environment are hidden in logs, longest first."""
        hidden = prepared(env=(("A", "{key}-and-more"), ("B", "short"))).hidden
        self.assertEqual(hidden, ("sesame-and-more", "sesame"))

    def test_nul(self) -> None:
        """What no program can be given is refused."""
        with self.assertRaises(BackendUnavailable):
            prepared(env=(("A", "x\0y"),))

    def test_found(self) -> None:
        """A command is looked for in PATH, as a program, unless it is a path."""
        folder = self.mktemp()
        os.makedirs(os.path.join(folder, "toy-folder"))
        for name, mode in (("toy", 0o755), ("toy-text", 0o644)):
            with open(os.path.join(folder, name), "w") as file:
                file.write("#!/bin/sh\n")
            os.chmod(os.path.join(folder, name), mode)
        path = b"/nowhere:" + folder.encode()
        self.assertEqual(found(b"toy", path), folder.encode() + b"/toy")
        self.assertIsNone(found(b"toy-folder", path))
        self.assertIsNone(found(b"toy-text", path))
        self.assertIsNone(found(b"toy", b""))
        self.assertEqual(found(b"./toy", path), b"./toy")
