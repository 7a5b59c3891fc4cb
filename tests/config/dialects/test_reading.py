"""Tests of mcpgate.config.dialects: files of others as sections of ours."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.dialects import NotTakenError, Taken, read_servers
from mcpgate.config.dialects.entries import LIMIT_BYTES
from mcpgate.config.dialects.writing import as_ini
from tests.config.writing import BASE, problems, read

ENVIRON = {"HOME": "/home/gate", "TOKEN": "t0ken", "GITHUB_WORK_TOKEN": "w"}

CLAUDE = """
{
  "mcpServers": {
    "GitHub Work": {
      "command": "/opt/bin/github-mcp-server",
      "args": ["stdio", "two words"],
      "env": {"GITHUB_TOKEN": "${TOKEN}", "DEBUG": true, "PRICE": "5$"},
      "disabled": true
    },
    "search": {
      "type": "http",
      "url": "https://search.example.org/mcp",
      "headers": {"Authorization": "Bearer ${TOKEN}"},
      "timeout": 120000
    }
  }
}
"""

VSCODE = """
// what VS Code writes
{
  "inputs": [{"type": "promptString", "id": "key"}],
  "servers": {
    "notes": {"type": "stdio", "command": "notes", "args": ["--key", "${input:key}"],},
  },
}
"""

PROXY = """
{
  "mcpProxy": {
    "baseURL": "http://linuxserver.lan:9090",
    "addr": ":9090",
    "options": {
      "logEnabled": true, "panicIfInvalid": false, "authTokens": ["${MCP_PROXY_TOKEN}"]
      /* ,"cors": { "origins": ["http://linuxserver.lan:9090"] } */
    }
  },
  "mcpServers": {
    "fetch": {"command": "uvx", "args": ["mcp-server-fetch"],
              "options": {"toolFilter": {"mode": "block", "list": ["x"]}}},
    "postgres": {"url": "http://127.0.0.1:8686/mcp", "headers": {}}
  }
}
"""

ARRAY = """
{"servers": [
  {"name": "playwright", "command": "npx", "args": ["@modelcontextprotocol/server-playwright"],
   "env": {}, "timeout": 30, "enabled": true},
  {"name": "mcp", "command": "mcp-one"},
  {"name": "Mcp", "command": "mcp-two", "startup_timeout_sec": 20}
]}
"""

CODEX = """
[mcp_servers.notes]
command = "notes"
args = ["--stdio"]
tool_timeout_sec = 90
[mcp_servers.far]
url = "https://far.example.org/mcp"
bearer_token_env_var = "TOKEN"
env_http_headers = { "X-Team" = "TOKEN" }
"""

REGISTRY = """
{"name": "io.github.owner/weather", "packages": [
   {"registryType": "mcpb", "identifier": "x"},
   {"registryType": "npm", "identifier": "@owner/weather", "version": "1.2.0",
    "transport": {"type": "stdio"},
    "packageArguments": [{"type": "named", "name": "--units", "value": "metric"},
                         {"type": "positional", "name": "city", "isRequired": true}],
    "environmentVariables": [{"name": "TOKEN", "isRequired": true, "isSecret": true},
                             {"name": "LEVEL", "default": "info"},
                             {"name": "OPTIONAL"}]}]}
