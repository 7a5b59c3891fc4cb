"""What is installed where the gate is not run from its checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("mcpgate", "twisted", "setup.cfg", "pyproject.toml", "README.rst")
BUILD = "import setuptools; setuptools.setup()"
# The checkout itself is on the path of an environment for developers.
PLUGINS = """
import sys
root, built = sys.argv[1:]
sys.path = [built, *(path for path in sys.path if path and path != root)]
sys.path_hooks[:] = [hook for hook in sys.path_hooks if "editable" not in repr(hook)]
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
found = {one.tapname: one for one in getPlugins(IServiceMaker)}
print(found["mcpgate"].options().getUsage())
import mcpgate
print(mcpgate.__file__)
"""


class PackageTests(TestCase):
    """The package as ``pip install`` makes it of the sources."""

    def setUp(self) -> None:
        """Build it, beside the checkout."""
        place = Path(tempfile.mkdtemp(prefix="mcpgate-test-"))
        self.addCleanup(shutil.rmtree, place)
        source, self.built = place / "source", place / "built"
        source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                without = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(ROOT / name, source / name, ignore=without)
            else:
                shutil.copy(ROOT / name, source)
        words = [sys.executable, "-c", BUILD, "-q", "build_py", "--build-lib", str(self.built)]
        subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=120)
        self.source = source

    def test_whole(self) -> None:
        """Nothing is left out, and there is nothing else."""
        sources = {
            path.relative_to(self.source)
            for room in ("mcpgate", "twisted")
            for path in (self.source / room).rglob("*")
            if path.is_file()
        }
        built = {path.relative_to(self.built) for path in self.built.rglob("*") if path.is_file()}
        self.assertEqual(sources, built)

    def test_plugin(self) -> None:
        """``twistd mcpgate`` is found in it."""
        told = subprocess.run(
            [sys.executable, "-P", "-c", PLUGINS, str(ROOT), str(self.built)],
            cwd=self.built,
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn("--config", told.stdout)
        self.assertIn(str(self.built), told.stdout.splitlines()[-1])
