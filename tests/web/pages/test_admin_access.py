"""Tests of users, passwords and networks of the statistics."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import Secret
from mcpgate.web.pages import admin_access
from mcpgate.web.pages.admin_access import (
    AdminUsers,
    PasswordError,
    basic_credentials,
    hash_password,
)

SALT = bytes(range(16))


class AdminUsersTests(SynchronousTestCase):
    """`AdminUsers` and the hashes it reads."""

    def test_plain(self) -> None:
        """A password of the ini is compared whole, with its user."""
        users = AdminUsers({"ada": Secret("pw"), "bob": Secret("wp")}, b"p")
        self.assertTrue(users)
        self.assertTrue(users.check("ada", "pw"))
        for name, password in (("ada", "wp"), ("bob", "pw"), ("ada", ""), ("eve", "pw"), ("", "")):
            self.assertFalse(users.check(name, password))

    def test_nobody(self) -> None:
        """Without users nobody passes."""
        users = AdminUsers({}, b"p")
        self.assertFalse(users)
        self.assertFalse(users.check("", ""))

    def test_hashed(self) -> None:
        """A hashed password is checked slowly once and quickly from then on."""
        users = AdminUsers({"ada": hash_password("p\u00e4ss", SALT)}, b"p")
        real, calls = admin_access._scrypt, []

        def counted(password: str, salt: bytes, bits: int) -> bytes:
            calls.append(password)
            return real(password, salt, bits)

        self.patch(admin_access, "_scrypt", counted)
        self.assertFalse(users.check("ada", "wrong"))
        self.assertFalse(users.check("eve", "p\u00e4ss"))
        self.assertEqual(len(calls), 2)
        for _ in range(5):
            self.assertTrue(users.check("ada", "p\u00e4ss"))
        self.assertEqual(len(calls), 3)

    def test_remembered_are_bounded(self) -> None:
        """However many users there are, few passwords are remembered."""
        self.patch(admin_access, "_REMEMBERED", 1)
        users = AdminUsers({n: hash_password(n, SALT) for n in ("a", "b")}, b"p")
        for name in ("a", "b", "a"):
            self.assertTrue(users.check(name, name))
        self.assertEqual(len(users._right), 1)

    def test_file(self) -> None:
        """A users file holds one name and hash per line, and comments."""
        text = f"# admins\n\nada:{hash_password('pw', SALT)}\n  bob:{hash_password('x', SALT)}\n"
        users = AdminUsers.parse(text, b"p")
        self.assertTrue(users.check("ada", "pw"))
        self.assertTrue(users.check("bob", "x"))

    def test_bad_file(self) -> None:
        """A line that can not be read is named by its number, without what it holds."""
        good = hash_password("pw", SALT)
        for line in (
            *("ada", ":x", "ada:", "ada:canary", "ada:md5:13:00:00", f"ada:{good}:more"),
            *(f"ada:scrypt:x:{SALT.hex()}:00", f"ada:scrypt:13:zz:{'00' * 32}"),
            *(f"ada:scrypt:30:{SALT.hex()}:{'00' * 32}", f"ada:scrypt:13:00:{'00' * 32}"),
            f"ada:scrypt:13:{SALT.hex()}:00",
            f"one:{good}",
        ):
            with self.assertRaises(PasswordError) as caught:
                AdminUsers.parse(f"one:{good}\n{line}\n", b"p")
            self.assertTrue(str(caught.exception).startswith("line 2: "), line)
            self.assertNotIn("canary", str(caught.exception))

    def test_never_shown(self) -> None:
        """A hash is not in the repr of what was read from it."""
        users = AdminUsers({"ada": hash_password("pw", SALT)}, b"p")
        self.assertNotIn("digest", repr(users._hashes))


class BasicCredentialsTests(SynchronousTestCase):
    """Reading the Authorization field."""

    def test_read(self) -> None:
        """Name and password are split at the first colon; the scheme's case does not matter."""
        coded = b64encode("ada:p:\u00e4".encode()).decode()
        self.assertEqual(basic_credentials(f"bAsIc {coded}"), ("ada", "p:\u00e4"))

    def test_not_basic(self) -> None:
        """Anything else is none."""
        for value in (
            *(None, "", "Basic", "Bearer eDp5", "Basic !!!!", "Basic " + "A" * 5000),
            *("Basic " + b64encode(b"nocolon").decode(), "Basic " + b64encode(b"\xff:x").decode()),
        ):
            self.assertIsNone(basic_credentials(value), value)

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=100))
    def test_any(self, value: str) -> None:
        """No field makes the reading fail."""
        basic_credentials(value)
        basic_credentials("Basic " + value)
