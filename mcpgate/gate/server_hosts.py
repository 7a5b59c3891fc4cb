"""Names of hosts that stand for a server each: ``notes.example.org``, ``mcp-notes.example.org``."""

from __future__ import annotations

from collections.abc import Iterable


def host_name(value: str) -> str:
    """Give the lower-case name of a Host value, without port, brackets or a final dot."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    if value.count(":") == 1:
        value = value.partition(":")[0]
    return value.removesuffix(".")


class ServerHosts:
    """
    Tells servers by the names of hosts.

    :param patterns: lower-case names with one ``*`` in the first label, for the server's name.
    :param own: a name that is the gate's own, whatever the patterns say; may be empty.
    """

    def __init__(self, patterns: Iterable[str] = (), own: str = "") -> None:
        parts = [pattern.partition("*") for pattern in patterns]
        self._ends = tuple((before, after) for before, _, after in parts)
        self._own = own

    def __bool__(self) -> bool:
        """Tell whether there are any patterns."""
        return bool(self._ends)

    def server_of(self, name: str) -> str:
        """Give what stands for the ``*`` in a host's name; empty when no pattern fits."""
        if name == self._own:
            return ""
        for before, after in self._ends:
            server = name[len(before) : -len(after)]
            # One label: a dot in it would be another host's.
            if name == before + server + after and "." not in server:
                return server
        return ""

    def host_of(self, server: str) -> str:
        """Give the first name that stands for a server; empty when none does."""
        hosts = (before + server + after for before, after in self._ends)
        return next((host for host in hosts if self.server_of(host) == server), "")

    def names(self, servers: Iterable[str]) -> list[str]:
        """
        Give what a certificate must hold: wildcards where one will do, else each server's name.

        Clients know only wildcards that are a whole label.
        """
        found: list[str] = []
        known = list(servers)
        for before, after in self._ends:
            if not before and after.startswith("."):
                found.append("*" + after)
            else:
                found += [before + server + after for server in known]
        return found
