"""Where instances keep files."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import InstanceKey, Isolation, Owner
from mcpgate.runtime.places import Places, Record, remove_tree

KEY = InstanceKey("toy", Owner(Isolation.PER_KEY, "ab" * 16))
SESSION = InstanceKey("toy", Owner(Isolation.PER_SESSION, "ab" * 16 + "/" + "cd" * 16))


class PlacesTests(SynchronousTestCase):
    """Folders, files and records."""

    def setUp(self) -> None:
        """Use a folder of trial's."""
        self.root = Path(self.mktemp()).absolute()
        self.places = Places(str(self.root))

    def test_folders(self) -> None:
        """Each start has a folder of its own, each owner one that stays; all are private."""
        files, tmp, data = self.places.make("i1", KEY)
        parents = [str(Path(folder).parent) for folder in (files, data)]
        for folder in (files, tmp, data, *parents, str(Path(parents[1]).parent)):
            self.assertEqual(os.stat(folder).st_mode & 0o777, 0o700)
        self.assertEqual(self.places.make("i2", KEY)[2], data)
        self.assertTrue(data.endswith("toy/" + "ab" * 16))

    def test_owner_folders(self) -> None:
        """A session's folder is one name deep, that of all is called shared."""
        self.assertEqual(Path(self.places.data_dir(SESSION)).parent.name, "toy")
        shared = InstanceKey("toy", Owner(Isolation.SHARED))
        self.assertEqual(Path(self.places.data_dir(shared)).name, "shared")

    def test_homes_of_nobody(self) -> None:
        """Folders of spare copies are found again, those of owners are not."""
        self.assertEqual(self.places.of_nobody(), [])
        nobody = InstanceKey("toy", Owner.nobody(Isolation.PER_KEY, "7f"))
        for number, key in enumerate((KEY, SESSION, nobody)):
            self.places.make(f"i{number}", key)
        self.assertEqual(self.places.of_nobody(), [self.places.data_dir(nobody)])

    def test_an_id_is_used_once(self) -> None:
        """Two starts never share a folder."""
        self.places.make("i1", KEY)
        with self.assertRaises(FileExistsError):
            self.places.make("i1", KEY)

    def test_files_stay_inside(self) -> None:
        """No file name leads out of the folder."""
        files = self.places.make("i1", KEY)[0]
        self.places.write_file(files, "a/b.txt", "text")
        self.assertEqual(Path(files, "a", "b.txt").read_text(), "text")
        for name in ("../x", "/etc/x", "a/../../x", ".", ""):
            with self.assertRaises(ValueError):
                self.places.write_file(files, name, "text")

    def test_records(self) -> None:
        """What was written down is found again; what is broken is found as such."""
        self.assertEqual(self.places.records(), {})
        self.places.make("i1", KEY)
        self.places.make("i2", KEY)
        record = Record(session=12, started=345, boot_id="boot")
        self.places.write_record("i1", record)
        self.assertEqual(self.places.records(), {"i1": record, "i2": None})

    def test_leftovers(self) -> None:
        """A user's data stays, a session's goes."""
        self.assertEqual(self.places.leftovers(KEY), [])
        self.assertEqual(self.places.leftovers(SESSION), [self.places.data_dir(SESSION)])

    def test_remove_tree(self) -> None:
        """Folders a server closed to itself go too; what links point to stays."""
        keep = self.root / "keep"
        keep.mkdir(parents=True)
        tree = self.root / "tree"
        (tree / "closed" / "deep").mkdir(parents=True)
        (tree / "closed" / "deep" / "file").write_text("x")
        (tree / "link").symlink_to(keep)
        (tree / "closed").chmod(0o500)
        remove_tree(str(tree))
        self.assertFalse(tree.exists())
        self.assertTrue(keep.exists())
        remove_tree(str(tree))


class DataTests(SynchronousTestCase):
    """`Places.data_of`."""

    def test_data_of(self) -> None:
        """Data is found by an owner's label, by more digits, and what is shared by its word."""
        folder = Path(self.mktemp())
        places = Places(str(folder))
        self.assertEqual(places.data_of("shared"), [])
        for server, owner in (("a", "ab" * 16), ("b", "ab" * 16), ("b", "shared"), ("b", "cd")):
            (folder / "data" / server / owner).mkdir(parents=True)
        self.assertEqual([server for server, _ in places.data_of("abababab")], ["a", "b"])
        self.assertEqual([server for server, _ in places.data_of("shared")], ["b"])
        self.assertEqual(places.data_of("abab"), [])
        self.assertEqual(places.data_of(""), [])
