"""Tests of telling how far a pull is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import MIB
from mcpgate.runtime.docker.pulls import PullProgress


class ProgressTests(SynchronousTestCase):
    """`PullProgress`."""

    def test_a_pull(self) -> None:
        """Layers and bytes are added up, from the first word to the last."""
        pull = PullProgress()
        pull.step({"status": "Pulling from mcp/time", "id": "latest"})
        self.assertEqual((pull.text, pull.percent), ("Pulling from mcp/time", None))
        pull.step({"status": "Pulling fs layer", "id": "a"})
        pull.step({"status": "Already exists", "id": "b"})
        self.assertEqual(pull.text, "1 of 2 layers")
        half = {"current": MIB, "total": 2 * MIB}
        pull.step({"status": "Downloading", "id": "a", "progressDetail": half})
        self.assertEqual((pull.text, pull.percent), ("1 of 2 layers, 1.0 of 2.0 MiB", 50.0))
        pull.step({"status": "Download complete", "id": "a"})
        self.assertEqual(pull.percent, 100.0)
        pull.step({"status": "Pull complete", "id": "a"})
        pull.step({"status": "Digest: sha256:1"})
        self.assertEqual(pull.text, "2 of 2 layers, 2.0 of 2.0 MiB")

    def test_without_layers(self) -> None:
        """Words without a layer are told as they are, and no longer than they should be."""
        pull = PullProgress()
        pull.step({"status": "x" * 1000})
        self.assertEqual(pull.text, "x" * 200)

    def test_nonsense(self) -> None:
        """Numbers that are none count for nothing, and layers have an end."""
        pull = PullProgress()
        pull.step({"status": "Downloading", "id": "a", "progressDetail": {"current": "x"}})
        pull.step({"status": "Downloading", "id": "b", "progressDetail": None})
        self.assertEqual((pull.text, pull.percent), ("0 of 2 layers", None))
        for number in range(2000):
            pull.step({"status": "Waiting", "id": f"l{number}"})
        self.assertEqual(pull.text, "0 of 1000 layers")
