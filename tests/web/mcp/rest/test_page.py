"""Tests of mcpgate.web.mcp.rest.page."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.web.mcp.rest.page import render

EVIL = "<img src=x onerror=alert(1)>"


class PageTests(SynchronousTestCase):
    """The tools of a server for people."""

    def test_escaped(self) -> None:
        """Whatever a server calls its tools, the page holds no markup of it."""
        tool = {"name": EVIL, "description": EVIL, "inputSchema": {"title": EVIL}}
        page = render(EVIL, f"https://h/{EVIL}", [tool, {"name": 7}]).decode()
        self.assertNotIn("<img", page)
        self.assertIn("&lt;img src=x onerror=alert(1)&gt;", page)
        self.assertNotIn("<script", page)

    def test_shown(self) -> None:
        """Path, text and schemas of a tool are shown, lines as they are."""
        tool = {
            "name": "add",
            "description": "One\nTwo\x07",
            "inputSchema": {"type": "object"},
            "outputSchema": {"type": "string"},
        }
        page = render("notes", "https://h/notes", [tool]).decode()
        self.assertIn("POST https://h/notes/tools/add", page)
        self.assertIn("One\nTwo\\x07", page)
        self.assertIn("Answer<pre>", page)

    def test_bounded(self) -> None:
        """Of very many tools it says how many are not shown."""
        page = render("notes", "/notes", [{"name": f"t{n}"} for n in range(100)], limit=500)
        self.assertRegex(page.decode(), r"9\d more tools are not shown")
        self.assertLess(len(page), 2000)
