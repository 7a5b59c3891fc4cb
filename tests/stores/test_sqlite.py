"""Tests of sessions in a file: batches, bad files, full disks."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mcpgate.model import Principal, SessionKey
from mcpgate.stores import sqlite as sqlite_store
from mcpgate.stores.session_file import SCHEMA_VERSION, Row, SessionFile, record_of, row_of
from mcpgate.stores.sqlite import BATCH_S, CLOSE_S, RETRY_S, OneThread, SQLiteStore
from mcpgate.testing.store_contract import DurableStoreContract, make_record
from tests.stores.blocking import ImmediateThread


class SQLiteStoreContractTests(DurableStoreContract, TestCase):
    """`SQLiteStore` keeps the contract."""

    def setUp(self) -> None:
        """Choose a file of our own."""
        self.path = Path(self.mktemp()) / "sessions.sqlite"

    def open_store(self) -> SQLiteStore:
        """Open the file."""
        return SQLiteStore(Clock(), ImmediateThread(), self.path)


class StoreCase(SynchronousTestCase):
    """A store on a file of its own, a clock and a thread under control."""

    def setUp(self) -> None:
        """Open a store."""
        self.path = Path(self.mktemp()) / "sessions.sqlite"
        self.clock = Clock()
        self.thread = ImmediateThread()
        self.store = self.open()

    def open(self, **options: float) -> SQLiteStore:
        """Open another store on the same file."""
        return SQLiteStore(self.clock, self.thread, self.path, **options)  # type: ignore[arg-type]  # only numbers

    def close(self) -> None:
        """Close, and see that nothing is left behind."""
        self.successResultOf(self.store.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def stored(self) -> list[str]:
        """Read the ids in the file, past the store."""
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute("SELECT session_id FROM sessions")]
        finally:
            connection.close()

    def names(self) -> list[str]:
        """List the files in the state directory."""
        return sorted(os.listdir(self.path.parent))


class WriteBehindTests(StoreCase):
    """When what is written."""

    def test_written_after_a_batch(self) -> None:
        """The first change is written at once, those of the next 100 ms together."""
        self.successResultOf(self.store.load())
        self.store.put(make_record(0))
        self.clock.advance(BATCH_S / 10)
        self.assertEqual(self.stored(), ["session-0"])
        self.store.put(make_record(1))
        self.clock.advance(BATCH_S / 2)
        self.store.put(make_record(2))
        self.assertEqual(self.stored(), ["session-0"])
        self.assertEqual(len(self.store), 2)
        self.clock.advance(BATCH_S / 2)
        self.assertEqual(self.stored(), ["session-0", "session-1", "session-2"])
        self.assertEqual(len(self.store), 0)
        self.close()

    def test_changes_of_one_session_are_joined(self) -> None:
        """A session that changes a hundred times in a batch is written once."""
        record = make_record()
        for number in range(100):
            record.last_used_at = float(number)
            self.store.put(record)
        self.assertEqual(len(self.store), 1)
        self.close()
        self.assertEqual(self.stored(), ["session-1"])

    def test_one_batch_at_a_time(self) -> None:
        """While the disk is slow changes wait, and are written after the batch under way."""
        self.thread.held = True
        self.store.put(make_record(1))
        self.clock.advance(BATCH_S)
        self.store.put(make_record(2))
        self.clock.advance(10 * BATCH_S)
        self.assertEqual(len(self.thread.waiting), 1)
        flushed = self.store.flush()
        self.assertNoResult(flushed)
        self.thread.let_go()
        self.successResultOf(flushed)
        self.assertEqual(self.stored(), ["session-1", "session-2"])
        self.close()

    def test_pending_timer_after_slow_batch(self) -> None:
        """What changed during a slow batch is written one batch later."""
        self.thread.held = True
        self.store.put(make_record(1))
        self.clock.advance(BATCH_S)
        self.store.put(make_record(2))
        self.thread.let_go()
        self.assertEqual(self.stored(), ["session-1"])
        self.clock.advance(BATCH_S)
        self.assertEqual(self.stored(), ["session-1", "session-2"])
        self.close()

    def test_many_at_once(self) -> None:
        """Are written in batches of bounded size, one right after the other."""
        self.patch(sqlite_store, "BATCH_ROWS", 10)
        for number in range(25):
            self.store.put(make_record(number))
        sizes: list[int] = []
        write = SessionFile.write

        def noted(file: SessionFile, puts: list[Row], deletes: list[SessionKey]) -> None:
            sizes.append(len(puts) + len(deletes))
            write(file, puts, deletes)

        self.patch(SessionFile, "write", noted)
        self.clock.advance(BATCH_S)
        self.assertEqual((sizes, len(self.stored()), len(self.store)), ([10, 10, 5], 25, 0))
        for number in range(25):
            self.store.delete(make_record(number).key)
        self.successResultOf(self.store.flush())
        self.assertEqual((self.stored(), len(self.store)), ([], 0))
        self.close()

    def test_many_who_want_it_written(self) -> None:
        """Still there is one batch at a time, and each hears when it is done."""
        self.patch(sqlite_store, "BATCH_ROWS", 3)
        for number in range(10):
            self.store.put(make_record(number))
        self.thread.held = True
        self.clock.advance(BATCH_S)
        flushed = [self.store.flush() for _ in range(3)]
        batches = 0
        while self.thread.waiting:
            self.assertEqual(len(self.thread.waiting), 1)
            result, work = self.thread.waiting.pop()
            execute(work).chainDeferred(result)
            batches += 1
        self.assertEqual((batches, len(self.store)), (4, 0))
        for one in flushed:
            self.successResultOf(one)
        self.thread.held = False
        self.close()

    def test_hanging_disk_does_not_hold_up_the_end(self) -> None:
        """Closing gives a dead disk five seconds, says what is lost, and goes on."""
        self.thread.held = True
        self.store.put(make_record(1))
        closed = self.store.close()
        self.assertNoResult(closed)
        self.clock.advance(CLOSE_S)
        self.successResultOf(closed)
        self.assertEqual(self.thread.stopped, 1)
        self.thread.let_go()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_private_file(self) -> None:
        """Only the gate's user may read the file, however it was made before."""
        self.successResultOf(self.store.load())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.close()
        self.path.chmod(0o644)
        self.store = self.open()
        self.store.put(make_record())
        self.successResultOf(self.store.flush())
        for name in self.names():
            mode = stat.S_IMODE((self.path.parent / name).stat().st_mode)
            self.assertEqual(mode, 0o600, name)
        self.close()

    def test_deleted_id_is_not_in_the_file(self) -> None:
        """The id of an ended session does not linger in the file's free space."""
        self.store.put(make_record(77))
        self.successResultOf(self.store.flush())
        self.store.delete(make_record(77).key)
        self.close()
        self.assertNotIn(b"session-77", self.path.read_bytes())


