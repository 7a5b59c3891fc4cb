"""Tests of the JSON Schema of files of MCP servers."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import json5
from twisted.trial.unittest import SynchronousTestCase

from mcpgate import config
from mcpgate.config.schema import SERVER
from mcpgate.config.servers_schema import as_json, as_schema
from tests.functional import real

PUBLISHED = Path(config.__file__).parent / "mcp-servers.schema.json"
SEEDS = Path(__file__).parent.parent / "functional" / "seeds"


class ServersSchemaTests(SynchronousTestCase):
    """The schema, and what it says of files."""

    def faults(self, document: object) -> list[str]:
        """Give what is wrong with a document."""
        try:
            jsonschema: Any = import_module("jsonschema")
        except ImportError:
            real.missing("jsonschema comes with openapi-spec-validator")
        validator = jsonschema.Draft202012Validator(as_schema())
        return [error.message for error in validator.iter_errors(document)]

    def test_is_current(self) -> None:
        """The file in the package is what the code makes."""
        self.assertEqual(PUBLISHED.read_text(encoding="utf-8"), as_json())

    def test_own_keys(self) -> None:
        """Every key of a server can stand in ``mcpgate``, but what the entry says itself."""
        own = as_schema()["$defs"]["mcpgate"]
        names = {key.name for key in SERVER.keys if not key.open} - {"command", "url"}
        self.assertEqual(set(own["properties"]), names)
        self.assertIn("^env\\..+$", own["patternProperties"])

    def test_files(self) -> None:
        """Files of other programs are good, and so are keys of the gate beside theirs."""
        for file in sorted(SEEDS.glob("*.json*")):
            if file.name != "s3-vscode-settings.json":  # its servers are a part of other settings
                self.assertEqual(self.faults(json5.loads(file.read_text())), [], file.name)
        own = {"isolation": "shared", "memory": "512MiB", "relay": False, "env.A": "b", "cpus": 1}
        good = {"mcpServers": {"a": {"command": "x", "mcpgate": own}}}
        self.assertEqual(self.faults(good), [])
        document = {"openapi": "https://h.example.org/openapi.json"}
        for entry in (document, {"mcpgate": {**document, "allow_private": True}}):
            self.assertEqual(self.faults({"mcpServers": {"a": entry}}), [])

    def test_faults(self) -> None:
        """What the gate could make nothing of is a fault."""
        for entry in (
            {},
            {"command": 3},
            {"command": "x", "args": "y"},
            {"command": "x", "timeout": 0},
            {"command": "x", "mcpgate": {"nothing": "x"}},
            {"command": "x", "mcpgate": {"relay": "maybe"}},
        ):
            self.assertNotEqual(self.faults({"mcpServers": {"a": entry}}), [], entry)
        documents: tuple[object, ...] = (
            {},
            [],
            {"servers": [{"command": "x"}]},
            {"mcpServers": []},
        )
        for document in documents:
            self.assertNotEqual(self.faults(json.loads(json.dumps(document))), [], document)
