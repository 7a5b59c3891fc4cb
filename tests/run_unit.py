"""Runs every test but the functional ones: what `make unit` calls."""

import sys
from pathlib import Path

# This folder holds packages named as those of the standard library; only its parent may be seen.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from twisted.scripts.trial import run  # noqa: E402 - found by the path just mended

from tests.shards import unit_names  # noqa: E402


def main() -> None:
    """Hand trial the packages of tests, one by one."""
    sys.argv[1:] += unit_names()
    run()


if __name__ == "__main__":
    main()
