"""Who acts by the control socket: the operator, who has no key and no server of their own."""

from __future__ import annotations

from mcpgate.model import Caller, Principal, Secret


def operator() -> Caller:
    """Give the caller in whose name shared servers are started by hand."""
    return Caller(Principal("control", "operator", "0" * 32), Secret(""))
