"""What every `ISessionStore` must do, as tests to mix into a trial ``TestCase``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mcpgate.interfaces import ISessionStore
from mcpgate.model import Principal, SessionKey, SessionRecord

if TYPE_CHECKING:
    _Base = TestCase
else:
    _Base = object


def make_record(number: int = 1, *, subject: str = "ada") -> SessionRecord:
    """Make a record with every field filled; ``number`` makes the id."""
    return SessionRecord(
        key=SessionKey(Principal("keys", subject, f"{number:032x}"), f"session-{number}"),
        server="files",
        initialize_params=b'{"capabilities":{"roots":{}},"x":"\xc3\xa4\x00"}',
        revision="2025-06-18",
        created_at=1000.25,
        last_used_at=2000.5 + number,
        upstream_session="its-own",
        upstream_instance="i-1",
        initialized=True,
        id_returned=True,
        log_level="debug",
        subscriptions=("file:///a", "file:///\u00e4"),
    )


class SessionStoreContract(_Base):
    """
    Mix in before ``TestCase`` and define `open_store`.

    :cvar settle_s: how long the store under test may need per step, for trial's timeout.
    """

    open_store: Callable[[], ISessionStore]
    """Open the store over this test's own data; called again it gives a store over the same."""

    async def test_provides_the_interface(self) -> None:
        """The store has every method with the right arguments."""
        store = self.open_store()
        verifyObject(ISessionStore, store)
        await store.close()

    async def test_empty_at_first(self) -> None:
        """A new store remembers nothing."""
        store = self.open_store()
        self.assertEqual(await store.load(), [])
        await store.close()

    async def test_put_is_remembered_whole(self) -> None:
        """Every field of a record comes back as it was; what was used last comes last."""
        store = self.open_store()
        await store.load()
        store.put(make_record(2, subject="bob \U0001f600"))
        store.put(make_record(1))
        await store.flush()
        loaded = await store.load()
        self.assertEqual(loaded, [make_record(1), make_record(2, subject="bob \U0001f600")])
        await store.close()

    async def test_last_state_wins(self) -> None:
        """A record put twice is kept once, as it was put last."""
        store = self.open_store()
        await store.load()
        record = make_record()
        store.put(record)
        record.last_used_at = 9000.0
        record.log_level = ""
        store.put(record)
        await store.flush()
        (loaded,) = await store.load()
        self.assertEqual((loaded.last_used_at, loaded.log_level), (9000.0, ""))
        await store.close()

    async def test_put_keeps_that_moment(self) -> None:
        """A change of the record after it was put is not kept."""
        store = self.open_store()
        await store.load()
        record = make_record()
        store.put(record)
        record.server = "changed"
        await store.flush()
        (loaded,) = await store.load()
        self.assertEqual(loaded.server, "files")
        loaded.server = "changed, too"
        (again,) = await store.load()
        self.assertEqual(again.server, "files")
        await store.close()

    async def test_same_id_of_two_principals(self) -> None:
        """Two principals never share a record, even with the same session id."""
        store = self.open_store()
        await store.load()
        mine, other = make_record(1), make_record(2)
        other.key = SessionKey(other.key.principal, mine.key.session_id)
        store.put(mine)
        store.put(other)
        store.delete(mine.key)
        await store.flush()
        self.assertEqual([record.key for record in await store.load()], [other.key])
        await store.close()

    async def test_deleted_is_forgotten(self) -> None:
        """A deleted record is gone; deleting an unknown one does nothing."""
        store = self.open_store()
        await store.load()
        store.put(make_record(1))
        await store.flush()
        store.delete(make_record(1).key)
        store.delete(make_record(7).key)
        await store.flush()
        self.assertEqual(await store.load(), [])
        await store.close()

    async def test_delete_after_put_before_flush(self) -> None:
        """The order of changes counts, not when they are written."""
        store = self.open_store()
        await store.load()
        store.put(make_record(1))
        store.delete(make_record(1).key)
        store.delete(make_record(2).key)
        store.put(make_record(2))
        await store.flush()
        self.assertEqual([r.key for r in await store.load()], [make_record(2).key])
        await store.close()

    async def test_unreadable_text_harms_nobody_else(self) -> None:
        """A record that can not be stored does not keep others from being stored."""
        store = self.open_store()
        await store.load()
        store.put(make_record(1, subject="\udcff"))
        store.put(make_record(2))
        await store.flush()
        self.assertIn(make_record(2).key, [record.key for record in await store.load()])
        await store.close()
        if hasattr(self, "flushLoggedErrors"):
            self.flushLoggedErrors()

    async def test_flush_of_nothing(self) -> None:
        """Flushing an unchanged store is done at once."""
        store = self.open_store()
        await store.load()
        await store.flush()
        await store.close()

    async def test_close_is_idempotent_and_final(self) -> None:
        """A store may be closed twice; what is put after that is ignored."""
        store = self.open_store()
        await store.load()
        await store.close()
        store.put(make_record())
        store.delete(make_record().key)
        await store.close()


class DurableStoreContract(SessionStoreContract):
    """The same, and what was flushed or closed is there for the next process."""

    async def test_survives_closing(self) -> None:
        """What was put before closing is loaded by the next store."""
        store = self.open_store()
        await store.load()
        store.put(make_record(1))
        store.put(make_record(2))
        store.delete(make_record(1).key)
        await store.close()
        store = self.open_store()
        self.assertEqual(await store.load(), [make_record(2)])
        await store.close()

    async def test_ten_thousand(self) -> None:
        """Ten thousand sessions are kept and found again."""
        store = self.open_store()
        await store.load()
        for number in range(10_000):
            store.put(make_record(number))
        await store.close()
        store = self.open_store()
        self.assertEqual(len(await store.load()), 10_000)
        await store.close()
