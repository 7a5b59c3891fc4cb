"""Tests of mcpgate.stores.document_files."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.stores.document_files import DocumentFiles, Origin

ORIGIN = Origin(url="https://h/o.json", digest="d", etag='"1"', modified="then", fetched_at=5.0)
DOCUMENT = {"openapi": "3.1.0", "info": {"title": "P\u00e9ts \ud800"}}


class DocumentFilesTests(SynchronousTestCase):
    """A folder of documents."""

    def setUp(self) -> None:
        """Choose it."""
        self.folder = Path(self.mktemp()) / "openapi"
        self.folder.parent.mkdir()
        self.files = DocumentFiles(self.folder)

    def test_kept(self) -> None:
        """What was written is read again, as it was, by us alone."""
        self.assertIsNone(self.files.read("pets"))
        self.files.tidy(["pets"])
        self.files.write("pets", ORIGIN, DOCUMENT)
        self.assertEqual(self.files.read("pets"), (ORIGIN, DOCUMENT))
        self.assertEqual((self.folder / "pets.json").stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)

    def test_damaged(self) -> None:
        """What can not be read is passed over."""
        self.folder.mkdir()
        for data in (b"", b"{}\n{}", b'{"url": 1}\n[]', b"\xff\n{}", b'{"x": 1}\n{}', b"3\n{}"):
            (self.folder / "pets.json").write_bytes(data)
            self.assertIsNone(self.files.read("pets"), data)
        (self.folder / "dir.json").mkdir()
        self.assertIsNone(self.files.read("dir"))

    def test_tidy(self) -> None:
        """Documents of servers that are gone go as well, and what a crash left."""
        for name in ("pets", "gone"):
            self.files.write(name, ORIGIN, DOCUMENT)
        (self.folder / "pets.json.new").write_bytes(b"half")
        self.files.tidy(["pets"])
        self.assertEqual([path.name for path in self.folder.iterdir()], ["pets.json"])
