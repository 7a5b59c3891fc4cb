"""Tests of mcpgate.config.rest."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.config import rest
from mcpgate.config.advice import advise
from mcpgate.model import Eras, Isolation, RESTSource, ServerSpec, Transport
from tests.config.writing import BASE, problems, read

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Pets", "version": "1"},
    "servers": [{"url": "https://pets.example.org/v1"}],
    "paths": {"/pets": {"get": {"operationId": "list", "responses": {"200": {"description": ""}}}}},
}
YAML = """
openapi: 3.0.3
info: {title: Pets, version: '1'}
paths:
  /pets:
    get:
      operationId: list
      responses:
        200:
          description: since
          content: {application/json: {example: {at: 2020-01-01}}}
"""


def _merges() -> str:
    """Give mappings each of which takes in the last one ten times: 10**8 keys, if multiplied."""
    lines = ["m0: &m0 {k: v}"]
    for number in range(1, 9):
        taken = ", ".join([f"*m{number - 1}"] * 10)
        lines.append(f"m{number}: &m{number} {{<<: [{taken}], x{number}: 1}}")
    return "\n".join(lines)


class RESTTests(SynchronousTestCase):
    """``openapi`` of a server."""

    if find_spec("openapi_spec_validator") is None:
        skip = "the extra openapi is not installed"

    @override
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def lines(self, document: object = DOCUMENT, more: str = "", *, suffix: str = ".json") -> str:
        """Write the document, and the section that names it."""
        path = self.path.with_suffix(suffix)
        text = document if isinstance(document, str) else json.dumps(document)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        return f"{BASE}[server:pets]\nopenapi = {path}\n{more}"

    def spec(self, *told: Any, **options: Any) -> ServerSpec:
        """Give the server."""
        return read(self.lines(*told, **options)).servers[1]

    def why(self, *told: Any, **options: Any) -> str:
        """Give the one complaint."""
        (problem,) = problems(self.lines(*told, **options))
        return f"{problem.key}: {problem.text}"

    def test_good(self) -> None:
        """It is a shared server of the modern era at the address the document names."""
        spec = self.spec()
        self.assertEqual((spec.transport, spec.runtime), (Transport.REST, "remote"))
        self.assertEqual((spec.era, spec.isolation), (Eras.MODERN, Isolation.SHARED))
        self.assertEqual((spec.url, spec.relay), ("https://pets.example.org/v1", False))
        assert spec.rest is not None
        self.assertEqual([one.name for one in spec.rest.operations], ["list"])

    def test_keys(self) -> None:
        """Address, fields and tools are the operator's to say."""
        more = "url = https://h/v2\nheader.X-Key = {key}\nallow = l*\n"
        spec = self.spec(DOCUMENT, more)
        self.assertEqual((spec.url, spec.headers), ("https://h/v2", (("X-Key", "{key}"),)))
        self.assertIn("none of its operations", self.why(DOCUMENT, "deny = *\n"))
        for key in ("transport = http", "era = modern", "relay = on"):
            self.assertIn("means nothing to a REST service", self.why(DOCUMENT, key + "\n"))
        self.assertIn("called, not started", self.why(DOCUMENT, "command = x\n"))
        (problem,) = problems(BASE + "allow = x\n")
        self.assertEqual(problem.key, "allow")

    def test_yaml(self) -> None:
        """YAML is read as well, numbers as keys and dates among it."""
        spec = self.spec(YAML, "url = https://h\n", suffix=".yaml")
        self.assertEqual(spec.url, "https://h")
        self.assertIn("no http or https URL", self.why(YAML, suffix=".yml"))

    def test_clear(self) -> None:
        """Keys travel in clear to no public host."""
        document = {**DOCUMENT, "servers": [{"url": "http://pets.example.org"}]}
        self.assertIn("in clear", self.why(document))

    def test_faults(self) -> None:
        """What can not be used is refused with the reason."""
        bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
        for one, two in zip("abcdefgh", "bcdefghi", strict=True):
            bomb += f"{two}: &{two} [{', '.join([f'*{one}'] * 9)}]\n"
        for document, suffix, why in (
            ("{", ".json", "it can not be read"),
            ("[]", ".json", "no OpenAPI document"),
            ('{"openapi": "2.0"}', ".json", "no OpenAPI document"),
            ('{"openapi": "3.0.1"}', ".json", "no valid OpenAPI document"),
            ({**DOCUMENT, "x-a": {"$ref": "https://evil.example/"}}, ".json", "another document"),
            ("a: [", ".yaml", "no YAML"),
            ("a: !!python/object:x.y {}", ".yaml", "no YAML"),
            ("\udcff", ".yaml", "no YAML"),
            ("a: !!binary aGk=", ".yaml", "holds a bytes"),
            (bomb, ".yaml", "too large"),
            (_merges(), ".yaml", "no OpenAPI document"),
        ):
            self.assertIn(why, self.why(document, suffix=suffix))

    def fetched(self, url: str, more: str = "") -> str:
        """Write a section whose document is fetched."""
        return f"{BASE}[server:pets]\nopenapi = {url}\n{more}"

    def test_url(self) -> None:
        """A document with an address is not fetched here; calls go to its own host until it is."""
        text = self.fetched(
            "https://h.test:8443/a/openapi.json", "allow = l*\nopenapi_refresh = 5min\n"
        )
        spec = read(text).servers[1]
        self.assertEqual((spec.transport, spec.rest), (Transport.REST, None))
        self.assertEqual((spec.url, spec.relay), ("https://h.test:8443/", False))
        source = RESTSource(
            url="https://h.test:8443/a/openapi.json", refresh_s=300.0, allow=("l*",)
        )
        self.assertEqual(spec.rest_source, source)
        spec = read(self.fetched("HTTPS://h.test/o", "url = https://api/v1\ndeny = d*\n")).servers[
            1
        ]
        assert spec.rest_source is not None
        self.assertEqual((spec.url, spec.rest_source.names_base), ("https://api/v1", False))

    def test_bad_urls(self) -> None:
        """Addresses that are none, in clear or private, and keys that mean nothing, are refused."""
        for url, more, why in (
            ("https://", "", "not an http or https URL"),
            ("https://u:p@h/", "", "no user and password"),
            ("http://pets.example.org/o", "", "could be changed on their way"),
            ("http://127.0.0.1/o", "", "of this machine or a private network"),
            ("https://petstore/o", "", "of this machine or a private network"),
            ("https://h.example.org/o", "openapi_refresh = 1s\n", "too small"),
        ):
            told = "\n".join(str(one) for one in problems(self.fetched(url, more)))
            self.assertIn(why, told)
        for url, more in (
            ("http://pets.example.org/o", "insecure = on\n"),
            ("http://127.0.0.1/o", "allow_private = on\n"),
            ("https://h.example.org/o", "openapi_refresh = 0\n"),
        ):
            self.assertIsNotNone(read(self.fetched(url, more)).servers[1].rest_source)
        for key in ("openapi_refresh = 1h", "allow_private = on"):
            self.assertIn("nothing without openapi = URL", self.why(DOCUMENT, key + "\n"))

    def test_not_installed(self) -> None:
        """What could never be read is told before it is fetched."""
        self.patch(rest, "find_spec", lambda name: None)
        (problem,) = problems(self.fetched("https://h.example.org/o"))
        self.assertIn("openapi_spec_validator", problem.text)

    def test_left_out(self) -> None:
        """When nothing is left the first reason is told."""
        operation = {
            "requestBody": {"required": True, "content": {"image/png": {}}},
            "responses": {"200": {"description": ""}},
        }
        told = self.why({**DOCUMENT, "paths": {"/x": {"post": operation}}})
        self.assertIn("POST /x: its body is image/png", told)
        paths = {**DOCUMENT["paths"], "/x": {"post": operation}}
        config = read(self.lines({**DOCUMENT, "paths": paths}))
        told = "\n".join(advise(config, {}, datetime.now(UTC), lambda name, path: name))
        self.assertIn("[server:pets] 1 operations are no tools: POST /x: its body is", told)

    def test_deep(self) -> None:
        """A validator that gives up is an error like others."""

        class Deep:
            """Gives up."""

            def validate(self, document: object) -> None:
                """Raise."""
                raise RecursionError

        self.patch(rest, "_library", lambda name: Deep())
        self.assertIn("nested too deep", self.why())

    def test_missing(self) -> None:
        """Without the library it says what to install; a file that is gone is told as well."""
        text = self.lines()
        self.patch(importlib, "import_module", _absent)
        (problem,) = problems(text)
        self.assertIn("mcpgate[openapi]", problem.remedy)
        self.path.with_suffix(".json").unlink()
        (problem,) = problems(text)
        self.assertEqual(problem.key, "openapi")


def _absent(name: str) -> object:
    raise ImportError(name)
