"""Tests of mcpgate.config.problems."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.problems import ConfigError, Problem, nearest, suggestion


class ProblemTests(SynchronousTestCase):
    """How a problem reads."""

    def test_whole(self) -> None:
        """Place, key, value, what is wrong and the remedy stand on one line."""
        problem = Problem(
            file="gate.ini",
            line=3,
            section="gate",
            key="sweep",
            value="60",
            text="no unit",
            remedy="write 60s",
        )
        self.assertEqual(str(problem), "gate.ini:3: [gate] sweep = 60: no unit. Write 60s.")

    def test_parts_may_be_missing(self) -> None:
        """A problem of the whole file names the file only."""
        self.assertEqual(str(Problem(file="a", text="gone")), "a: gone.")
        self.assertEqual(
            str(Problem(file="a", section="gate", text="x", remedy="Is it?")),
            "a: [gate]: x. Is it?",
        )

    def test_wild_values(self) -> None:
        """Control characters and long values can not disturb a terminal or a log."""
        shown = str(
            Problem(
                file="a",
                line=1,
                section="s\n",
                key="k",
                value="\x1b[31m\n\u2028" + "x" * 999,
                text="t",
            )
        )
        self.assertEqual(len(shown.splitlines()), 1)
        self.assertTrue(shown.isprintable())
        self.assertLess(len(shown), 200)


class ConfigErrorTests(SynchronousTestCase):
    """The report."""

    def test_sorted_and_bounded(self) -> None:
        """Problems come in the order of the file, and a flood of them is cut."""
        error = ConfigError(Problem(file="a", line=line, text="x") for line in range(150, 0, -1))
        lines = str(error).splitlines()
        self.assertEqual(lines[0], "a:1: x.")
        self.assertEqual(lines[-1], "... and 50 more")
        self.assertEqual(len(error.problems), 150)


class SuggestionTests(SynchronousTestCase):
    """Nearest names."""

    def test_nearest(self) -> None:
        """A slip of the finger is understood, something else is answered with what there is."""
        self.assertEqual(nearest("Listn", ["listen", "sweep"]), "listen")
        self.assertIsNone(nearest("zzz", ["listen"]))
        self.assertEqual(suggestion("listn", ["listen"]), "Did you mean listen?")
        self.assertEqual(suggestion("zzz", ["a", "b"]), "Known: a, b")
        self.assertEqual(suggestion("zzz", []), "")