"""


def take(text: str, name: str = "file") -> tuple[Taken, dict[str, dict[str, str]]]:
    """Read a text; give what was taken, and the keys of each server."""
    taken = read_servers(text, name, ENVIRON)
    return taken, {server.name: dict(server.keys) for server in taken.servers}


class DialectTests(SynchronousTestCase):
    """Each form that servers are written in elsewhere."""

    def accepted(self, taken: Taken) -> None:
        """See that the gate takes what was written."""
        text = BASE.replace("[server:notes]\ncommand = notes --stdio\n", "") + as_ini(taken)
        environ = {**ENVIRON, "NOTION_TOKEN": "n", "MCP_PROXY_TOKEN": "m"}
        self.assertEqual(problems(text, environ), (), text)
        enabled = [one.name for one in taken.servers if ("enabled", "off") not in one.keys]
        self.assertEqual([one.name for one in read(text, environ).servers], enabled)

    def test_flat_settings(self) -> None:
        """VS Code's settings.json may name the member of a member in one word."""
        flat = {"mcp.servers": {"notes": {"transport": "sse", "url": "https://a.example.org/sse"}}}
        (server,) = read_servers(json.dumps(flat), "settings", ENVIRON).servers
        self.assertEqual(server.keys, [("url", "https://a.example.org/sse"), ("transport", "sse")])

    def test_mcp_servers(self) -> None:
        """The mcpServers of Claude, Cursor and most others."""
        taken, keys = take(CLAUDE)
        self.assertEqual(
            keys["github-work"],
            {
                "command": "/opt/bin/github-mcp-server stdio 'two words'",
                "env.GITHUB_TOKEN": "${TOKEN}",
                "env.DEBUG": "true",
                "env.PRICE": "5$$",
                "enabled": "off",
            },
        )
        self.assertEqual(
            keys["search"],
            {
                "url": "https://search.example.org/mcp",
                "header.Authorization": "Bearer ${TOKEN}",
                "call_timeout": "2min",
            },
        )
        self.assertIn("named github-work", taken.servers[0].notes[0])
        self.accepted(taken)

    def test_vscode(self) -> None:
        """VS Code's servers, with comments, trailing commas and inputs nobody can be asked for."""
        taken, keys = take(VSCODE)
        self.assertEqual(keys, {"notes": {"command": "notes --key '$${input:key}'"}})
        self.assertIn("inputs", taken.notes[0])
        self.assertIn("${input:key}", taken.servers[0].notes[0])

    def test_proxy(self) -> None:
        """The file of another proxy: its address is a suggestion, its tokens are not taken."""
        taken, keys = take(PROXY)
        self.assertEqual(taken.dialect, "mcpProxy")
        self.assertEqual(
            keys,
            {
                "fetch": {"command": "uvx mcp-server-fetch"},
                "postgres": {"url": "http://127.0.0.1:8686/mcp"},
            },
        )
        self.assertEqual(
            taken.gate,
            [("listen", "tls:tcp:9090"), ("public_url", "https://linuxserver.lan:9090")],
        )
        self.assertTrue(as_ini(taken, with_gate=True).startswith("[gate]\nlisten = tls:tcp:9090\n"))
        self.assertTrue(any("authTokens" in note for note in taken.notes))
        self.assertIn("tools", taken.servers[0].notes[0])
        self.accepted(taken)

    def test_array(self) -> None:
        """An array of servers; names that clash, or are the gate's own, are changed."""
        taken, keys = take(ARRAY)
        self.assertEqual(list(keys), ["playwright", "mcp-server", "mcp-server-2"])
        self.assertEqual(keys["playwright"]["call_timeout"], "30s")
        self.assertEqual(keys["mcp-server-2"]["start_timeout"], "20s")
        self.accepted(taken)

    def test_codex(self) -> None:
        """Codex' config.toml."""
        taken, keys = take(CODEX)
        self.assertEqual(keys["notes"], {"command": "notes --stdio", "call_timeout": "1min30s"})
        self.assertEqual(
            keys["far"],
            {
                "url": "https://far.example.org/mcp",
                "header.Authorization": "Bearer ${TOKEN}",
                "header.X-Team": "${TOKEN}",
            },
        )
        self.accepted(taken)

    def test_registry(self) -> None:
        """A server.json: the first package that can be run, pinned."""
        taken, keys = take(REGISTRY)
        self.assertEqual(
            keys,
            {
                "weather": {
                    "command": "npx -y @owner/weather@1.2.0 --units metric",
                    "env.TOKEN": "${TOKEN}",
                    "env.LEVEL": "info",
                }
            },
        )
        self.assertTrue(any("city" in note for note in taken.servers[0].notes))
        self.accepted(taken)

    def test_registry_others(self) -> None:
        """Images and remotes of a server.json; what has neither is said."""
        image = '{"registryType": "oci", "identifier": "owner/x:1"}'
        _, keys = take('{"name": "a/x", "packages": [' + image + "]}")
        self.assertEqual(keys, {"x": {"image": "owner/x:1", "egress": "internet"}})
        _, keys = take(
            '{"name": "a/x", "packages": [], "remotes": [{"type": "sse", "url": '
            '"https://x.example.org/sse", "headers": [{"name": "X-Key", "isRequired": true}]}]}'
        )
        self.assertEqual(
            keys["x"],
            {"url": "https://x.example.org/sse", "transport": "sse", "header.X-Key": "${X_KEY}"},
        )
        taken, keys = take('{"name": "a/x", "remotes": []}')
        self.assertEqual(keys, {})
        self.assertIn("no package", taken.notes[0])

    def test_unit_file(self) -> None:
        """The PORT/CMD/ARGS file of a systemd unit around docker run."""
        taken, keys = take(
            "PORT=3002\nCMD=/usr/bin/docker\nARGS=run -i --rm "
            "-e GITHUB_PERSONAL_ACCESS_TOKEN=${GITHUB_WORK_TOKEN} -v /opt/mcp/data:/data:rw "
            "-v /srv:/srv:ro mcp/github --all\n",
            "github-work",
        )
        self.assertEqual(
            keys,
            {
                "github-work": {
                    "image": "mcp/github",
                    "env.GITHUB_PERSONAL_ACCESS_TOKEN": "${GITHUB_WORK_TOKEN}",
                    "volumes": "/opt/mcp/data:/data:rw\n/srv:/srv",
                    "command": "--all",
                    "egress": "internet",
                }
            },
        )
        self.accepted(taken)

    def test_docker_run(self) -> None:
        """A docker run line: limits are kept, what no container of ours is, is said."""
        taken, keys = take(
            "docker run -it --rm --name=notes -m 512m --cpus 0.5 --pids-limit=64 -u 1000:1000 "
            "--network host --privileged -p 80:80 -eTOKEN -v named:/x \\\n"
            "  --entrypoint /bin/notes notes:1"
        )
        self.assertEqual(
            keys,
            {
                "notes": {
                    "image": "notes:1",
                    "memory": "512MiB",
                    "cpus": "0.5",
                    "pids": "64",
                    "user": "1000:1000",
                    "env.TOKEN": "${TOKEN}",
                    "entrypoint": "/bin/notes",
                    "egress": "internet",
                }
            },
        )
        self.assertEqual(
            [note.split(":")[0] for note in taken.servers[0].notes],
            ["--network", "--privileged", "-p", "volumes"],
        )
        self.accepted(taken)

    def test_docker_run_in_a_file(self) -> None:
        """An entry that runs docker takes the values of its variables from its own env."""
        taken, keys = take(
            '{"mcpServers": {"gh": {"command": "docker", "args": ["run", "-i", "--rm", "-e", '
            '"GH_TOKEN", "--network", "none", "mcp/github"], "env": {"GH_TOKEN": "abc$"}}}}'
        )
        self.assertEqual(
            keys["gh"], {"image": "mcp/github", "env.GH_TOKEN": "abc$$", "egress": "none"}
        )
        self.accepted(taken)

    def test_curl(self) -> None:
        """A command that only calls an address is taken as that address."""
        taken, keys = take(
            '{"mcpServers": {"time": {"command": "curl", "args": ["-X", "POST", '
            '"https://mcp-time.example.org/mcp"]}}}'
        )
        self.assertEqual(keys, {"time": {"url": "https://mcp-time.example.org/mcp"}})
        self.accepted(taken)

    def test_rest(self) -> None:
        """A REST service is named by its OpenAPI document, with or without an address."""
        document = "https://h.example.org/${DIR:-v1}/openapi.json"
        told, _ = take(
            json.dumps(
                {
                    "mcpServers": {
                        "a": {"openapi": document, "headers": {"X-Key": "{key}"}, "type": "sse"},
                        "b": {"mcpgate": {"openapi": "pets.yaml", "deny": "d*"}},
                        "c": {"openapi": "pets.yaml", "url": "https://c.example.org/sse"},
                        "d": {"openapi": ""},
                    }
                }
            )
        )
        a, b, c = (dict(one.keys) for one in told.servers)
        mine = {"openapi": "https://h.example.org/v1/openapi.json", "header.X-Key": "{key}"}
        self.assertEqual(a, mine)
        self.assertEqual(b, {"openapi": "pets.yaml", "deny": "d*"})
        self.assertEqual(c, {"openapi": "pets.yaml", "url": "https://c.example.org/sse"})

    def test_words_of_others(self) -> None:
        """Addresses, transports and timeouts under the names other clients have for them."""
        _, keys = take(
            '{"mcpServers": {'
            '"a": {"httpUrl": "https://a.example.org/mcp", "timeout": 600000},'
            '"b": {"serverUrl": "https://b.example.org/sse"},'
            '"c": {"url": "https://c.example.org/x", "transport": {"type": "sse"}},'
            '"d": {"url": "https://d.example.org/x", "type": "streamableHttp"},'
            '"e": {"command": "one two"}, "f": {"command": ["one", "two"], "args": "three"}}}'
        )
        self.assertEqual(keys["a"]["call_timeout"], "10min")
        self.assertEqual(keys["b"]["transport"], "sse")
        self.assertEqual(keys["c"]["transport"], "sse")
        self.assertNotIn("transport", keys["d"])
        self.assertEqual(keys["e"], {"command": "one two"})
        self.assertEqual(keys["f"], {"command": "one two three"})

    def test_defaults(self) -> None:
        """A reference with a default is decided now; others stay references."""
        taken, keys = take(
            '{"command": "x", "name": "one", "env": {"A": "${env:TOKEN}", "B": "${NOPE:-de$f}", '
            '"C": "${TOKEN:-x}"}}'
        )
        self.assertEqual(
            keys["one"],
            {"command": "x", "env.A": "${TOKEN}", "env.B": "de$$f", "env.C": "${TOKEN}"},
        )
        self.assertIn("default", taken.servers[0].notes[0])

    def test_left_out(self) -> None:
        """What can not be taken over is said, and never costs the rest of the file."""
        taken, keys = take(
            '{"mcpServers": {"none": {"note": 1}, "bad": {"command": 5}, "args": {"command": "x", '
            '"args": [{}]}, "docker": {"command": "docker", "args": ["run", "-i"]}, '
            '"fine": {"command": "x", "env": {"A": {}, "B": "", "C": "a\\nb", "D": "a\\n#b"}, '
            '"headers": 7, "odd": 1, "cwd": "/srv"}, "list": {"command": "x", "env": []}}}'
        )
        self.assertEqual(list(keys), ["fine", "list"])
        self.assertEqual(keys["fine"], {"command": "x", "cwd": "/srv", "env.C": "a\nb"})
        self.assertEqual(
            [note.split(" ")[0] for note in taken.notes], ["none", "bad", "args", "docker"]
        )
        self.assertEqual(
            [note.split(":")[0] for note in taken.servers[0].notes],
            ["env.A", "env.B", "env.D", "odd"],
        )

    def test_no_line_of_its_own(self) -> None:
        """Nothing in a foreign file becomes a line of gate.ini that is not its server's."""
        evil = "X\n[auth:own]\nkind = static"
        told, _ = take(
            json.dumps(
                {
                    "mcpServers": {
                        "a": {"command": "x", "env": {evil: "1", "Y": "${" + evil + "}"}, evil: 1},
                        "b": {"command": "docker", "args": ["run", "-e", evil + "=1", "image"]},
                        "c": {"url": "http://c.example.org/mcp", "mcpgate": {evil: "1"}},
                    }
                }
            )
        )
        text = as_ini(told)
        self.assertEqual(text.count("\n["), 3)
        self.assertNotIn("\n[auth", text)
        self.assertIn("left out, keys of gate.ini hold", text)

    def test_refused(self) -> None:
        """What is no file of servers is refused in words."""
        for text, what in (
            ("", "empty"),
            ("hello there", "names no server"),
            ("{", "not JSON"),
            ('{"a": 1, "a": 2, /* */}', "not JSON"),
            ("[1", "not JSON"),
            ('"mcpServers"', "names no server"),
            ("{}", "names no server"),
            ('{"mcpServers": {}}', "names no server"),
            ("[mcp_servers.x]\ncommand=", "not TOML"),
            ("docker run -i --rm", "no image"),
            ("CMD=x\nARGS='", "can not be split"),
            ("[" * 20_000, "nested too deeply"),
            ("x" * (LIMIT_BYTES + 1), "larger"),
        ):
            with self.assertRaises(NotTakenError, msg=text[:30]) as caught:
                take(text)
            self.assertIn(what, str(caught.exception))

    @settings(max_examples=100, deadline=None)
    @given(st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        """Whatever a file holds, it is taken or refused in words."""
        try:
            take(text)
        except NotTakenError as error:
            self.assertTrue(str(error).strip())

    _JSON = st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    "mcpServers servers command args env url headers name type timeout packages "
                    "remotes mcpProxy options disabled docker".split()
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )

    @settings(max_examples=100, deadline=None)
    @given(st.dictionaries(st.sampled_from(["mcpServers", "servers", "mcpProxy"]), _JSON))
    def test_any_document(self, document: object) -> None:
        """The same for documents that look like the real ones."""
        try:
            as_ini(take(json.dumps(document))[0], with_gate=True)
        except NotTakenError as error:
            self.assertTrue(str(error).strip())