class BadFileTests(StoreCase):
    """Files that are not what they should be are moved aside, never destroyed."""

    def assert_fresh(self) -> None:
        """The store works on a new file, and the old one is still there."""
        self.assertEqual(self.successResultOf(self.store.load()), [])
        self.store.put(make_record(1))
        self.close()
        self.assertEqual(self.stored(), ["session-1"])
        self.assertIn("sessions.sqlite.aside-1", self.names())

    def put_in_place(self, content: bytes) -> None:
        """Write a file where the store will look."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)

    def test_not_a_database(self) -> None:
        """A text file is moved aside whole."""
        self.put_in_place(b"something else entirely\n" * 200)
        self.assert_fresh()
        aside = self.path.with_name("sessions.sqlite.aside-1")
        self.assertTrue(aside.read_bytes().startswith(b"something else"))

    def test_names_of_moved_files_do_not_collide(self) -> None:
        """The second bad file does not replace the first."""
        for _ in range(2):
            self.put_in_place(b"something else entirely\n" * 200)
            self.store = self.open()
            self.successResultOf(self.store.load())
            self.close()
        self.assertIn("sessions.sqlite.aside-2", self.names())

    def test_truncated(self) -> None:
        """A file cut off by a crash of the machine is moved aside."""
        for number in range(200):
            self.store.put(make_record(number))
        self.close()
        content = self.path.read_bytes()
        self.path.write_bytes(content[: len(content) // 2])
        self.store = self.open()
        self.assert_fresh()

    def test_scribbled_over(self) -> None:
        """A file with a damaged page is moved aside."""
        for number in range(200):
            self.store.put(make_record(number))
        self.close()
        content = bytearray(self.path.read_bytes())
        content[4096 : len(content)] = b"\xa5" * (len(content) - 4096)
        self.path.write_bytes(content)
        self.store = self.open()
        self.assert_fresh()

    def test_database_of_another_program(self) -> None:
        """A database that is not ours is moved aside."""
        self.path.parent.mkdir(parents=True)
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE sessions (secret TEXT)")
        connection.close()
        self.assert_fresh()

    def test_database_of_another_program_at_first_write(self) -> None:
        """The same holds when nothing was loaded before."""
        self.path.parent.mkdir(parents=True)
        connection = sqlite3.connect(self.path)
        connection.execute("CREATE TABLE sessions (secret TEXT)")
        connection.close()
        self.store.put(make_record(1))
        self.close()
        self.assertEqual(self.stored(), ["session-1"])

    def change(self, statement: str) -> None:
        """Make a good file, then change it."""
        self.store.put(make_record(1))
        self.close()
        connection = sqlite3.connect(self.path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        self.store = self.open()

    def test_newer_schema(self) -> None:
        """The file of a newer gate is kept for it."""
        self.change(f"UPDATE schema SET version = {SCHEMA_VERSION + 1}")
        self.assert_fresh()

    def test_no_schema_version(self) -> None:
        """A file that lost its version is moved aside."""
        self.change("DELETE FROM schema")
        self.assert_fresh()

    def test_no_schema_table(self) -> None:
        """A file that lost the table of its version is moved aside."""
        self.change("DROP TABLE schema")
        self.assert_fresh()

    def test_unreadable_row(self) -> None:
        """One session that can not be read does not lose the others."""
        self.store.put(make_record(2))
        self.change("UPDATE sessions SET subscriptions = '{' WHERE session_id = 'session-1'")
        loaded = self.successResultOf(self.store.load())
        self.assertEqual([record.key.session_id for record in loaded], ["session-2"])
        self.close()

    def test_rows_of_wrong_shape(self) -> None:
        """Columns of wrong types are told from good ones."""
        good = row_of(make_record())
        self.assertEqual(record_of(good), make_record())
        for column in range(len(good)):
            bad: Row = (*good[:column], b"?" if column != 5 else "?", *good[column + 1 :])
            with self.assertRaises(ValueError):
                record_of(bad)
        with self.assertRaises(ValueError):
            record_of((*good[:-1], "1"))

    def test_damaged_while_in_use(self) -> None:
        """A file that breaks under the gate's hands is replaced; what changes next is kept."""
        self.store.put(make_record(1))
        self.successResultOf(self.store.flush())
        real = SessionFile.write
        damage = sqlite3.DatabaseError("malformed")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        calls: list[int] = []

        def write(file: SessionFile, puts: list[Row], deletes: list[SessionKey]) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise damage
            real(file, puts, deletes)

        self.patch(SessionFile, "write", write)
        self.store.put(make_record(2))
        self.close()
        self.assertEqual(self.stored(), ["session-2"])
        self.assertIn("sessions.sqlite.aside-1", self.names())


