"""Tests of the store that forgets with the process."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from mcpgate.stores.memory import MemoryStore
from mcpgate.testing.store_contract import SessionStoreContract


class MemoryStoreTests(SessionStoreContract, TestCase):
    """`MemoryStore` keeps the contract."""

    def open_store(self) -> MemoryStore:
        """Make an empty one."""
        return MemoryStore()

    def test_never_degraded(self) -> None:
        """Memory has no disk that could be full."""
        self.assertEqual(MemoryStore().degraded, "")
