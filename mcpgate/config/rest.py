"""
``openapi`` of ``[server:NAME]``: the document read, validated and made into tools.

A file is read with the configuration; what is fetched from a URL comes here when it is there.
"""

from __future__ import annotations

import importlib
import json
from datetime import date
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from mcpgate.config.interpolation import read_bounded
from mcpgate.config.kinds import split_url
from mcpgate.config.problems import BadValueError
from mcpgate.config.reading import Values
from mcpgate.errors import GateError
from mcpgate.mcp.jsonrpc import Bounds, decode_value
from mcpgate.mcp.rest_document import Described, described, foreign_references
from mcpgate.model import RESTSource

DOCUMENT_BYTES: Final = 4 * 1024 * 1024
_BOUNDS: Final = Bounds(nodes=200_000)
_SHOWN: Final = 200


def rest_service(values: Values) -> Described | None:
    """Read the document; None, with a complaint, when there is no using it."""
    nothing: tuple[str, ...] = ()
    try:
        document = read_document(values.get("openapi", Path()))
        made = _tools(document, values.get("allow", nothing), values.get("deny", nothing))
        if "url" not in values:
            _check_base(made.base)
    except BadValueError as bad:
        values.problem("openapi", bad.text, bad.remedy)
        return None
    return made


def rest_source(values: Values) -> RESTSource | None:
    """Tell where the document will be fetched; None, with a complaint, if it could not be read."""
    nothing: tuple[str, ...] = ()
    if find_spec("openapi_spec_validator") is None:
        bad = _not_installed("openapi_spec_validator")
        values.problem("openapi", bad.text, bad.remedy)
        return None
    return RESTSource(
        url=values.get("openapi", ""),
        refresh_s=values.get("openapi_refresh", 3600.0),
        allow=values.get("allow", nothing),
        deny=values.get("deny", nothing),
        names_base="url" not in values,
        allow_private=values.get("allow_private", False),
    )


def fetched_service(document: dict[str, Any], source: RESTSource) -> Described:
    """
    Make tools of a document that was fetched, and found valid; slow, for a thread.

    Its ``servers`` may be relative to its own address; to another host they can not lead, since
    what operator and callers send along is not meant for whoever the document names.

    :raises BadValueError: it can not be used; with what to do.
    """
    made = _tools(document, source.allow, source.deny)
    if not source.names_base:
        return made
    base = urljoin(source.url, made.base or "/")
    _check_base(base)
    if _origin(base) != _origin(source.url):
        raise BadValueError("its servers name another host than its own", f"Add url = {base}")
    return Described(made.service, base)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _tools(document: dict[str, Any], allow: tuple[str, ...], deny: tuple[str, ...]) -> Described:
    made = described(document, allow=allow, deny=deny)
    if not made.service.operations:
        raise BadValueError(
            "none of its operations becomes a tool"
            + (f" ({made.service.left_out[0][:_SHOWN]})" if made.service.left_out else ""),
            "Look at allow and deny",
        )
    return made


def _check_base(url: str) -> None:
    try:
        split_url(url)
    except BadValueError:
        raise BadValueError(
            "its servers say no http or https URL", "Add url = https://..."
        ) from None


def read_document(path: Path) -> dict[str, Any]:
    """
    Read and validate an OpenAPI document.

    :raises BadValueError: it can not be used; with what to do.
    """
    try:
        content, _ = read_bounded(path, DOCUMENT_BYTES)
    except OSError as error:
        raise BadValueError(
            f"the document can not be read: {error.strerror}", "Mend the path"
        ) from None
    return document_of(content, is_yaml=path.suffix.lower() in (".yaml", ".yml"))


def document_of(content: bytes, *, is_yaml: bool) -> dict[str, Any]:
    """
    Parse and validate an OpenAPI document.

    :raises BadValueError: it can not be used; with what to do.
    """
    document = _parse(content, is_yaml)
    if not isinstance(document, dict) or not str(document.get("openapi")).startswith(
        ("3.0.", "3.1.")
    ):
        raise BadValueError("this is no OpenAPI document of 3.0 or 3.1", "Convert it")
    for reference in foreign_references(document):
        raise BadValueError(
            f"it refers to another document: {reference[:_SHOWN]!r}", "Bundle them into one"
        )
    _validate(document)
    return document


def _parse(content: bytes, is_yaml: bool) -> object:
    if not is_yaml:
        try:
            return decode_value(content, bounds=_BOUNDS)
        except GateError as error:
            raise BadValueError(
                f"it can not be read: {error.detail}", "Mend it; YAML belongs in a .yaml file"
            ) from None
    yaml = _library("yaml")
    try:
        value = yaml.load(content.decode("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _as_json(value, [_BOUNDS.nodes], 0)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0][:_SHOWN]
        raise BadValueError(f"it is no YAML that can be used: {first}", "Mend it") from None


def _as_json(value: object, left: list[int], depth: int) -> object:
    """Give what YAML read as JSON would have it; aliases within aliases run into a bound."""
    left[0] -= 1
    if left[0] < 0 or depth > _BOUNDS.depth:
        raise ValueError("it is too large or too deep")
    if isinstance(value, dict):
        return {_key(name): _as_json(one, left, depth + 1) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_json(one, left, depth + 1) for one in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("it holds a number that JSON has not")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"it holds a {type(value).__name__}")


def _key(name: object) -> str:
    # Statuses of answers are written as numbers.
    return name if isinstance(name, str) else json.dumps(name, default=str)


def _validate(document: dict[str, Any]) -> None:
    validator = _library("openapi_spec_validator")
    try:
        validator.validate(document)
    except RecursionError:
        raise BadValueError("it is nested too deep", "Simplify it") from None
    except Exception as error:
        # Many kinds, of several libraries: what they have in common is a message for people.
        first = (str(error).splitlines() or [""])[0][:_SHOWN]
        raise BadValueError(
            f"it is no valid OpenAPI document: {first}", "Run openapi-spec-validator on it"
        ) from None


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _not_installed(name) from None


def _not_installed(name: str) -> BadValueError:
    return BadValueError(f"reading it needs the Python package {name}", "Install mcpgate[openapi]")
