"""Sessions remembered only while the process lives: for tests, and for gates without a disk."""

from __future__ import annotations

from copy import copy

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mcpgate.interfaces import ISessionStore
from mcpgate.model import SessionKey, SessionRecord


@implementer(ISessionStore)
class MemoryStore:
    """
    See `ISessionStore`.

    :ivar records: what is kept, as it was when put.
    :ivar degraded: always empty: memory does not fail.
    """

    def __init__(self) -> None:
        self.records: dict[SessionKey, SessionRecord] = {}
        self.degraded = ""
        self._closed = False

    def load(self) -> Deferred[list[SessionRecord]]:
        """See `ISessionStore.load`."""
        records = sorted(self.records.values(), key=lambda record: record.last_used_at)
        return succeed([copy(record) for record in records])

    def put(self, record: SessionRecord) -> None:
        """See `ISessionStore.put`."""
        if not self._closed:
            self.records[record.key] = copy(record)

    def delete(self, key: SessionKey) -> None:
        """See `ISessionStore.delete`."""
        if not self._closed:
            self.records.pop(key, None)

    def flush(self) -> Deferred[None]:
        """See `ISessionStore.flush`."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """See `ISessionStore.close`."""
        self._closed = True
        return succeed(None)
