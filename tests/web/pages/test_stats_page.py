"""Tests of the page's pieces."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import EngineView, EraView, ImageView
from mcpgate.web.pages.admin import AdminView, statistics
from mcpgate.web.pages.stats_page import POLICY, duration, render_page, shown, size


class StatsPageTests(SynchronousTestCase):
    """`render_page` and what it is made of."""

    def test_empty_gate(self) -> None:
        """A gate nobody used yet has a page, too."""
        view = AdminView(version="1", started_at=0.0, wall=lambda: 1.0, meters=Meters())
        page = render_page(statistics(view)).decode()
        self.assertIn("None.", page)
        self.assertIn("Ready.", page)

    def test_containers(self) -> None:
        """Images and the engine are shown, and by server what became of its instances."""
        meters = Meters()
        meters.starts["files"] += 2
        meters.exits["files", "exited"] += 1
        meters.exits["other", "lost"] += 1
        view = AdminView(
            version="1",
            started_at=0.0,
            wall=lambda: 1.0,
            meters=meters,
            images=lambda: [ImageView(name="a:1", servers=("files",), state="pulling")],
            engine=lambda: EngineView(answering=False, waiting=1, calls={"timeout": 3}),
        )
        told = statistics(view)
        self.assertEqual(
            told["servers"],
            {
                "files": {"starts": 2, "cpu_s": 0.0, "oom_kills": 0, "exits": {"exited": 1}},
                "other": {"starts": 0, "cpu_s": 0.0, "oom_kills": 0, "exits": {"lost": 1}},
            },
        )
        page = render_page(told).decode()
        self.assertIn("The engine does not answer; calls: 3 timeout.", page)
        self.assertIn("<td>pulling</td>", page)

    def test_eras(self) -> None:
        """Of each server it is shown what it speaks, and since when that is known."""
        view = AdminView(
            version="1",
            started_at=0.0,
            wall=lambda: 1.0,
            meters=Meters(),
            eras=lambda: [
                EraView(server="new", era="modern", seen_at=86_400.0),
                EraView(server="set", era="dual", pinned=True),
                EraView(server="nobody-asked"),
            ],
        )
        page = render_page(statistics(view)).decode()
        self.assertIn("<td>new</td><td>modern</td><td>1970-01-02 00:00 UTC</td>", page)
        self.assertIn("<td>set</td><td>dual</td><td>configuration</td>", page)
        self.assertIn("<td>nobody-asked</td><td>unknown</td><td>-</td>", page)

    def test_style_is_the_one_allowed(self) -> None:
        """The policy's hash is that of the page's style."""
        view = AdminView(version="1", started_at=0.0, wall=lambda: 1.0, meters=Meters())
        page = render_page(statistics(view)).decode()
        (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
        digest = b64encode(sha256(style.encode()).digest()).decode()
        self.assertIn(f"'sha256-{digest}'", POLICY)
        self.assertNotIn("style=", page)

    def test_figures(self) -> None:
        """Sizes and times are written for people."""
        self.assertEqual(size(512), "512 B")
        self.assertEqual(size(3 * 1024**2), "3 MiB")
        self.assertEqual(size(5 * 1024**3), "5.0 GiB")
        self.assertEqual(size(None), "-")
        self.assertEqual(
            [duration(s) for s in (None, 59.9, 61, 7260, 90000)],
            ["-", "59 s", "1 min", "2 h 1 min", "1 d 1 h"],
        )

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(codec=None), max_size=300))
    def test_any_text(self, text: str) -> None:
        """Whatever a name holds, no tag, quote or control character of it reaches the page."""
        result = shown(text)
        self.assertTrue(result.isprintable())
        self.assertFalse(set(result) & set("<>\"'"))
