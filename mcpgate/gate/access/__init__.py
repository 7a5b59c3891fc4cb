"""
Who calls: credentials found, checked and remembered; principals are made here and nowhere else.

Authenticators are an onion.  For a static section a `StaticAuthenticator`; for a remote one
``CachedAuthenticator(FailureBudget(Breaker(RemoteAuthenticator)))``; several sections together
`AnyOf`.  A request is served from `IAuthenticator.remembered` if it can be, else it goes through
`Lockout.authenticate`.

What asks others (`mcpgate.gate.access.remote` and ``outbound``) comes with an HTTP client, and is
imported by those that need it.
"""

from __future__ import annotations

from mcpgate.gate.access.anyof import AnonymousAuthenticator, AnyOf
from mcpgate.gate.access.breaker import Breaker
from mcpgate.gate.access.budget import FailureBudget
from mcpgate.gate.access.cached import CachedAuthenticator, Memory
from mcpgate.gate.access.challenge import unauthenticated_fields
from mcpgate.gate.access.credentials import extract
from mcpgate.gate.access.digest import KeyDigest, SecretFileError, load_secret
from mcpgate.gate.access.keyfile import KeyFileError
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.access.static import StaticAuthenticator

__all__ = [
    "AnonymousAuthenticator",
    "AnyOf",
    "Breaker",
    "CachedAuthenticator",
    "FailureBudget",
    "KeyDigest",
    "KeyFileError",
    "Lockout",
    "Memory",
    "Revocations",
    "SecretFileError",
    "StaticAuthenticator",
    "extract",
    "load_secret",
    "unauthenticated_fields",
]
