"""The store contract on the real thread and reactor."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mcpgate.stores.sqlite import OneThread, SQLiteStore
from mcpgate.testing.store_contract import DurableStoreContract, make_record


class SQLiteStoreOnThreadTests(DurableStoreContract, TestCase):
    """`SQLiteStore` keeps the contract with a thread of its own."""

    def setUp(self) -> None:
        """Choose a file."""
        self.path = Path(self.mktemp()) / "sessions.sqlite"

    def open_store(self) -> SQLiteStore:
        """Open it on the running reactor."""
        from twisted.internet import reactor  # noqa: TID251 - the real one is what is tested

        thread = OneThread(reactor.callFromThread, "sessions")  # type: ignore[attr-defined]  # a module
        return SQLiteStore(reactor, thread, self.path)

    async def test_written_by_itself(self) -> None:
        """What was put reaches the file without anybody flushing."""
        from twisted.internet import reactor  # noqa: TID251 - the real one is what is tested

        store = self.open_store()
        await store.load()
        store.put(make_record(1))
        while len(store):
            await deferLater(reactor, 0.02)
        await store.flush()
        self.assertIn(b"session-1", b"".join(p.read_bytes() for p in self.path.parent.iterdir()))
        await store.close()
