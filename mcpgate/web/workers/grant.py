"""
What a worker may do by itself, in the words in which the owner grants it.

A grant is about requests to one listener, for one Host, below one prefix of paths, with one
credential, for one server; none of them serves another.  It says where the server is and what the
relay has to know of it.  The credential itself is not in it: a worker knows it by its digest, and
has it from the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mcpgate import errors
from mcpgate.errors import GateError, Internal
from mcpgate.model import Isolation, Principal, Rate, ServerSpec, Transport

#: A grant holds for so long, unless a worker that uses it asks for it to go on.
GRANT_S: Final = 10.0

# What is said of an entry in plain words of JSON.
_PLAIN: Final = (
    *("name", "url", "mcp_path", "call_timeout_s", "relay_body_bytes", "sse", "openapi_face"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """
    One grant.

    :ivar number: its place in `mcpgate.web.workers.uses`, held under ``serial``.
    :ivar channel: number of what serves the listener.
    :ivar host: the value of ``Host``, after what trusted proxies say; None where there is none.
    :ivar prefix: what the server's paths begin with; empty where the host names the server.
    :ivar digest: of the credential.
    :ivar instance: id of the copy that answers; connections are shared by grants that name it.
    :ivar address: where it listens, unless the entry has a URL.
    """

    number: int
    serial: int
    channel: int
    host: bytes | None
    prefix: bytes
    digest: str
    principal: Principal
    spec: ServerSpec
    instance: str
    address: tuple[str, int] | None

    def write(self) -> dict[str, Any]:
        """Give it in terms of JSON."""
        spec, who = self.spec, self.principal
        return {
            "number": self.number,
            "serial": self.serial,
            "channel": self.channel,
            "host": None if self.host is None else self.host.decode("latin-1"),
            "prefix": self.prefix.decode("latin-1"),
            "digest": self.digest,
            "principal": [who.issuer, who.subject, who.key_digest],
            "instance": self.instance,
            "address": self.address,
            "spec": {name: getattr(spec, name) for name in _PLAIN},
            "transport": spec.transport.value,
            "isolation": spec.isolation.value,
            "headers": spec.headers,
            "forward_headers": spec.forward_headers,
            "rate": None if spec.rate is None else [spec.rate.per_s, spec.rate.burst],
        }


def read_grant(told: dict[str, Any]) -> Grant:
    """Read what `Grant.write` has written; relaying is on, else it was not granted."""
    rate, address, host = told["rate"], told["address"], told["host"]
    return Grant(
        number=told["number"],
        serial=told["serial"],
        channel=told["channel"],
        host=None if host is None else host.encode("latin-1"),
        prefix=told["prefix"].encode("latin-1"),
        digest=told["digest"],
        principal=Principal(*told["principal"]),
        spec=ServerSpec(
            **told["spec"],
            transport=Transport(told["transport"]),
            isolation=Isolation(told["isolation"]),
            headers=tuple((name, text) for name, text in told["headers"]),
            forward_headers=tuple(told["forward_headers"]),
            rate=None if rate is None else Rate(*rate),
        ),
        instance=told["instance"],
        address=None if address is None else (address[0], address[1]),
    )


def write_error(error: GateError) -> dict[str, Any]:
    """Give a failure in terms of JSON."""
    return {
        "kind": type(error).__name__,
        "detail": error.detail,
        "retry_after_s": error.retry_after_s,
        "data": error.data,
    }


def read_error(told: dict[str, Any]) -> GateError:
    """Read what `write_error` has written."""
    kind = getattr(errors, told["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, GateError)):
        return Internal()
    return kind(told["detail"], retry_after_s=told["retry_after_s"], data=told["data"])
