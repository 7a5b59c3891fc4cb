"""Tests that what the documentation tells people to paste is accepted."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.load import parse_config
from mcpgate.config.problems import ConfigError
from tests.docs.pages import Sample, samples

PETSTORE = Path(__file__).parents[1] / "functional" / "servers" / "petstore.yaml"


class ConfigurationSampleTests(SynchronousTestCase):
    """Every ``ini`` block is a configuration, read by the reader the gate uses."""

    def _problems(self, sample: Sample) -> str:
        base = Path(self.mktemp()).absolute()
        credentials = base / "credentials"
        credentials.mkdir(parents=True)
        environ = {"HOME": "/home/gate", "CREDENTIALS_DIRECTORY": str(credentials)}
        # What the sample takes from elsewhere is there, as it would be on a reader's machine.
        for name in re.findall(r"\$\{credential:([^}]+)\}", sample.text):
            (credentials / name).write_text(
                "scrypt:13:" + "00" * 16 + ":" + "00" * 32
                if name.endswith("hash")
                else "a-secret-of-the-reader",
                encoding="ascii",
            )
        for name in re.findall(r"\$\{([A-Z_]+)\}", sample.text):
            environ[name] = "a-value-of-the-reader"
        for name in re.findall(r"[\w-]+\.(?:pem|key)\b", sample.text):
            (base / name).write_text("", encoding="ascii")
        if "openapi = " in sample.text and find_spec("openapi_spec_validator") is None:
            return ""  # the extra openapi is not installed
        if "petstore.yaml" in sample.text:
            shutil.copy(PETSTORE, base)
        try:
            parse_config(sample.text, base / "gate.ini", environ)
        except ConfigError as error:
            return f"{sample.where}: {error}"
        return ""

    def test_every_sample_is_accepted(self) -> None:
        """What the pages show as ``gate.ini`` can be pasted and used."""
        found = list(samples("ini"))
        self.assertGreater(len(found), 15)
        self.assertEqual([], [text for sample in found if (text := self._problems(sample))])


class ClientSampleTests(SynchronousTestCase):
    """What is pasted into clients can at least be parsed by them."""

    def test_json_is_json(self) -> None:
        """Every JSON block is JSON."""
        for sample in samples("json"):
            try:
                json.loads(sample.text)
            except ValueError as error:
                self.fail(f"{sample.where}: {error}")

    def test_toml_is_toml(self) -> None:
        """Every TOML block is TOML."""
        for sample in samples("toml"):
            try:
                tomllib.loads(sample.text)
            except tomllib.TOMLDecodeError as error:
                self.fail(f"{sample.where}: {error}")

    def test_python_compiles(self) -> None:
        """Every Python block is Python."""
        for sample in samples("python"):
            try:
                compile(sample.text, sample.where, "exec")
            except SyntaxError as error:
                self.fail(f"{sample.where}: {error}")

    def test_embedding_imports_what_there_is(self) -> None:
        """Names imported from mcpgate in samples are public names of it."""
        import mcpgate

        shown = [sample for sample in samples("python") if "from mcpgate import" in sample.text]
        self.assertTrue(shown)
        for sample in shown:
            for names in re.findall(r"^from mcpgate import (.+)$", sample.text, re.MULTILINE):
                for name in names.split(", "):
                    self.assertIn(name, mcpgate.__all__, sample.where)
