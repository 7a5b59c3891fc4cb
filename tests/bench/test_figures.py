"""Tests of what is made of figures: medians, ratios, the file of results, verdicts, drawings."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from bench import page
from bench.cases.every import CASES
from bench.lab import plot, store, tables, targets
from bench.lab.figures import Outcome
from bench.lab.lab import GATE
from bench.lab.profile import shares, summary

_MACHINE = ("cores", "processor", "memory_gib", "system", "python", "openssl")


def relay(gate: list[float], nginx: list[float]) -> Outcome:
    """Make an outcome of the relay."""
    outcome = Outcome("relay")
    for ours, theirs in zip(gate, nginx, strict=True):
        outcome.add("32 connections", GATE, rate=ours)
        outcome.add("32 connections", "nginx", rate=theirs)
    outcome.fail("32 connections", "HAProxy", "haproxy is not installed")
    return outcome


class OutcomeTests(SynchronousTestCase):
    """`Outcome`."""

    def test_ratio_of_each_round(self) -> None:
        """A ratio is taken within rounds: a machine that slows down does not change it."""
        outcome = relay([100.0, 10.0, 50.0], [200.0, 20.0, 100.0])
        self.assertEqual(outcome.ratio("32 connections", "rate", GATE, "nginx"), 0.5)
        self.assertEqual(outcome.median("32 connections", GATE, "rate"), 50.0)

    def test_nothing_measured(self) -> None:
        """What was not measured has neither median nor ratio."""
        outcome = relay([], [])
        self.assertIsNone(outcome.ratio("32 connections", "rate", GATE, "nginx"))
        self.assertIsNone(outcome.median("other work", GATE, "rate"))
        self.assertFalse(outcome.has("other work", GATE))

    def test_json(self) -> None:
        """An outcome that was written is read as it was."""
        outcome = relay([100.0, 10.0], [200.0, 20.0])
        outcome.note("scaled down")
        told = json.loads(json.dumps(outcome.to_json()))
        self.assertEqual(Outcome.from_json("relay", told), outcome)


class StoreTests(SynchronousTestCase):
    """`store`."""

    @override
    def setUp(self) -> None:
        self.file = Path(self.mktemp()) / "results.json"

    def test_merged(self) -> None:
        """A case takes the place of its last run, others stay; cases stand in their order."""
        order = ["relay", "stdio"]
        store.merge(self.file, Outcome("stdio"), order)
        store.merge(self.file, relay([1.0], [2.0]), order)
        store.merge(self.file, relay([3.0], [4.0]), order)
        found = store.read(self.file)
        self.assertEqual(list(found), order)
        self.assertEqual(found["relay"].median("32 connections", GATE, "rate"), 3.0)
        self.assertEqual([path.name for path in self.file.parent.iterdir()], ["results.json"])

    def test_profiled(self) -> None:
        """A profile goes beside the figures of the run before, and stays when they are new."""
        store.merge(self.file, relay([1.0], [2.0]), ["relay"])
        looked_into = relay([0.1], [2.0])
        looked_into.profiles = [{"of": "the time", "rooms": [["mcpgate/web", 1.0]]}]
        store.merge(self.file, looked_into, ["relay"])
        for rate in (1.0, 3.0):
            found = store.read(self.file)["relay"]
            self.assertEqual(found.median("32 connections", GATE, "rate"), rate)
            self.assertEqual(found.profiles, looked_into.profiles)
            store.merge(self.file, relay([3.0], [4.0]), ["relay"])

    def test_none_yet(self) -> None:
        """Without a file there are no results."""
        self.assertEqual(store.read(self.file), {})


class TargetTests(SynchronousTestCase):
    """`targets`."""

    def verdict(self, **outcomes: Outcome) -> targets.Verdict:
        """Judge the first target, of the relay against nginx."""
        return targets.judge(outcomes)[0]

    def test_verdicts(self) -> None:
        """A target is met, missed, or was not measured, with the reason."""
        self.assertIs(self.verdict(relay=relay([60.0], [100.0])).met, True)
        missed = self.verdict(relay=relay([40.0], [100.0]))
        self.assertEqual((missed.met, missed.value), (False, "0.4"))
        self.assertIsNone(self.verdict().met)
        skipped = Outcome("relay", skipped="no machine")
        self.assertEqual(self.verdict(relay=skipped).value, "no machine")

    def test_cases_exist(self) -> None:
        """Every target names a case there is."""
        names = {case.name for case in CASES}
        self.assertEqual({target.case for target in targets.TARGETS} - names, set())

    def test_best_peer(self) -> None:
        """The gate is held against the fastest of its peers."""
        outcome = Outcome("stdio")
        for name, rate in ((GATE, 9.0), ("FastMCP", 1.0), ("supergateway", 3.0)):
            outcome.add("32 clients", name, rate=rate, p99_ms=1 / rate)
        found = {v.target.work: v for v in targets.judge({"stdio": outcome})}
        verdict = found["tools/call, shared stdio server, 32 clients"]
        self.assertEqual((verdict.value, verdict.met), ("3", True))


class ShownTests(SynchronousTestCase):
    """Tables and drawings."""

    def test_text(self) -> None:
        """Each contender has a row, and who has no figures has the reason."""
        text = tables.text(relay([1000.0], [2000.0]), "a title")
        self.assertIn("mcpgate  1 000", text)
        self.assertIn("HAProxy: not run: haproxy is not installed", text)
        skipped = tables.text(Outcome("relay", skipped="no machine"), "a title")
        self.assertIn("not run: no machine", skipped)

    def test_drawing(self) -> None:
        """The fastest has the longest bar; without figures there is no drawing."""
        drawing = plot.draw({"relay": relay([1000.0], [2000.0])})
        self.assertLess(drawing.index("nginx"), drawing.index(">mcpgate<"))
        self.assertEqual(plot.draw({"relay": relay([], [])}), "")

    def test_profile(self) -> None:
        """Stacks of the main thread are added up; other threads are left out."""
        stacks = (
            'thread (1): "MainThread";run (a.py);read (/x/site-packages/twisted/tcp.py) 3\n'
            'thread (1): "MainThread";run (a.py) 1\n'
            'thread (2): "Spool";wait (threading.py) 9\n'
        )
        text = summary(stacks)
        self.assertIn("4 samples", text)
        self.assertIn(" 75.0%  75.0%  read (twisted/tcp.py)", text)
        self.assertIn(" 25.0% 100.0%  run (a.py)", text)
        self.assertNotIn("threading", text)
        self.assertEqual(
            shares(stacks),
            {
                "rooms": [["twisted/tcp.py", 0.75], ["a.py", 0.25]],
                "functions": [["read (twisted/tcp.py)", 0.75], ["run (a.py)", 0.25]],
            },
        )

    def test_missed(self) -> None:
        """What missed its target has beside it where the time goes; what met it has not."""
        outcome = relay([100.0], [1000.0])
        outcome.about = {"machine": dict.fromkeys(_MACHINE, "x"), "date": "2026-01-01"}
        outcome.profiles = [
            {"of": "the time", "rooms": [["mcpgate/web", 0.25]]},
            {"of": "memory", "kind": "memory", "rooms": [["twisted", 0.5]]},
        ]
        text = page.render({"cases": {"relay": outcome.to_json()}})
        self.assertIn("relay: what was missed", text)
        self.assertIn("``mcpgate/web``\n     - 25.0%", text)
        self.assertNotIn("``twisted``", text)
        outcome.row("32 connections", GATE).figures["rate"] = [900.0]
        self.assertNotIn("what was missed", page.render({"cases": {"relay": outcome.to_json()}}))
