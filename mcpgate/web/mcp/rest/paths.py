"""Which paths of a server are its OpenAPI face.  Pure."""

from __future__ import annotations

from typing import Final

from mcpgate.gate.routing import Route

DOCUMENT: Final = b"/openapi.json"
PAGE: Final = b"/docs"
TOOLS: Final = b"/tools/"


def is_face(route: Route) -> bool:
    """Tell whether a path is one of these; where the face is on they go before the relay's."""
    if not route.spec.openapi_face:
        return False
    rest = route.rest
    return rest in (DOCUMENT, PAGE) or (
        rest.startswith(TOOLS) and b"/" not in rest[len(TOOLS) :] and rest != TOOLS
    )
