"""Tells ``twistd`` that there is a subcommand named ``mcpgate``."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(  # noqa: N816 - the name other plugins use
    "mcpgate",
    "mcpgate.tap",
    "A reverse proxy that gives every user MCP servers of their own.",
    "mcpgate",
)
