"""Runs every test but the functional ones: what `make unit` calls."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# This folder holds packages named as those of the standard library; only its parent may be seen.
sys.path[0] = str(HERE.parent)

from twisted.scripts.trial import run  # noqa: E402 - found by the path just mended


def main() -> None:
    """Hand trial the packages of tests, one by one."""
    rooms = sorted(path.name for path in HERE.iterdir() if (path / "__init__.py").exists())
    modules = sorted(path.stem for path in HERE.glob("test_*.py"))
    sys.argv[1:] += [f"tests.{name}" for name in (*rooms, *modules) if name != "functional"]
    run()


if __name__ == "__main__":
    main()
