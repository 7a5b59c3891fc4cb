"""The state directory belongs to one gate at a time."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.service.state_dir import StateDir, StateDirError


class StateDirTests(SynchronousTestCase):
    """Making and locking it."""

    def test_made_for_us_alone(self) -> None:
        """A missing directory is made, with its parents, readable by nobody else."""
        path = Path(self.mktemp()) / "deep" / "state"
        state = StateDir(path)
        state.take()
        self.addCleanup(state.release)
        self.assertEqual(path.stat().st_mode & 0o777, 0o700)

    def test_second_gate_is_refused(self) -> None:
        """A gate that starts on the directory of a running one is told so; later it may."""
        path = Path(self.mktemp())
        first, second = StateDir(path), StateDir(path)
        first.take()
        error = self.assertRaises(StateDirError, second.take)
        self.assertIn("another gate runs on it", str(error))
        first.release()
        first.release()
        second.take()
        second.release()

    def test_unusable(self) -> None:
        """A path that can not be a directory is named, with what to do."""
        path = Path(self.mktemp())
        path.write_text("a file")
        error = self.assertRaises(StateDirError, StateDir(path / "state").take)
        self.assertIn(os.fspath(path), str(error))
        self.assertIn("Choose a directory", str(error))
