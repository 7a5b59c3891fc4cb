"""The challenge that goes with a 401 (RFC 6750 3, RFC 9728 5.1)."""

from __future__ import annotations

from mcpgate.errors import InvalidCredential, Unauthenticated


def unauthenticated_fields(
    realm: str, error: Unauthenticated, metadata_url: str = ""
) -> tuple[tuple[bytes, bytes], ...]:
    """
    Give what `GateError.fields` of a 401 must hold.

    ``error="invalid_token"`` stands there only when a key was sent.  ``resource_metadata`` is
    told only where there is an authorization server: without one it sends clients into an OAuth
    discovery that ends in a confusing error.

    :param metadata_url: of the protected resource metadata; empty for none.
    """
    parts = [f"realm={_quoted(realm)}"]
    if isinstance(error, InvalidCredential):
        parts.append('error="invalid_token"')
    if metadata_url:
        parts.append(f"resource_metadata={_quoted(metadata_url)}")
    return ((b"www-authenticate", ("Bearer " + ", ".join(parts)).encode("ascii")),)


def _quoted(text: str) -> str:
    """Write a quoted-string (RFC 9110 5.6.4); what it can not hold is left out."""
    kept = "".join(c for c in text if " " <= c <= "~")
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'
