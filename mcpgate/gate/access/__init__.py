"""
Who calls: credentials found, checked and remembered; principals are made here and nowhere else.

Authenticators are an onion.  For a static section a `StaticAuthenticator`; for a remote one
``CachedAuthenticator(FailureBudget(Breaker(RemoteAuthenticator)))``; several sections together
`AnyOf`.  A request is served from `IAuthenticator.remembered` if it can be, else it goes through
`Lockout.authenticate`.
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
from mcpgate.gate.access.outbound import OutboundClient
from mcpgate.gate.access.remote import RemoteAuthenticator, RemoteCheck, make_remote
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
    "OutboundClient",
    "RemoteAuthenticator",
    "RemoteCheck",
    "Revocations",
    "SecretFileError",
    "StaticAuthenticator",
    "extract",
    "load_secret",
    "make_remote",
    "unauthenticated_fields",
]
