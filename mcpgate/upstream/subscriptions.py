"""Which session subscribed to which resource of one server.  Pure bookkeeping."""

from __future__ import annotations

from typing import Generic, TypeVar

P = TypeVar("P")


class Subscriptions(Generic[P]):
    """
    Subscriptions of many peers, counted so that the server sees one of each URI.

    A peer counts from the moment its request is on its way: an update may overtake the answer.

    :param limit: URIs that may be subscribed to at once.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        # URI -> peer -> whether the server has confirmed (to this peer or to another one).
        self._uris: dict[str, dict[P, bool]] = {}

    def full(self, uri: str) -> bool:
        """Tell whether there is no place for this URI."""
        return uri not in self._uris and len(self._uris) >= self._limit

    def begin(self, peer: P, uri: str) -> bool:
        """Note that the peer wants the URI; True when the server has to be asked."""
        peers = self._uris.setdefault(uri, {})
        known = any(peers.values())
        peers[peer] = known or peers.get(peer, False)
        return not known

    def settle(self, peer: P, uri: str, accepted: bool) -> None:
        """Note the server's answer to what `begin` began; refused ones are forgotten."""
        peers = self._uris.get(uri)
        if peers is None or peer not in peers:
            return
        if accepted:
            peers[peer] = True
        elif not peers[peer]:
            self.drop(peer, uri)

    def drop(self, peer: P, uri: str) -> bool:
        """Forget one; True when nobody wants the URI any more, so the server should be told."""
        peers = self._uris.get(uri)
        if peers is None:
            return True
        peers.pop(peer, None)
        if peers:
            return False
        del self._uris[uri]
        return True

    def forget(self, peer: P) -> list[str]:
        """Forget the peer; gives the URIs nobody wants any more."""
        return [uri for uri in self.uris_of(peer) if self.drop(peer, uri)]

    def uris_of(self, peer: P) -> tuple[str, ...]:
        """Give what the peer is subscribed to."""
        return tuple(uri for uri, peers in self._uris.items() if peer in peers)

    def listeners(self, uri: str) -> list[P]:
        """
        Give the peers an update of the URI is for.

        The specification lets the URI of an update be below the one subscribed to.
        """
        exact = self._uris.get(uri)
        if exact is not None:
            return list(exact)
        found: dict[P, None] = {}
        for above, peers in self._uris.items():
            if uri.startswith(above if above.endswith("/") else above + "/"):
                found.update(dict.fromkeys(peers))
        return list(found)
