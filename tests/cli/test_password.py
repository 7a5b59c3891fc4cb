"""Tests of hashing a password on the command line."""

from __future__ import annotations

import io
import sys

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli import make_parser, password
from mcpgate.web.pages.admin_access import AdminUsers


class PasswordTests(SynchronousTestCase):
    """``mcpgate password``."""

    def run_command(self, *argv: str, typed: str = "", asked: tuple[str, ...] = ()) -> int:
        """Run it with this standard input, or these answers at a terminal."""
        self.out, self.err, stdin = io.StringIO(), io.StringIO(), io.StringIO(typed)
        answers = iter(asked)
        self.patch(stdin, "isatty", lambda: bool(asked))
        self.patch(password, "getpass", lambda _: next(answers))
        for name, stream in (("stdin", stdin), ("stdout", self.out), ("stderr", self.err)):
            self.patch(sys, name, stream)
        arguments = make_parser().parse_args(["password", *argv])
        return int(arguments.run(arguments))

    def test_line_of_a_users_file(self) -> None:
        """What is printed is a line the gate reads, and holds no password."""
        self.assertEqual(self.run_command("--user", "ada", typed="s3cret p\u00e4ss\n"), 0)
        line = self.out.getvalue()
        self.assertNotIn("s3cret", line)
        self.assertTrue(AdminUsers.parse(line, b"p").check("ada", "s3cret p\u00e4ss"))

    def test_asked_twice(self) -> None:
        """At a terminal the password is asked for twice."""
        self.assertEqual(self.run_command(asked=("pw", "pw")), 0)
        users = AdminUsers({"ada": self.out.getvalue().strip()}, b"p")
        self.assertTrue(users.check("ada", "pw"))
        self.assertEqual(self.run_command(asked=("pw", "wp")), 2)
        self.assertIn("not the same", self.err.getvalue())

    def test_refused(self) -> None:
        """No password, one too long, or an impossible name: exit code 2."""
        for argv, typed in (
            ((), ""),
            ((), "\n"),
            ((), "x" * 2000),
            (("--user", "a:b"), "pw\n"),
            (("--user", "a\nb"), "pw\n"),
        ):
            self.assertEqual(self.run_command(*argv, typed=typed), 2)
            self.assertEqual(self.out.getvalue(), "")
