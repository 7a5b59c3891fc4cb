"""``mcpgate add NAME``: one more server in ``gate.ini``, from words on the command line."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from mcpgate.cli.asking import Asker, add_whose, whose
from mcpgate.cli.control_client import APPLY_S, CommandError, find_gate
from mcpgate.cli.edit import NOT_DONE, REFUSED, add_config, change
from mcpgate.cli.testing import print_steps, report, try_server
from mcpgate.config import ini
from mcpgate.config.dialects.docker_run import is_docker_run, take_docker_run
from mcpgate.config.dialects.entries import Server, Taken
from mcpgate.config.dialects.writing import as_ini
from mcpgate.config.editing import with_section

_EPILOG = """\
examples:
  mcpgate add time --uvx mcp-server-time==2026.10.19
  mcpgate add files --npx @modelcontextprotocol/server-filesystem -- /srv/shared
  mcpgate add notes -e NOTES_TOKEN={key} -- /opt/bin/mcp-notes --stdio
  mcpgate add search --url https://search.example.org/mcp -H 'Authorization: Bearer ${TOKEN}'
  mcpgate add pets --openapi https://pets.example.org/openapi.json
  mcpgate add clock --image mcp/time:1.0 --set memory=128MiB
  mcpgate add gh -- docker run -i --rm -e GITHUB_TOKEN mcp/github
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "add",
        help="add a server to gate.ini",
        description="Add a server to gate.ini, if the whole is then good; what was there before "
        "is kept beside it.",
        usage="mcpgate add [options] NAME [-- COMMAND ARGS]",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9 and -: it stands in the URL")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--url", help="a server that runs elsewhere: its MCP endpoint")
    what.add_argument(
        "--openapi", metavar="FILE|URL", help="a REST service, by its OpenAPI document"
    )
    what.add_argument("--image", help="a container image; further words are its arguments")
    what.add_argument("--npx", metavar="PACKAGE", help="a package of npm, run by npx")
    what.add_argument("--uvx", metavar="PACKAGE", help="a package of PyPI, run by uvx")
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="may hold {key}"
    )
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="NAME: VALUE", help="may hold {key}"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any key of [server:NAME]"
    )
    parser.add_argument(
        "--test",
        action="store_true",
        help="have a running gate take it over and try it; go back if it fails",
    )
    add_config(parser)
    add_whose(parser)
    parser.set_defaults(run=run, words=[])


def run(arguments: argparse.Namespace) -> int:
    """Write the section; give the exit code."""
    server = Server(arguments.name)
    fault = _what(server, arguments) or _pairs(server, arguments)
    if fault:
        print(f"mcpgate add: {fault}", file=sys.stderr)
        return REFUSED
    for note in server.notes:
        print(f"note: {note}", file=sys.stderr)
    section = as_ini(Taken("", [server]))
    if arguments.test and not arguments.dry_run:
        return _tested(arguments, server.name, section)
    return change(
        arguments.config,
        lambda text: with_section(text, section),
        f"added {server.name}",
        dry_run=arguments.dry_run,
    )


def _tested(arguments: argparse.Namespace, name: str, section: str) -> int:
    """Add it, have the gate take it over, try it; write back what was there if that fails."""
    path = arguments.config
    try:
        asked = whose(arguments)
        gate = find_gate(argparse.Namespace(state_dir=None, config=path))
        gate.get("/version")
        before = path.read_text(encoding="utf-8")
        code = change(
            path, lambda text: with_section(text, section), f"added {name}", dry_run=False
        )
        if code:
            return code
        try:
            gate.post("/reload", {}, APPLY_S)
            steps = try_server(Asker(gate, name, asked, arguments.timeout), [])
            print_steps(steps)
            if report(name, steps) == 0:
                return 0
        except CommandError as error:
            print(f"mcpgate: {error}", file=sys.stderr)
        change(path, lambda _: before, f"took {name} out again", dry_run=False)
        gate.post("/reload", {}, APPLY_S)
    except CommandError as error:
        print(f"mcpgate: {error}", file=sys.stderr)
        return error.code
    return NOT_DONE


def _what(server: Server, arguments: argparse.Namespace) -> str:
    """Set what is run or called; give what is wrong with the words, if anything."""
    words: list[str] = arguments.words
    if arguments.url is not None:
        server.set("url", arguments.url)
        return "a server elsewhere takes no further words" if words else ""
    if arguments.openapi is not None:
        server.set("openapi", arguments.openapi)
        return "a REST service takes no further words" if words else ""
    if arguments.image is not None:
        server.set("image", arguments.image)
    elif arguments.npx is not None:
        words = ["npx", "-y", arguments.npx, *words]
    elif arguments.uvx is not None:
        words = ["uvx", arguments.uvx, *words]
    elif not words:
        return "say what to run: -- COMMAND ARGS, --image, --npx, --uvx, --url or --openapi"
    elif is_docker_run(words):
        return "" if take_docker_run(server, words, os.environ) else "this docker run has no image"
    if words:
        server.set("command", shlex.join(words))
    return ""


def _pairs(server: Server, arguments: argparse.Namespace) -> str:
    for option, texts, sign, stem in (
        ("--env", arguments.env, "=", "env."),
        ("--header", arguments.header, ":", "header."),
        ("--set", arguments.set, "=", ""),
    ):
        for text in texts:
            name, found, value = text.partition(sign)
            key = f"{stem}{name.strip()}"
            if not found or not name.strip() or not ini.KEY.fullmatch(key):
                return f"{option} wants NAME{sign}VALUE; names hold letters, digits, _, - and ."
            server.set(key, value.strip())
    return ""
