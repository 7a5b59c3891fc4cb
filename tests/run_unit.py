"""Runs every test but the functional ones: what `make unit` calls."""

import sys
from pathlib import Path

from twisted.scripts.trial import run


def main() -> None:
    """Hand trial the packages of tests, one by one."""
    here = Path(__file__).parent
    sys.path.insert(0, str(here.parent))
    rooms = sorted(p.name for p in here.iterdir() if (p / "__init__.py").exists())
    modules = sorted(p.stem for p in here.glob("test_*.py"))
    sys.argv[1:] += [f"tests.{name}" for name in (*rooms, *modules) if name != "functional"]
    run()


if __name__ == "__main__":
    main()
