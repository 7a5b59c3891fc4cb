"""Tests of mcpgate.config.document_check; that there is a process is a functional test's matter."""

from __future__ import annotations

import io
import json
import os
import subprocess
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config import document_check
from mcpgate.config.document_check import check, main
from mcpgate.config.problems import BadValueError
from mcpgate.config.rest import DOCUMENT_BYTES
from tests.config.test_rest import DOCUMENT, YAML


class CheckTests(SynchronousTestCase):
    """A document is read by a process of its own."""

    if find_spec("openapi_spec_validator") is None:
        skip = "the extra openapi is not installed"

    def run_main(self, content: bytes) -> tuple[int, Any]:
        """Do what the process does."""
        out = io.StringIO()
        code = main(io.BytesIO(content), out)
        return code, json.loads(out.getvalue())

    def test_good(self) -> None:
        """JSON and YAML come back as JSON."""
        self.assertEqual(self.run_main(json.dumps(DOCUMENT).encode()), (0, DOCUMENT))
        code, told = self.run_main(YAML.encode())
        self.assertEqual((code, told["openapi"]), (0, "3.0.3"))

    def test_bad(self) -> None:
        """What is wrong comes back in words."""
        for content, why in (
            (b"{", "it can not be read"),
            (b'{"openapi": "3.1.0"}', "no valid OpenAPI document"),
            (b"a: .nan", "a number that JSON has not"),
            (b" " * (DOCUMENT_BYTES + 1), "larger than 4 MiB"),
        ):
            code, told = self.run_main(content)
            self.assertEqual(code, 3)
            self.assertIn(why, told["text"])
            self.assertTrue(told["remedy"])

    def test_unfolded(self) -> None:
        """A small document whose aliases make much of it is refused before it is written."""
        self.patch(document_check, "WRITTEN_CHARS", 4000)
        many = ", ".join(["*a"] * 200)
        code, told = self.run_main(f"{YAML}\nx-a: &a {'x' * 100}\nx-b: [{many}]\n".encode())
        self.assertEqual((code, "aliases" in told["text"]), (3, True), told)

    def process(self, code: int, out: bytes) -> None:
        """Have the process end so."""

        def run(words: list[str], **options: Any) -> Any:
            self.options = options
            return SimpleNamespace(returncode=code, stdout=out)

        self.patch(subprocess, "run", run)

    def test_process(self) -> None:
        """What the process says is passed on; the gate's environment is not passed to it."""
        self.patch(os, "environ", {"PATH": "/bin", "TOKEN": "t"})
        self.process(0, b'{"openapi": "3.1.0"}')
        self.assertEqual(check(b"{}"), {"openapi": "3.1.0"})
        self.assertEqual(self.options["env"], {"PATH": "/bin"})
        self.process(3, b'{"text": "it is bad", "remedy": "Mend it"}')
        refused = self.assertRaises(BadValueError, check, b"{}")
        self.assertEqual((refused.text, refused.remedy), ("it is bad", "Mend it"))

    def test_lost(self) -> None:
        """A process that was killed, is late, or can not be had leaves the document refused."""
        self.process(-9, b"")
        self.assertIn("too much memory", self.assertRaises(BadValueError, check, b"").text)
        self.process(0, b"nonsense")
        self.assertIn("not be checked", self.assertRaises(BadValueError, check, b"").text)

        def late(*words: Any, **options: Any) -> Any:
            raise subprocess.TimeoutExpired("python", 60)

        self.patch(subprocess, "run", late)
        self.assertIn("too long", self.assertRaises(BadValueError, check, b"").text)
        large = b" " * (DOCUMENT_BYTES + 1)
        self.assertIn("larger than", self.assertRaises(BadValueError, check, large).text)
