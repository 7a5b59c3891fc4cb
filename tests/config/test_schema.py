"""Tests of mcpgate.config.schema: the table, the model and the example say the same."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.kinds import Layout, Surroundings
from mcpgate.config.load import parse_config
from mcpgate.config.model import (
    AdminSection,
    AnonymousSource,
    AuthSection,
    DockerSection,
    GateSection,
    LimitsSection,
    LogSection,
    RemoteSource,
    StaticSource,
    TLSSection,
)
from mcpgate.config.schema import (
    RESERVED_SERVERS,
    SECTIONS,
    SERVER,
    Key,
    every_key,
    find_section,
)
from mcpgate.config.units import parse_per_s
from mcpgate.model import Container, Group, Lifetime, Restraint, ServerSpec, Transport
from tests.config.writing import BASE, ENVIRON, read

AROUND = Surroundings(Path("/etc/mcpgate"), None)
EXAMPLE = Path(__file__).parents[2] / "etc" / "gate.ini"
MODELS: dict[str, tuple[type[Any], ...]] = {
    "gate": (GateSection,),
    "tls": (TLSSection,),
    "auth": (AuthSection,),
    "auth:NAME": (RemoteSource, StaticSource, AnonymousSource),
    "limits": (LimitsSection,),
    "docker": (DockerSection,),
    "server:NAME": (ServerSpec,),
    "group:NAME": (Group,),
    "admin": (AdminSection,),
    "log": (LogSection,),
}
STEMS: dict[str, type[Any]] = {
    "restraint": Restraint,
    "lifetime": Lifetime,
    "container": Container,
}


def parsed(key: Key, text: str) -> Any:
    """Read a text as the key's value."""
    if key.kind.layout is Layout.ONE:
        return key.kind.parse(text, AROUND)
    parts = text.split("\n") if key.kind.layout is Layout.LINES else text.split()
    return tuple(key.kind.parse(part, AROUND) for part in parts)


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_names(self) -> None:
        """No section holds a key twice, and every key tells its effect."""
        for section in SECTIONS:
            self.assertEqual(len(set(section.names())), len(section.keys))
            self.assertIs(find_section(section.name), section)
        for section, key in every_key():
            self.assertTrue(key.effect.endswith("."), key.name)
            self.assertIs(section.find(key.name), key)

    def test_find(self) -> None:
        """Open keys are found by their stem, others only by their whole name."""
        found = SERVER.find("env.TOKEN")
        assert found is not None
        self.assertEqual(found.name, "env.NAME")
        for name in ("env", "env.", "command.x", "nope", ""):
            self.assertIsNone(SERVER.find(name))
        self.assertIsNone(find_section("gate:x"))
        self.assertIsNone(find_section("server"))
        self.assertIn("metrics", RESERVED_SERVERS)

    def test_defaults_are_those_of_the_model(self) -> None:
        """What the reference calls a default is what a file without the key gets."""
        checked = 0
        for section, key in every_key():
            if not (key.into and key.default):
                continue
            stem, _, name = key.into.rpartition(".")
            models = (STEMS[stem],) if stem else MODELS[section.name]
            defaults = [
                one.default for model in models for one in fields(model) if one.name == name
            ]
            self.assertEqual(len(defaults), 1, key.name)
            self.assertEqual(parsed(key, key.default), defaults[0], f"{section.name} {key.name}")
            checked += 1
        self.assertGreater(checked, 60)

    def test_every_field_has_a_key(self) -> None:
        """No field of the model is out of reach of the file."""
        made_of_more = {
            "auth": {"sources"},
            "auth:NAME": {"name", "servers", "headers"},
            "limits": {"per_key", "per_address", "per_server"},
            "tls": {"self_signed"},
            "server:NAME": {
                "name",
                "transport",
                "runtime",
                "cwd",
                "env",
                "files",
                "headers",
                "isolation",
                "era",
                "restraint",
                "lifetime",
                "container",
                "rate",
                "relay",
                "tools_pinned",
                "group",
                "rest",
                "rest_source",
            },
            "group:NAME": {"rename"},
        }
        for section in SECTIONS:
            wanted = {one.name for model in MODELS[section.name] for one in fields(model)}
            reached = {key.into for key in section.keys if "." not in key.into} - {""}
            self.assertEqual(wanted - reached, made_of_more.get(section.name, set()), section.name)
        for stem, model in STEMS.items():
            reached = {key.into for key in SERVER.keys}
            self.assertEqual({f"{stem}.{one.name}" for one in fields(model)} - reached, set())

    def test_defaults_made_of_two_keys(self) -> None:
        """The defaults of [limits] are those of the model as well."""
        limits, usual = {key.name: key.default for key in MODELS_LIMITS}, LimitsSection()
        assert usual.per_key is not None
        assert usual.per_address is not None
        self.assertEqual(parse_per_s(limits["per_key"]), usual.per_key.per_s)
        self.assertEqual(float(limits["burst"]), usual.per_key.burst)
        self.assertEqual(parse_per_s(limits["per_address"]), usual.per_address.per_s)
        self.assertEqual(float(limits["address_burst"]), usual.per_address.burst)
        self.assertEqual(read(BASE).limits, usual)
        self.assertEqual(
            read(BASE).servers[0],
            ServerSpec(
                name="notes", transport=Transport.STDIO, command=("notes", "--stdio"), relay=False
            ),
        )


