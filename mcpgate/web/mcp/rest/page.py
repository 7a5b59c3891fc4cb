"""The tools of a server as a page for people: no script, nothing loaded, every value escaped."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape as escape_html
from typing import Final

from mcpgate.mcp.openapi import DOCUMENT_BYTES, Tool, tool_path
from mcpgate.telemetry.escaping import clean

_STYLE: Final = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:60em;color:#222;background:#fff}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin:1.6em 0 .2em}p{white-space:pre-wrap}"
    "code,pre{font:12px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.6em;background:#eee}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#282828}}"
)
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()

#: The page's Content-Security-Policy: its one style block and nothing else.
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_NAME_CHARS: Final = 256
_TEXT_CHARS: Final = 20_000


def render(server: str, url: str, tools: Sequence[Tool], *, limit: int = DOCUMENT_BYTES) -> bytes:
    """
    Write the page.

    :param url: where the paths begin.
    :param limit: characters after which no further tool is shown.
    """
    parts = [
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{_one_line(server)}</title>"
        f"<style>{_STYLE}</style><h1>{_one_line(server)}</h1>"
        f"<p>POST a JSON object to the path of a tool, with your key. Machines read "
        f"<code>{_one_line(url)}/openapi.json</code>.</p>"
    ]
    size = 0
    for number, tool in enumerate(tools):
        part = _section(url, tool)
        size += len(part)
        if size > limit:
            parts.append(f"<p>{len(tools) - number} more tools are not shown.</p>")
            break
        parts.append(part)
    return "".join(parts).encode("utf-8", "replace")


def _section(url: str, tool: Tool) -> str:
    name = tool.get("name")
    if not isinstance(name, str):
        return ""
    description = tool.get("description")
    told = description if isinstance(description, str) else ""
    return (
        f"<h2>{_one_line(name)}</h2><code>POST {_one_line(url + tool_path(name))}</code>"
        f"<p>{_text(told)}</p>{_schema('Body', tool.get('inputSchema'))}"
        f"{_schema('Answer', tool.get('outputSchema'))}"
    )


def _schema(title: str, schema: object) -> str:
    if not isinstance(schema, Mapping):
        return ""
    return f"{title}<pre>{_text(json.dumps(schema, indent=2))}</pre>"


def _one_line(text: str) -> str:
    return escape_html(clean(text, _NAME_CHARS), quote=True)


def _text(text: str) -> str:
    lines = (clean(line, _TEXT_CHARS) for line in text[:_TEXT_CHARS].split("\n"))
    return escape_html("\n".join(lines), quote=True)
