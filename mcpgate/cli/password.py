"""``mcpgate password``: hash a password for ``[admin] password_hash`` or ``users_file``."""

from __future__ import annotations

import argparse
import secrets
import sys
from getpass import getpass
from typing import Any

from mcpgate.web.pages.admin_access import hash_password

_LONGEST = 1024


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "password",
        help="hash a password for the statistics pages",
        description="Read a password (one line of standard input, or asked for twice) and print "
        "its hash, for password_hash or, with --user, as a line of users_file in [admin].",
    )
    parser.add_argument("--user", default="", metavar="NAME", help="print NAME:HASH")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the hash and give 0; 2 when there is no password or it can not be used."""
    if ":" in arguments.user or not arguments.user.isprintable():
        return _refuse("a user's name holds no colon and no control character")
    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Once more: ") != password:
            return _refuse("the two are not the same")
    else:
        password = sys.stdin.readline(_LONGEST + 2).rstrip("\r\n")
    if not password or len(password) > _LONGEST:
        return _refuse(f"a password has 1 to {_LONGEST} characters")
    hashed = hash_password(password, secrets.token_bytes(16))
    print(f"{arguments.user}:{hashed}" if arguments.user else hashed)
    return 0


def _refuse(text: str) -> int:
    print(f"mcpgate: {text}", file=sys.stderr)
    return 2
