"""
``mcpgate demo``: a gate to try, with a key made and everything to paste printed.

What `make run` calls.  The key is kept in a file of its own, so that what was pasted into a client
still works the next time.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcpgate.cli.addresses import address
from mcpgate.config.load import read_config
from mcpgate.config.model import Config, StaticSource
from mcpgate.config.problems import ConfigError
from mcpgate.gate.access.keyfile import KeyFileError, changing, make_entry, make_key
from mcpgate.model import Secret
from mcpgate.web.listening.certificates import CertificateError, self_signed

KEY_NAME = "demo"
DONE, NOT_DONE, REFUSED = 0, 1, 2


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="make a key, print what to paste into clients, run the gate",
        description="Make a key and a certificate, print the lines to paste into MCP clients and "
        "a curl line, then run the gate in the foreground until Ctrl-C.",
    )
    parser.add_argument("--config", type=Path, default=Path("etc/demo.ini"), metavar="FILE")
    parser.add_argument(
        "--key-file",
        type=Path,
        default=Path("var/demo/demo.key"),
        metavar="FILE",
        help="where the demo's key is kept, readable by you alone (default: %(default)s)",
    )
    parser.add_argument("--no-run", action="store_true", help="only print the lines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prepare, print, and become the gate."""
    try:
        config = read_config(arguments.config, os.environ)
        source = next((s for s in config.auth.sources if isinstance(s, StaticSource)), None)
        if source is None:
            print("The demo needs an [auth:NAME] section with type = static.", file=sys.stderr)
            return REFUSED
        key = demo_key(arguments.key_file, source.keys_file)
        directory = config.gate.state_dir / "tls"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate = self_signed(str(directory), config.tls.names, datetime.now(UTC))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except (KeyFileError, CertificateError, OSError) as error:
        print(error, file=sys.stderr)
        return NOT_DONE
    print(welcome(config, key, Path(certificate.files.chain)), flush=True)
    if arguments.no_run:
        return DONE
    program = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
    command = [sys.executable, "-c", program]
    options = ["-n", "--pidfile=", "mcpgate", "--config", str(arguments.config)]
    os.execv(sys.executable, [*command, *options])  # noqa: S606 - our own interpreter


def demo_key(path: Path, keys_file: Path) -> Secret:
    """
    Give the key kept in ``path``; make one if there is none or the gate does not know it.

    :raises KeyFileError: the keys file can not be used.
    :raises OSError: ``path`` can not be read or written.
    """
    keys_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with changing(keys_file) as (keys, replace):
        if path.exists():
            kept = Secret(path.read_text(encoding="ascii").strip())
            if any(entry.matches(kept) for entry in keys.entries):
                return kept
        key_id = os.urandom(4).hex()
        key = make_key(os.urandom, key_id)
        entry = make_entry(KEY_NAME, key, random_bytes=os.urandom, now=datetime.now(UTC))
        replace(keys.without(keys.find(KEY_NAME)).with_key(entry))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.reveal() + "\n")
    return key


def welcome(config: Config, key: Secret, certificate: Path) -> str:
    """Make the text: where the gate is, and the lines that work."""
    url = address(config)
    bearer = f"Authorization: Bearer {key.reveal()}"
    names = [spec.name for spec in config.servers]
    first = f"{url}/{names[0]}/mcp"
    initialize = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
        '"capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
    )
    tools = '{"jsonrpc":"2.0","id":2,"method":"tools/list"}'
    curl = f"curl --cacert {certificate} -H '{bearer}' -H 'Content-Type: application/json' {first}"
    claude = "\n".join(
        f'  claude mcp add --transport http {name} {url}/{name}/mcp --header "{bearer}"'
        for name in names
    )
    return f"""
mcpgate on {url}
servers      {", ".join(names)}
your key     {key.reveal()}
certificate  {certificate}  (self-signed: clients have to be told to trust it)

Claude Code:
  export NODE_EXTRA_CA_CERTS={certificate}
{claude}

Gemini CLI (the same export):
  gemini mcp add --scope user --transport http {names[0]} {first} --header "{bearer}"

VS Code, .vscode/mcp.json (start it with the same export):
  {{"servers": {{"{names[0]}": {{"type": "http", "url": "{first}",
    "headers": {{"Authorization": "Bearer {key.reveal()}"}}}}}}}}

Python SDK and other clients built on it:
  export SSL_CERT_FILE={certificate}

By hand (the gate finds the session of a client that does not return its id):
  {curl} \\
    -d '{initialize}'
  {curl} \\
    -d '{tools}'

Ctrl-C ends it.
"""