_LIMITS = find_section("limits")
assert _LIMITS is not None
MODELS_LIMITS = _LIMITS.keys


class ExampleTests(SynchronousTestCase):
    """``etc/gate.ini``."""

    def setUp(self) -> None:
        """Read the example."""
        self.text = EXAMPLE.read_text(encoding="utf-8")

    def test_reads_cleanly(self) -> None:
        """The example is a good file as it is."""
        config = parse_config(self.text, EXAMPLE, ENVIRON)
        self.assertEqual([spec.name for spec in config.servers], ["notes"])

    def test_mentions_every_key(self) -> None:
        """Every key of the schema stands in its section, in use or behind a comment sign."""
        seen: set[tuple[str, str]] = set()
        title = ""
        for line in self.text.splitlines():
            header = re.fullmatch(r"#?\[([a-z:]+)\]", line)
            if header:
                title = header[1]
            key = re.match(r"#?([a-z][A-Za-z0-9_.-]*) =", line)
            section = find_section(title)
            if key and section is not None:
                found = section.find(key[1])
                self.assertIsNotNone(found, line)
                assert found is not None
                seen.add((section.name, found.name))
        self.assertEqual({(section.name, key.name) for section, key in every_key()} - seen, set())

    def test_shown_defaults_are_true(self) -> None:
        """What the example shows of a key with a default, and does not call an example, is it."""
        examples = {
            "listen",
            "memory_budget",
            "per_server",
            "names",
            "rate",
            "burst",
            "stats",
            "transport",
        }
        for line in self.text.splitlines():
            shown = re.fullmatch(r"#([a-z_]+) = (.+)", line)
            if not shown or shown[1] in examples:
                continue
            keys = [key for _, key in every_key() if key.name == shown[1] and key.default]
            if keys and all(key.kind.layout is Layout.ONE for key in keys):
                values = [parsed(key, key.default) for key in keys]
                self.assertIn(shown[2], [key.default for key in keys] + ["POST", "none", "remote"])
                self.assertTrue(values)

    def test_commented_values_are_good(self) -> None:
        """Each line behind a comment sign would be a good one without it."""
        title = ""
        for line in self.text.splitlines():
            header = re.fullmatch(r"#?\[([a-z:]+)\]", line)
            if header:
                title = header[1]
            shown = re.fullmatch(r"#([a-z][A-Za-z0-9_.-]*) = (.+)", line)
            section = find_section(title)
            if shown and section is not None and "$" not in shown[2]:
                key = section.find(shown[1])
                assert key is not None
                if key.name not in ("users_file", "ca_file"):
                    parsed(key, shown[2])
