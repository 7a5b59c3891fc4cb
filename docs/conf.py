"""Sphinx settings.  The build needs no network, no node and no graphviz."""

from pathlib import Path

project = "mcpgate"
author = "the mcpgate authors"
project_copyright = "2026, the mcpgate authors"
_namespace: dict[str, str] = {}
exec(  # the version stands in one place
    (Path(__file__).parent.parent / "mcpgate" / "_version.py").read_text(encoding="utf-8"),
    _namespace,
)
version = release = _namespace["__version__"]

extensions: list[str] = []
# Included by other pages, not pages themselves.
exclude_patterns = ["_build", "explanation/instance_life.rst"]
nitpicky = True

html_theme = "furo"
html_title = f"mcpgate {release}"
html_show_sphinx = False
