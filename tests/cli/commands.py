"""Running the command inside of a test."""

from __future__ import annotations

import io
import sys
from unittest.mock import patch

from mcpgate.cli import main


def run(*argv: str) -> tuple[int, str, str]:
    """Give exit code, stdout and stderr of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "stdout", out), patch.object(sys, "stderr", err):
        try:
            code = main(argv)
        except SystemExit as error:
            code = int(error.code or 0)
    return code, out.getvalue(), err.getvalue()