class OutageTests(StoreCase):
    """Disks that are full, read-only or gone (R56)."""

    def outage(self) -> None:
        """Make every write fail as on a full disk."""

        def write(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        self.patch(SessionFile, "write", write)

    def test_full_disk_and_recovery(self) -> None:
        """Nothing is lost on a full disk: it is written once there is room, newest state."""
        real = SessionFile.write
        self.outage()
        self.store.put(make_record(1))
        self.clock.advance(BATCH_S)
        self.assertIn("full", self.store.degraded)
        record = make_record(1)
        record.server = "newer"
        self.store.put(record)
        self.store.put(make_record(2))
        self.clock.advance(BATCH_S)
        self.patch(SessionFile, "write", real)
        self.clock.advance(RETRY_S)
        self.assertEqual(self.store.degraded, "")
        loaded = self.successResultOf(self.store.load())
        self.assertEqual(sorted(r.server for r in loaded), ["files", "newer"])
        self.close()

    def test_really_full(self) -> None:
        """SQLite's own report of a full disk leaves a file that is whole."""
        self.store.put(make_record(1))
        self.successResultOf(self.store.flush())
        connection = self.store._file._connection
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(2, 300):
            self.store.put(make_record(number))
        self.successResultOf(self.store.flush())
        self.assertIn("full", self.store.degraded)
        self.assertEqual(self.stored(), ["session-1"])
        connection.execute("PRAGMA max_page_count = 100000")
        self.clock.advance(RETRY_S)
        self.assertEqual(len(self.stored()), 299)
        self.close()

    def test_flush_and_close_do_not_wait_for_room(self) -> None:
        """With a full disk flushing and closing end after one try."""
        self.outage()
        self.patch(sqlite_store, "BATCH_ROWS", 10)
        for number in range(25):
            self.store.put(make_record(number))
        self.successResultOf(self.store.flush())
        self.assertEqual(len(self.store), 25)
        self.close()

    def test_said_once(self) -> None:
        """An outage of hours is one line in the log, and one when it is over."""
        said: list[str] = []
        self.patch(Logger, "error", lambda _, text, **fields: said.append(text))
        self.outage()
        self.store.put(make_record(1))
        self.clock.pump([RETRY_S] * 100)
        self.assertEqual(len(said), 1)
        self.close()

    def test_directory_can_not_be_made(self) -> None:
        """Where no file can be, the gate starts with no sessions and works on."""
        self.path.parent.write_text("a file where the directory should be")
        self.assertEqual(self.successResultOf(self.store.load()), [])
        self.assertTrue(self.store.degraded)
        self.store.put(make_record(1))
        self.successResultOf(self.store.flush())
        self.close()

    def test_link_is_refused(self) -> None:
        """A symbolic link in place of the file is not followed."""
        self.path.parent.mkdir(parents=True)
        target = self.path.parent / "precious"
        self.path.symlink_to(target)
        self.successResultOf(self.store.load())
        self.assertTrue(self.store.degraded)
        self.assertFalse(target.exists())
        self.close()

    def test_locked(self) -> None:
        """A file another program holds is left alone and tried again; loading is empty."""
        self.store.put(make_record(1))
        self.successResultOf(self.store.flush())

        def fetch(_: SessionFile) -> None:
            raise sqlite3.OperationalError("database is locked")

        self.patch(SessionFile, "_open", fetch)
        self.assertEqual(self.successResultOf(self.store.load()), [])
        self.assertIn("locked", self.store.degraded)
        self.close()
        self.assertNotIn("sessions.sqlite.aside-1", self.names())

    def test_waiting_changes_are_bounded(self) -> None:
        """A long outage does not fill the memory: the oldest changes are given up."""
        self.store = self.open(limit=10)
        self.outage()
        for number in range(30):
            self.store.put(make_record(number))
        self.assertEqual(len(self.store), 10)
        self.successResultOf(self.store.flush())
        for number in range(30, 35):
            self.store.put(make_record(number))
        self.assertEqual(len(self.store), 10)
        self.close()

    def test_bug_in_writing(self) -> None:
        """A bug is logged with its traceback, and the writing tried again."""

        def write(*_: object) -> None:
            raise TypeError("a bug")

        self.patch(SessionFile, "write", write)
        self.store.put(make_record(1))
        self.clock.advance(BATCH_S)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.patch(SessionFile, "write", lambda *_: None)
        self.close()

    def test_close_fails(self) -> None:
        """A file that can not be closed is logged; the gate ends all the same."""

        def close(*_: object) -> None:
            raise sqlite3.OperationalError("unable to close")

        self.patch(SessionFile, "close", close)
        self.close()
        self.assertEqual(self.thread.stopped, 1)

    def test_lone_surrogate(self) -> None:
        """A name that is no text is refused alone."""
        record = make_record(1)
        record.key = SessionKey(Principal("i", "\ud800", "0"), "s")
        self.store.put(record)
        self.assertEqual(len(self.store), 0)
        self.close()


class OneThreadTests(SynchronousTestCase):
    """The thread itself, without a reactor: answers are collected by hand."""

    def test_order_results_and_failures(self) -> None:
        """Work is done in order; results and exceptions come back through the reactor."""
        calls: list[tuple[object, ...]] = []
        thread = OneThread(lambda *call: calls.append(call), "test")
        good: Deferred[int] = thread.run(lambda: 1)
        bad: Deferred[float] = thread.run(lambda: 1 / 0)
        given_up: Deferred[int] = thread.run(lambda: 3)
        given_up.cancel()
        self.failureResultOf(given_up)
        thread.stop()
        thread._thread.join()
        self.assertNoResult(good)
        for fire, *arguments in calls:
            assert callable(fire)
            fire(*arguments)
        self.assertEqual(self.successResultOf(good), 1)
        failure: Failure = self.failureResultOf(bad, ZeroDivisionError)
        self.assertIsInstance(failure.value, ZeroDivisionError)
