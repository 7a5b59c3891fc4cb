"""Tests of mcpgate.config.interpolation."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.interpolation import Interpolation, read_bounded
from mcpgate.config.problems import BadValueError


class InterpolationTests(SynchronousTestCase):
    """Values from elsewhere."""

    def setUp(self) -> None:
        """Make a directory for secrets."""
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir(parents=True)
        self.environ = {
            "TOKEN": "abc",
            "NESTED": "${TOKEN}",
            "EMPTY": "",
            "CREDENTIALS_DIRECTORY": str(self.base),
        }

    def fill(self, text: str, *, secret: bool = True, shown: bool = False) -> str:
        """Fill one text."""
        return Interpolation(self.environ, self.base).fill(text, secret=secret, shown=shown)

    def write(self, name: str, content: bytes) -> None:
        """Write a file beside the configuration."""
        (self.base / name).write_bytes(content)

    def refuse(self, text: str, *, shown: bool = False) -> BadValueError:
        """Give the complaint about one text."""
        error: BadValueError = self.assertRaises(BadValueError, self.fill, text, shown=shown)
        self.assertTrue(error.remedy)
        return error

    def test_variable(self) -> None:
        """${NAME} is replaced wherever it stands, and $$ is a dollar."""
        self.assertEqual(self.fill("a ${TOKEN}-${TOKEN} $${TOKEN} $$"), "a abc-abc ${TOKEN} $")

    def test_one_pass(self) -> None:
        """What was put in is not read again."""
        self.assertEqual(self.fill("${NESTED}"), "${TOKEN}")

    def test_tricks_are_refused(self) -> None:
        """Only the three forms exist: no defaults, commands, nesting or bare dollars."""
        for text in (
            "$TOKEN",
            "$",
            "${}",
            "${",
            "${TOKEN",
            "${TOKEN:-x}",
            "${TOKEN-x}",
            "${TOKEN/a/b}",
            "${${TOKEN}}",
            "${!TOKEN}",
            "${#TOKEN}",
            "${ TOKEN }",
            "${TO KEN}",
            "${1}",
            "$(id)",
            "${cmd:id}",
            "${env:TOKEN}",
            "${file:}",
            "${credential:}",
            "${credential:../x}",
            "${credential:a/b}",
            "${credential:.}",
            "${FILE:x}",
            "$$$",
        ):
            with self.assertRaises(BadValueError, msg=text):
                self.fill(text)

    def test_missing_and_empty(self) -> None:
        """What is not there or empty is a fault that names it."""
        self.assertIn("NOPE is not set", self.refuse("${NOPE}").text)
        self.assertIn("EMPTY is empty", self.refuse("${EMPTY}").text)
        self.assertIn("can not be read", self.refuse("${file:nope}").text)
        self.assertIn("can not be read", self.refuse("${credential:nope}").text)
        del self.environ["CREDENTIALS_DIRECTORY"]
        self.assertIn("CREDENTIALS_DIRECTORY", self.refuse("${credential:x}").text)

    def test_file_and_credential(self) -> None:
        """A file and a credential give their contents without the last line end."""
        self.write("secret", b"s3cret\r\n")
        self.assertEqual(self.fill("${file:secret}"), "s3cret")
        self.assertEqual(self.fill("x${credential:secret}"), "xs3cret")
        self.assertEqual(self.fill(f"${{file:{self.base}/secret}}"), "s3cret")

    def test_unfit_files(self) -> None:
        """Files that are too large, empty, binary or no files at all are refused."""
        for content in (b"x" * 65537, b"\n", b"\xff", b"a\0b"):
            self.write("secret", content)
            self.refuse("${file:secret}")
        os.mkfifo(self.base / "pipe")
        self.refuse("${file:pipe}")
        self.refuse("${file:.}")
        self.refuse("${file:a\0b}")

    def test_shown_values_take_variables_only(self) -> None:
        """What shows in process lists holds no secret file."""
        self.write("secret", b"s3cret")
        self.assertEqual(self.fill("${TOKEN}", shown=True), "abc")
        self.refuse("${file:secret}", shown=True)
        self.refuse("${credential:secret}", shown=True)

    def test_secrets_are_remembered(self) -> None:
        """The redactor can know every secret, once each; variables in plain keys are none."""
        self.write("secret", b"s3cret")
        interpolation = Interpolation(self.environ, self.base)
        interpolation.fill("${TOKEN} ${TOKEN}")
        interpolation.fill("${NESTED}", secret=False)
        interpolation.fill("${file:secret}", secret=False)
        self.assertEqual(
            [(one.kind, one.name, one.value.reveal()) for one in interpolation.sources],
            [("env", "TOKEN", "abc"), ("file", "secret", "s3cret")],
        )
        self.assertNotIn("s3cret", repr(interpolation.sources))

    @given(st.text(alphabet=st.sampled_from("${}:AT$"), max_size=20))
    @settings(max_examples=100)
    def test_any_text(self, text: str) -> None:
        """Whatever is typed is filled in or refused."""
        try:
            Interpolation({"A": "1", "T": "2"}, Path("/nowhere")).fill(text)
        except BadValueError as error:
            self.assertTrue(error.remedy)

    def test_bound(self) -> None:
        """A file of exactly the bound is read."""
        self.write("secret", b"x" * 10)
        self.assertEqual(read_bounded(self.base / "secret", 10)[0], b"x" * 10)
        self.assertRaises(BadValueError, read_bounded, self.base / "secret", 9)
