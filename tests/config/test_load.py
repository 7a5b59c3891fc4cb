"""Tests of mcpgate.config.load: the whole way from a file to a Config, and every refusal."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.load import parse_config, read_config
from mcpgate.config.model import AnonymousSource, RemoteSource, StaticSource
from mcpgate.config.problems import ConfigError
from mcpgate.config.summary import as_text
from mcpgate.model import MIB, Container, Destination, Eras, Isolation, Rate, Transport
from tests.config.writing import BASE, ENVIRON, PATH, problems, read


class Mutation(NamedTuple):
    """A change of `BASE` and the one problem it makes."""

    old: str
    new: str
    line: int
    key: str
    value: str
    text: str


LISTEN = "listen = tcp:8080:interface=127.0.0.1"
COMMAND = "command = notes --stdio"
KEYS = "keys_file = keys"

MUTATIONS = (
    # Form
    Mutation("[gate]", "[gate", 1, "", "", "not a section"),
    Mutation("[gate]", "[gate]\noops", 2, "", "", "neither a section nor a key"),
    Mutation("[gate]", "[gate]\nsweep = 60s\nsweep = 60s", 3, "sweep", "", "stands twice"),
    Mutation("[gate]", "[gate]\n[gate]", 2, "", "", "stands twice"),
    # Unknown names
    Mutation("[gate]", "[gate]\nlistn = x", 2, "listn", "", "no such key"),
    Mutation("[gate]", "[gate]\nreactor = epoll", 2, "reactor", "", "chosen before"),
    Mutation("[server:notes]", "[sever:notes]", 6, "", "", "no such section"),
    Mutation("[server:notes]", "[server]", 6, "", "", "no such section"),
    Mutation("[server:notes]", "[server:Notes]", 6, "", "", "not a name"),
    Mutation("[server:notes]", "[server:a__b]", 6, "", "", "not a name"),
    Mutation("[server:notes]", "[server:../x]", 6, "", "", "not a name"),
    Mutation("[server:notes]", f"[server:{'a' * 41}]", 6, "", "", "not a name"),
    Mutation("[server:notes]", "[server:metrics]", 6, "", "", "its own paths"),
    # Wrong kinds
    Mutation("[gate]", "[gate]\nsweep = 60", 2, "sweep", "60", "needs a unit"),
    Mutation("[gate]", "[gate]\nsweep =", 2, "sweep", "", "value is missing"),
    Mutation("[gate]", "[gate]\nsweep = 60s # often", 2, "sweep", "60s # often", "not a duration"),
    Mutation("[gate]", "[gate]\nsweep = 60s\n  http2 = on", 3, "sweep", "60s\nhttp2 = on", "lines"),
    Mutation("[gate]", "[gate]\nhttp2 = maybe", 2, "http2", "maybe", "neither on nor off"),
    Mutation("[gate]", "[gate]\nmax_body = 4", 2, "max_body", "4", "needs a unit"),
    Mutation("[gate]", "[gate]\nmax_body = 1B", 2, "max_body", "1B", "too small"),
    Mutation("[gate]", "[gate]\nsessions_per_key = 0", 2, "sessions_per_key", "0", "too small"),
    Mutation("[gate]", "[gate]\nmax_running = -1", 2, "max_running", "-1", "whole number"),
    Mutation("[gate]", "[gate]\nmax_running = 99999999", 2, "max_running", "99999999", "large"),
    Mutation(
        "[gate]", "[gate]\ntrusted_proxies = 10.0.0.1/8", 2, "trusted_proxies", "10.0.0.1/8", "bits"
    ),
    Mutation("[gate]", "[gate]\ntrusted_proxies = lan", 2, "trusted_proxies", "lan", "network"),
    Mutation(
        "[gate]",
        "[gate]\nallowed_hosts =\n  a\n  http://b",
        4,
        "allowed_hosts",
        "a\nhttp://b",
        "name of a host",
    ),
    Mutation("[gate]", "[gate]\nallowed_origins = null", 2, "allowed_origins", "null", "URL"),
    Mutation("[gate]", "[gate]\npublic_url = https://a/b", 2, "public_url", "https://a/b", "path"),
    Mutation(LISTEN, "listen = 8443", 2, "listen", "8443", "not an endpoint"),
    Mutation(LISTEN, "listen =", 2, "listen", "", "listen nowhere"),
    Mutation(
        LISTEN, "listen =\n  tcp:1:interface=::1", 3, "listen", "tcp:1:interface=::1", "colon"
    ),
    Mutation(
        LISTEN,
        LISTEN + "\n  tcp:8080:interface=127.0.0.1",
        2,
        "listen",
        "tcp:8080:interface=127.0.0.1\ntcp:8080:interface=127.0.0.1",
        "twice",
    ),
    # From elsewhere
    Mutation(KEYS, "keys_file = ${NOPE}", 5, "keys_file", "${NOPE}", "NOPE is not set"),
    Mutation(KEYS, "keys_file = ${file:/nope}", 5, "keys_file", "${file:/nope}", "can not be read"),
    Mutation(KEYS, "keys_file = $HOME/keys", 5, "keys_file", "$HOME/keys", "no reference"),
    Mutation(COMMAND, COMMAND + "\nenv.T = x${NOPE}", 8, "env.T", "${...}", "NOPE is not set"),
    Mutation(COMMAND, "command = a ${file:/x}", 7, "command", "a ${file:/x}", "visible"),
    # Together
    Mutation("[gate]", "[gate]\nsse_keepalive = 75s", 2, "sse_keepalive", "75s", "less than"),
    Mutation("[gate]", "[gate]\nidle_timeout = 20s", 2, "idle_timeout", "20s", "less than"),
    Mutation("[gate]", "[gate]\nmax_body = 65MiB", 2, "max_body", "65MiB", "at most"),
    Mutation("[gate]", "[gate]\nmax_connections = 9", 2, "max_connections", "9", "at most"),
    Mutation(
        "[gate]", "[gate]\nmemory_budget = 100MiB", 7, "memory", "", "more than the memory_budget"
    ),
    Mutation("[gate]", "[limits]\nburst = 0\n[gate]", 2, "burst", "0", "too small"),
    Mutation("[gate]", "[limits]\nburst = 5\n[gate]", 2, "burst", "5", "never passes"),
    Mutation("[gate]", "[limits]\nstart_cost = 41\n[gate]", 2, "start_cost", "41", "never passes"),
    Mutation("[gate]", "[limits]\nper_key = off\nburst = 50\n[gate]", 3, "burst", "50", "is off"),
    Mutation("[gate]", "[limits]\nper_key = 20\n[gate]", 2, "per_key", "20", "needs a unit"),
    # Listeners and TLS
    Mutation(
        LISTEN,
        "listen = tls:tcp:1:interface=127.0.0.1\n[tls]\nself_signed = off",
        4,
        "self_signed",
        "off",
        "no certificate",
    ),
    Mutation(
        "[gate]",
        "[tls]\ncertificates = /nope /nope\n[gate]",
        2,
        "certificates",
        "/nope /nope",
        "no such file",
    ),
    Mutation(
        "[gate]", "[tls]\ncertificates = one.pem\n[gate]", 2, "certificates", "one.pem", "one line"
    ),
    Mutation("[gate]", '[tls]\ncertificates = "a\n[gate]', 2, "certificates", '"a', "one line"),
    Mutation("[gate]", "[tls]\nmin_version = 1.1\n[gate]", 2, "min_version", "1.1", "choices"),
    Mutation("[gate]", "[tls]\nnames =\n[gate]", 2, "names", "", "needs a name"),
    # Keys
    Mutation("type = static", "type = statik", 4, "type", "statik", "choices"),
    Mutation("type = static\n", "", 3, "type", "", "type is missing"),
    Mutation("keys_file = keys\n", "", 3, "keys_file", "", "needs keys_file"),
    Mutation(KEYS, KEYS + "\nurl = https://a", 6, "url", "https://a", "means nothing"),
    Mutation(KEYS, KEYS + "\nservers = note", 6, "servers", "note", "no [server:note]"),
    Mutation("[gate]", "[auth]\nuse = key\n[gate]", 2, "use", "key", "no [auth:key]"),
    Mutation("[gate]", "[auth]\nuse = keys keys\n[gate]", 2, "use", "keys keys", "stands twice"),
    Mutation("[gate]", "[auth]\nuse =\n[gate]", 2, "use", "", "nobody could use"),
    Mutation("[gate]", "[auth]\nheader = Host\n[gate]", 2, "header", "Host", "connection"),
    Mutation("[gate]", "[auth]\nheader = Cookie\n[gate]", 2, "header", "Cookie", "further"),
    Mutation("[gate]", "[auth]\nheader = a:b\n[gate]", 2, "header", "a:b", "name of an HTTP"),
    Mutation("[gate]", '[auth]\nrealm = a"b\n[gate]', 2, "realm", 'a"b', "realm"),
    Mutation("[gate]", "[auth]\ncache_ttl = 10min\n[gate]", 2, "cache_ttl", "10min", "at most"),
    Mutation(
        "[gate]",
        "[auth]\nfailures_per_address = 0/s\n[gate]",
        2,
        "failures_per_address",
        "0/s",
        "nothing through",
    ),
    # Servers
    Mutation(COMMAND, "env.A = b", 6, "command", "", "nothing tells"),
    Mutation(COMMAND, "command =", 7, "command", "", "empty"),
    Mutation(COMMAND, "command = 'a", 7, "command", "'a", "quotation"),
    Mutation(COMMAND, COMMAND + "\nurl = https://a.b/", 8, "url", "https://a.b/", "not both"),
    Mutation(COMMAND, "command = a {key}", 7, "command", "a {key}", "process lists"),
    Mutation(COMMAND, COMMAND + "\nenv.A-B = 1", 8, "env.A-B", "***", "name of a variable"),
    Mutation(COMMAND, COMMAND + "\nfile... = 1", 8, "file...", "***", "name of a file"),
    Mutation(COMMAND, COMMAND + "\nenv. = 1", 8, "env.", "", "no such key"),
    Mutation(
        COMMAND, COMMAND + "\nisolation = shared\nenv.A = {key}", 9, "env.A", "***", "no one {key}"
    ),
    Mutation(COMMAND, COMMAND + "\ninsecure = yes", 8, "insecure", "yes", "means nothing"),
    Mutation(COMMAND, COMMAND + "\ntransport = http", 7, "command", "notes --stdio", "which port"),
    Mutation(COMMAND, "command = a {port}", 7, "command", "a {port}", "no {port}"),
    Mutation(COMMAND, COMMAND + "\nrelay = on", 8, "relay", "on", "stdio server"),
    Mutation(COMMAND, COMMAND + "\nheader.A = b", 8, "header.A", "***", "stdio server"),
    Mutation(COMMAND, COMMAND + "\nstart_wait = 2min", 8, "start_wait", "2min", "at most"),
    Mutation(COMMAND, COMMAND + "\ncall_timeout = 1h", 8, "call_timeout", "1h", "at most"),
    Mutation(COMMAND, COMMAND + "\nremove_after = 1min", 8, "remove_after", "1min", "at most"),
    Mutation(COMMAND, COMMAND + "\nmax_body = 5MiB", 8, "max_body", "5MiB", "more than max_body"),
    Mutation(COMMAND, "url = https://a.b/\nwarm = 1", 8, "warm", "1", "means nothing"),
    Mutation(COMMAND, "isolation = shared\nwarm = 1\n" + COMMAND, 8, "warm", "1", "never a spare"),
    Mutation(COMMAND, COMMAND + "\nenv.A = {key}\nwarm = 1", 9, "warm", "1", "{key} of env.A"),
    Mutation(COMMAND, COMMAND + "\nfile.a = {user}\nwarm = 1", 9, "warm", "1", "{user} of file.a"),
    Mutation(COMMAND, COMMAND + " {data_dir}\nwarm = 1", 8, "warm", "1", "{data_dir} of command"),
    Mutation(COMMAND, COMMAND + "\nmax_instances = 1\nwarm = 2", 9, "warm", "2", "more copies"),
    Mutation(COMMAND, COMMAND + "\nwarm = lots", 8, "warm", "lots", "not a whole number"),
    Mutation(
        COMMAND,
        COMMAND + "\nisolation = per-session\nprestart = on",
        9,
        "prestart",
        "on",
        "before there is a session",
    ),
    Mutation(COMMAND, COMMAND + "\nsnapshot = on", 8, "snapshot", "on", "choices"),
    Mutation(COMMAND, COMMAND + "\nburst = 5", 8, "burst", "5", "is off"),
    Mutation(COMMAND, COMMAND + "\nrate = off\nburst = 5", 9, "burst", "5", "is off"),
    Mutation(COMMAND, COMMAND + "\ncpus = a", 8, "cpus", "a", "not a number"),
    Mutation(COMMAND, COMMAND + "\ncwd = ~bob", 8, "cwd", "~bob", "not a path"),
    Mutation(COMMAND, "url = http://a.example/", 7, "url", "http://a.example/", "in clear"),
    Mutation(COMMAND, "url = https://u:p@a.b/", 7, "url", "https://u:p@a.b/", "no user"),
    Mutation(COMMAND, "url = https://a.b/{key}", 7, "url", "https://a.b/{key}", "no template"),
    Mutation(COMMAND, "url = https://a.b/#x", 7, "url", "https://a.b/#x", "fragment"),
    Mutation(COMMAND, "url = https://a.b:x/", 7, "url", "https://a.b:x/", "URL"),
    Mutation(COMMAND, "url = https://a.b/ c", 7, "url", "https://a.b/ c", "percent"),
    Mutation(COMMAND, "url = ftp://a.b/", 7, "url", "ftp://a.b/", "URL"),
    Mutation(
        COMMAND, "url = https://a.b/\ntransport = stdio", 8, "transport", "stdio", "speaks http"
    ),
    Mutation(
        COMMAND, "url = https://a.b/\ntransport = sse\nera = dual", 9, "era", "dual", "legacy era"
    ),
    Mutation(
        COMMAND,
        "url = https://a.b/\ntransport = sse\nisolation = shared\nheader.K = {key}",
        10,
        "header.K",
        "***",
        "no one {key}",
    ),
    Mutation(COMMAND, COMMAND + "\ntransport = sse", 7, "command", "notes --stdio", "port"),
    Mutation(COMMAND, "url = https://a.b/\nmemory = 1MiB", 8, "memory", "1MiB", "means nothing"),
    Mutation(COMMAND, "url = https://a.b/\nheader.Host = x", 8, "header.Host", "***", "connection"),
    Mutation(
        COMMAND, "url = https://a.b/\nheader.A = 1\nheader.a = 2", 9, "header.a", "***", "same HTTP"
    ),
    Mutation(COMMAND, "url = https://a.b/\nheader.A = \u20ac", 8, "header.A", "***", "Latin-1"),
    Mutation(
        COMMAND,
        COMMAND + " {port}\ntransport = http\nmcp_path = mcp",
        9,
        "mcp_path",
        "mcp",
        "path of a URL",
    ),
    # Administration and log
    Mutation("[gate]", "[admin]\nuser = a\n[gate]", 2, "user", "a", "no password"),
    Mutation("[gate]", "[admin]\npassword = p\n[gate]", 2, "password", "***", "without its user"),
    Mutation(
        "[gate]",
        "[admin]\nuser = a\npassword = p\npassword_hash = scrypt:13:00:" + "a" * 64 + "\n[gate]",
        4,
        "password_hash",
        "***",
        "two passwords",
    ),
    Mutation(
        "[gate]",
        "[admin]\nuser = a\npassword_hash = p\n[gate]",
        3,
        "password_hash",
        "***",
        "hashed password",
    ),
    Mutation("[gate]", "[admin]\nuser = a:b\npassword = p\n[gate]", 2, "user", "a:b", "colon"),
    Mutation("[gate]", "[admin]\nlisten = tcp:9\n[gate]", 2, "listen", "tcp:9", "read statistics"),
    Mutation(
        "[gate]",
        "[admin]\nlisten = tcp:8080:interface=127.0.0.1\n[gate]",
        2,
        "listen",
        "tcp:8080:interface=127.0.0.1",
        "in [gate] as well",
    ),
    Mutation("[gate]", "[log]\nto = file\n[gate]", 2, "to", "file", "neither a path"),
    Mutation("[gate]", "[log]\nlevel = warning\n[gate]", 2, "level", "warning", "choices"),
)

REMOTE = """\
[auth:r]
type = remote
url = https://auth.example/check
header.Authorization = Bearer {key}
"""
REMOTE_MUTATIONS = (
    Mutation("https:", "http:", 3, "url", "http://auth.example/check", "in clear"),
    Mutation("auth.example", "127.0.0.1", 3, "url", "https://127.0.0.1/check", "this machine"),
    Mutation("{key}", "key", 3, "url", "https://auth.example/check", "without being told"),
    Mutation("url = https://auth.example/check\n", "", 1, "url", "", "needs url"),
    Mutation("[auth:r]", "[auth:r]\nbody = x", 2, "body", "***", "sends no body"),
    Mutation("[auth:r]", "[auth:r]\nmethod = DELETE", 2, "method", "DELETE", "not offered"),
    Mutation(
        "[auth:r]", "[auth:r]\nmethod = HEAD\nuser_field = a", 3, "user_field", "a", "no body"
    ),
    Mutation("[auth:r]", "[auth:r]\nuser_field = a..b", 2, "user_field", "a..b", "path into JSON"),
    Mutation("[auth:r]", "[auth:r]\nexpect_status = 100", 2, "expect_status", "100", "status"),
    Mutation("[auth:r]", "[auth:r]\nca_file = /nope", 2, "ca_file", "/nope", "no such file"),
    Mutation("[auth:r]", "[auth:r]\nkeys_file = x", 2, "keys_file", "x", "means nothing"),
    Mutation("Bearer {key}", "Bearer ${NOPE}", 4, "header.Authorization", "${...}", "not set"),
)


BOXED = """\
[auth:n]
type = none
[docker]
subnets = 10.9.0.0/20
[server:box]
image = mcp/time:1
"""
DIGEST = "@sha256:" + "a" * 64
BOXED_MUTATIONS = (
    Mutation("mcp/time:1", "--privileged", 6, "image", "--privileged", "name of an image"),
    Mutation("mcp/time:1", "a b", 6, "image", "a b", "name of an image"),
    Mutation("mcp/time:1", "x\nurl = https://a.b/", 7, "url", "https://a.b/", "not both"),
    Mutation("[server:box]", "[server:box]\nuser = 0", 6, "user", "0", "as root"),
    Mutation("[server:box]", "[server:box]\nuser = root:x", 6, "user", "root:x", "as root"),
    Mutation("[server:box]", "[server:box]\nuser = -u", 6, "user", "-u", "not a user"),
    Mutation("[server:box]", "[server:box]\nvolumes = a:/b", 6, "volumes", "a:/b", "not a volume"),
    Mutation(
        "[server:box]", "[server:box]\nvolumes = /a:/b:x", 6, "volumes", "/a:/b:x", "ro or rw"
    ),
    Mutation(
        "[server:box]",
        "[server:box]\nvolumes = /var/run/docker.sock:/s",
        6,
        "volumes",
        "/var/run/docker.sock:/s",
        "whole machine",
    ),
    Mutation(
        "[server:box]",
        "[server:box]\nvolumes = /x/..:/s",
        6,
        "volumes",
        "/x/..:/s",
        "whole machine",
    ),
    Mutation(
        "[server:box]", "[server:box]\nvolumes = /proc/1:/s", 6, "volumes", "/proc/1:/s", "whole"
    ),
    Mutation(
        "[server:box]",
        "[server:box]\ndata = per-key\nwarm = 1",
        7,
        "warm",
        "1",
        "folder of an owner",
    ),
    Mutation("[server:box]", "[server:box]\negress = lan", 6, "egress", "lan", "choices"),
    Mutation(
        "[server:box]", "[server:box]\negress = allow-list", 6, "egress", "allow-list", "nothing"
    ),
    Mutation("[server:box]", "[server:box]\negress_to = a.b", 6, "egress_to", "a.b", "a list"),
    *(
        Mutation(
            "[server:box]",
            f"[server:box]\negress = allow-list\negress_to = {value}",
            7,
            "egress_to",
            value,
            text,
        )
        for value, text in {
            "a.b:0": "no port",
            "a.b:https": "no port",
            "a.b:65536": "no port",
            "10.0.0.1/8": "no IPv4 address",
            "1.2.3": "no IPv4 address",
            "fd00::1": "no port",
            "169.254.169.254": "metadata",
            "0.0.0.0/0": "machine itself",
            "-x.example": "neither a name",
            "a..b": "neither a name",
            "https://a.b": "no port",
            " ".join(f"h{number}" for number in range(33)): "more than 32",
        }.items()
    ),
    Mutation(
        "[docker]\nsubnets = 10.9.0.0/20\n[server:box]",
        "[docker]\nfirewall = admin\n[server:box]\negress = allow-list\negress_to = a.b",
        6,
        "egress",
        "allow-list",
        "not the gate's",
    ),
    Mutation("[server:box]", "[server:box]\nport = 70000", 6, "port", "70000", "too large"),
    Mutation("[server:box]", "[server:box]\nenv.K = {key}", 6, "env.K", "***", "everybody"),
    Mutation("[server:box]", "[server:box]\ncommand = {key}", 6, "command", "{key}", "process"),
    Mutation("[server:box]", "[server:box]\nenv.P = {port}", 6, "env.P", "***", "no {port}"),
    Mutation("[server:box]", "[server:box]\ninsecure = on", 6, "insecure", "on", "means nothing"),
    Mutation("10.9.0.0/20", "10.9.0.0/28", 4, "subnets", "10.9.0.0/28", "private IPv4"),
    Mutation("10.9.0.0/20", "8.0.0.0/8", 4, "subnets", "8.0.0.0/8", "private IPv4"),
    Mutation("10.9.0.0/20", "fd00::/64", 4, "subnets", "fd00::/64", "private IPv4"),
    Mutation("[docker]", "[docker]\nurl = docker.sock", 4, "url", "docker.sock", "engine"),
    Mutation("[docker]", "[docker]\ngate_id = A b", 4, "gate_id", "A b", "not an id"),
    Mutation("[docker]", "[docker]\nreach = lan", 4, "reach", "lan", "choices"),
)


class RefusalTests(SynchronousTestCase):
    """Every fault is told with its line, key and value, and what to do."""

    def check(self, base: str, mutation: Mutation) -> None:
        """Hold one mutated text against what shall be said of it."""
        self.assertIn(mutation.old, base)
        text = base.replace(mutation.old, mutation.new, 1)
        all_of_them = problems(text)
        place = [
            one
            for one in all_of_them
            if (one.line, one.key, one.value) == (mutation.line, mutation.key, mutation.value)
            and mutation.text in one.text
        ]
        shown = "\n".join(str(one) for one in all_of_them)
        self.assertEqual(len(place), 1, f"{mutation}\n{shown}")
        self.assertTrue(place[0].remedy, shown)
        self.assertEqual(place[0].file, str(PATH))
        # One fault is one line; what hangs on it may be told as well, but not all over the file.
        self.assertLessEqual(len(all_of_them), 2, shown)
        self.assertEqual(len(shown.splitlines()), len(all_of_them), shown)

    def test_base(self) -> None:
        """The text the faults are put into is itself good."""
        self.assertEqual(problems(BASE), ())
        self.assertEqual(problems(REMOTE), ())

    def test_mutations(self) -> None:
        """Each of a hundred broken files is refused at the right line and key."""
        for mutation in MUTATIONS:
            with self.subTest(mutation.new):
                self.check(BASE, mutation)

    def test_remote_mutations(self) -> None:
        """Each broken remote source is refused at the right line and key."""
        for mutation in REMOTE_MUTATIONS:
            with self.subTest(mutation.new):
                self.check(REMOTE, mutation)

    def test_container_mutations(self) -> None:
        """Each broken container is refused at the right line and key."""
        self.assertEqual(problems(BOXED), ())
        for mutation in BOXED_MUTATIONS:
            with self.subTest(mutation.new):
                self.check(BOXED, mutation)

    def test_all_at_once(self) -> None:
        """One run tells every fault, in the order of the file."""
        lines = [
            one.line for one in problems("[gate]\na = 1\nsweep = x\n[tsl]\n[auth:A]\ntype = no\n")
        ]
        self.assertEqual(lines, [2, 3, 4, 5, 6])

    def test_flood(self) -> None:
        """A large file that is no configuration is refused soon, with a short report."""
        for text in (
            "[gate]\n" + "".join(f"k{number} = 1\n" for number in range(20_000)),
            "[gate]\nlisten =\n" + " tcp:1\n" * 20_000,
            "[server:a]\n" * 20_000,
            "x\n" * 100_000,
        ):
            error = self.assertRaises(ConfigError, read, text)
            self.assertLessEqual(len(error.problems), 1000)
            self.assertLess(len(str(error)), 100_000)

    def test_anonymous_in_public(self) -> None:
        """A gate without keys that others can reach is refused unless that is said to be meant."""
        text = "[gate]\nlisten = tcp:80\n[auth:all]\ntype = none\n"
        self.assertEqual([(one.line, one.key) for one in problems(text)], [(4, "type")])
        self.assertEqual(problems(text + "allow_public = yes\n"), ())
        self.assertEqual(
            problems(text + "[auth:k]\ntype = static\nkeys_file = k\n[auth]\nuse = k"), ()
        )

    def test_budget_needs_limits(self) -> None:
        """A memory budget can not count a server without a limit."""
        text = BASE.replace("[gate]", "[gate]\nmemory_budget = 1GiB") + "memory = 0\n"
        self.assertEqual([(one.line, one.key) for one in problems(text)], [(9, "memory")])

    def test_no_home(self) -> None:
        """Without a home and a state directory one must be named."""
        text = BASE + "cwd = ~/x\n"
        self.assertEqual([one.key for one in problems(text, {})], ["state_dir", "cwd"])

    def test_secrets_are_not_shown(self) -> None:
        """No complaint repeats a secret, whether it was put in or typed."""
        text = BASE + (
            "env.A-B = ${TOKEN}\nmemory = ${TOKEN}\nenv.C-D = typed-canary\n"
            "pasword = typed-canary\nurl = https://x/${TOKEN}#\n"
            "[admin]\nuser = ${TOKEN}:\npassword = typed-canary ${NOPE}\n"
        )
        error = self.assertRaises(ConfigError, read, text)
        self.assertGreaterEqual(len(error.problems), 6)
        for shown in (str(error), repr(error), repr(error.problems)):
            self.assertNotIn("canary", shown)

    @given(st.lists(st.sampled_from([*(BASE + REMOTE).splitlines(), "x", "= ${", "[", "  [a]"])))
    @settings(max_examples=60, deadline=None)
    def test_any_lines(self, lines: list[str]) -> None:
        """However lines are mixed, the file is read or refused with a report."""
        try:
            read("\n".join(lines))
        except ConfigError as error:
            self.assertTrue(str(error))


class ParseConfigTests(SynchronousTestCase):
    """Good files."""

    def test_defaults(self) -> None:
        """A small file gets the documented defaults."""
        config = read(BASE)
        self.assertEqual(config.path, PATH)
        self.assertEqual(config.gate.state_dir, Path("/home/gate/.local/state/mcpgate"))
        self.assertEqual(
            config.auth.sources, (StaticSource(name="keys", keys_file=Path("/etc/mcpgate/keys")),)
        )
        notes = config.server("notes")
        assert notes is not None
        self.assertEqual(notes.transport, Transport.STDIO)
        self.assertEqual(notes.runtime, "process")
        self.assertEqual(notes.command, ("notes", "--stdio"))
        self.assertEqual(notes.isolation, Isolation.PER_KEY)
        self.assertEqual(notes.restraint.memory_bytes, 256 * MIB)
        self.assertFalse(notes.relay)
        self.assertIsNone(config.server("other"))
        self.assertEqual(config.sources, ())

    def test_everything_put_together(self) -> None:
        """Values of every kind reach the field they are meant for."""
        config = read(
            "[gate]\n"
            "listen =\n  tls:tcp:8443\n  redirect:tcp:8080\n"
            "public_url = https://MCP.example.org:8443/\n"
            "state_dir = ~/state\n"
            "trusted_proxies = 10.0.0.0/8, ::1\n"
            "allowed_hosts = A.example *.b.example * [::1]\n"
            "server_hosts = *.Srv.example mcp-*.example.org\n"
            "http2 = yes\nbody_min_rate = 2KiB/s\nmax_body = 1MiB\n"
            "[auth]\nuse = second first\nheader = X-Outline-API-Key\n"
            "[auth:first]\ntype = none\nallow_public = on\nservers = far\n"
            "[auth:second]\ntype = remote\nurl = http://127.0.0.1:9/\nallow_private = on\n"
            'method = POST\nheader.A = b\nbody = {\n  "t": "{key}"\n  }\nexpect_status = 200 204\n'
            "[limits]\nper_key = 2/s\nper_address = off\nper_server = 10/s\n"
            "[server:near]\ncommand = ./bin/near --port\n  {port} ${HOME}\ntransport = http\n"
            'env.TOKEN = ${TOKEN}\nfile.a.json = {"k": "{key}"}\nidle_stop = 0\n'
            "rate = 5/s\ncwd = work\n"
            "[server:far]\nurl = https://far.example/mcp?x=1\n"
            "header.Authorization = Bearer ${TOKEN}\n"
            "forward_headers = X-A, X-B\nburst = 7\n"
            "[server:gone]\ncommand = ~/gone\nenabled = off\n"
            "[admin]\nlisten = tcp:9:interface=127.0.0.1\n"
            "user = root\npassword = ${TOKEN}\nallow = 127.0.0.0/8\n"
            "[log]\nto = log/gate.log\naccess = off\nformat = json\n",
            {**ENVIRON, "STATE_DIRECTORY": "/var/lib/a:/var/lib/b"},
        )
        self.assertEqual(config.gate.listen, ("tls:tcp:8443", "redirect:tcp:8080"))
        self.assertEqual(config.gate.public_url, "https://mcp.example.org:8443")
        self.assertEqual(config.gate.state_dir, Path("/home/gate/state"))
        self.assertEqual(config.gate.trusted_proxies, (ip_network("10.0.0.0/8"), ip_network("::1")))
        self.assertEqual(config.gate.server_hosts, ("*.srv.example", "mcp-*.example.org"))
        self.assertEqual(config.gate.allowed_hosts, ("a.example", "*.b.example", "*", "::1"))
        self.assertTrue(config.gate.http2)
        self.assertEqual(config.gate.body_min_rate, 2048)
        second, first = config.auth.sources
        assert isinstance(second, RemoteSource)
        self.assertEqual(second.body, '{\n"t": "{key}"\n}')
        self.assertEqual(second.headers, (("A", "b"),))
        self.assertEqual(second.expect_status, (200, 204))
        self.assertEqual(
            first, AnonymousSource(name="first", servers=frozenset({"far"}), allow_public=True)
        )
        self.assertEqual(config.auth.headers, ("x-outline-api-key",))
        self.assertEqual(config.limits.per_key, Rate(2, 40))
        self.assertIsNone(config.limits.per_address)
        self.assertEqual(config.limits.per_server, Rate(10, 20))
        near, far = config.servers
        self.assertEqual(near.command, ("/etc/mcpgate/bin/near", "--port", "{port}", "/home/gate"))
        self.assertEqual(near.env, (("TOKEN", "hunter2-canary"),))
        self.assertEqual(near.files, (("a.json", '{"k": "{key}"}'),))
        self.assertEqual(near.lifetime.idle_stop_s, 0)
        self.assertEqual(near.rate, Rate(5, 10))
        self.assertEqual(near.cwd, "/etc/mcpgate/work")
        self.assertEqual(near.max_body_bytes, MIB)
        self.assertTrue(near.relay)
        self.assertEqual(far.runtime, "remote")
        self.assertEqual(far.isolation, Isolation.SHARED)
        self.assertEqual(far.rate, Rate(10, 7))
        self.assertEqual(far.forward_headers, ("x-a", "x-b"))
        assert config.admin.password is not None
        self.assertEqual(config.admin.password.reveal(), "hunter2-canary")
        self.assertEqual((config.log.to, config.log.access), ("/etc/mcpgate/log/gate.log", "off"))
        self.assertEqual([secret.reveal() for secret in config.secrets], ["hunter2-canary"])
        self.assertNotIn("canary", repr(config))

    def test_sse(self) -> None:
        """HTTP+SSE has paths, an era and an isolation of its own."""
        text = (
            "[auth:n]\ntype = none\n[server:far]\nurl = https://a.b/x\ntransport = sse\n"
            "header.K = {key}\n[server:near]\ncommand = x {port}\ntransport = sse\n"
            "[server:odd]\ncommand = x {port}\ntransport = sse\nmcp_path = /events\nsse = off\n"
        )
        far, near, odd = read(text).servers
        self.assertEqual((far.transport, far.era), (Transport.SSE, Eras.LEGACY))
        self.assertEqual((far.isolation, near.isolation), (Isolation.PER_KEY, Isolation.PER_KEY))
        self.assertEqual((near.mcp_path, odd.mcp_path), ("/sse", "/events"))
        self.assertEqual((near.relay, near.sse, odd.sse), (True, True, False))

    def test_health(self) -> None:
        """Health checks can be set and turned off; the answer is due before the next question."""
        start = "[auth:n]\ntype = none\n[server:io]\ncommand = x\n"
        (plain,) = read(start).servers
        life = plain.lifetime
        self.assertEqual(
            (life.health_interval_s, life.health_timeout_s, life.health_failures), (60.0, 10.0, 3)
        )
        (often,) = read(
            start + "health_interval = 2s\nhealth_timeout = 2s\nhealth_failures = 5\n"
        ).servers
        self.assertEqual((often.lifetime.health_interval_s, often.lifetime.health_failures), (2, 5))
        (off,) = read(start + "health_interval = 0\n").servers
        self.assertEqual(off.lifetime.health_interval_s, 0)
        for line, word in (
            ("health_interval = 5s", "health_timeout must be at most health_interval"),
            ("health_failures = 1", "health_failures"),
        ):
            error = self.assertRaises(ConfigError, read, start + line + "\n")
            self.assertIn(word, str(error))

    def test_tools_pinned(self) -> None:
        """Each server may say other than the gate; where tools are blocked nothing is relayed."""
        text = (
            "[gate]\ntools_pinned = block\n[auth:n]\ntype = none\n[server:far]\n"
            "url = https://a.b/x\n[server:near]\ncommand = x {port}\ntransport = http\n"
            "tools_pinned = warn\n[server:io]\ncommand = x\ntools_pinned = off\n"
        )
        config = read(text)
        found = [(spec.tools_pinned.value, spec.relay) for spec in config.servers]
        self.assertEqual(found, [("block", False), ("warn", True), ("off", False)])
        self.assertEqual([spec.tools_pinned.value for spec in config.groups], ["off"])
        shown = as_text(config)
        self.assertIn("changed tools are blocked", shown)
        self.assertIn("nobody looks for changed tools", shown)
        self.assertEqual(read(BASE).servers[0].tools_pinned.value, "warn")
        (problem,) = problems(text.replace("a.b/x", "a.b/x\nrelay = on"))
        self.assertEqual((problem.line, problem.key), (7, "relay"))
        self.assertIn("past the gate", problem.text)

    def test_containers(self) -> None:
        """What is said of a container reaches the field it is meant for."""
        config = read(
            "[auth:n]\ntype = none\n"
            "[docker]\nurl = unix:///run/podman.sock\ngate_id = one\nsubnets = 10.9.0.0/16\n"
            "reach = published\nfirewall = admin\non_stop = stop\nfiles_dir = files\n"
            f"[server:box]\nimage = reg.example:5000/mcp/time:1.2{DIGEST}\n"
            "command = --tz ${HOME}\ntransport = http\nport = 3000\npull = at-start\n"
            "entrypoint = /bin/x --flag\nuser = 10:20\negress = internet\ndata = per-key\n"
            "volumes =\n  /srv/a:/a\n  /srv//b/:/b:rw\ntmp_size = 1MiB\nkey_in_env = on\n"
            "env.K = {key}\ncwd = /app\nmemory = 64MiB\nfile.t = {key}\n",
        )
        (box,) = config.servers
        self.assertEqual((box.runtime, box.isolation.value), ("docker", "per-key"))
        self.assertEqual((box.command, box.cwd), (("--tz", "/home/gate"), "/app"))
        self.assertEqual(
            box.container,
            Container(
                image=f"reg.example:5000/mcp/time:1.2{DIGEST}",
                pull="at-start",
                entrypoint=("/bin/x", "--flag"),
                port=3000,
                user="10:20",
                egress="internet",
                data="per-key",
                volumes=("/srv/a:/a", "/srv/b:/b:rw"),
                tmp_bytes=MIB,
                key_in_env=True,
            ),
        )
        (listed,) = read(
            "[auth:n]\ntype = none\n[server:box]\nimage = x\negress = allow-list\n"
            "egress_to = API.Example.:443, 10.1.2.3\n  203.0.113.0/24:80\n"
        ).servers
        self.assertEqual(
            listed.container.egress_to,
            (
                Destination("api.example", 443),
                Destination("10.1.2.3"),
                Destination("203.0.113.0/24", 80),
            ),
        )
        docker = config.docker
        self.assertEqual((docker.url, docker.gate_id), ("unix:///run/podman.sock", "one"))
        self.assertEqual(docker.files_dir, Path("/etc/mcpgate/files"))
        self.assertEqual(
            (docker.reach, docker.firewall, docker.on_stop), ("published", "admin", "stop")
        )
        self.assertIn("runs reg.example", as_text(config))

    def test_state_directory_of_systemd(self) -> None:
        """The state directory systemd made is used, the first if there are more."""
        config = read(BASE, {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"})
        self.assertEqual(config.gate.state_dir, Path("/var/lib/a"))

    def test_a_value_never_becomes_two(self) -> None:
        """What comes from elsewhere is one argument, whatever it holds."""
        config = read(BASE.replace("--stdio", "${A}"), {**ENVIRON, "A": "x ' --evil"})
        self.assertEqual(config.servers[0].command, ("notes", "x ' --evil"))

    def test_program_in_home(self) -> None:
        """A program may be named from the home directory."""
        config = read(BASE.replace("notes --", "~/bin/notes --"))
        self.assertEqual(config.servers[0].command[0], "/home/gate/bin/notes")

    def test_rate_off(self) -> None:
        """A server may be let off the common limit."""
        config = read(BASE + "rate = off\n[limits]\nper_server = 1/s\n")
        self.assertIsNone(config.servers[0].rate)
        config = read(BASE + "[limits]\nper_server = 1/min\n")
        self.assertEqual(config.servers[0].rate, Rate(1 / 60, 1))

    def test_certificates(self) -> None:
        """Certificates are pairs of files, with or without names, beside the configuration."""
        base = Path(self.mktemp())
        base.mkdir(parents=True)
        for name in ("a.pem", "b c.pem"):
            (base / name).write_text("x")
        text = BASE + "[tls]\ncertificates =\n  a.pem 'b c.pem'\n  key=a.pem cert=a.pem\n"
        config = parse_config(text, base / "gate.ini", ENVIRON)
        one, two = config.tls.certificates
        self.assertEqual((one.certificate.name, one.key.name), ("a.pem", "b c.pem"))
        self.assertEqual((two.certificate, two.key), (one.certificate, one.certificate))


class ReadConfigTests(SynchronousTestCase):
    """The file itself."""

    def setUp(self) -> None:
        """Write a good file."""
        self.path = Path(self.mktemp())
        self.path.write_text(BASE)
        self.path.chmod(0o644)

    def refuse(self, uid: int | None = None) -> str:
        """Give the report."""
        return str(self.assertRaises(ConfigError, read_config, self.path, ENVIRON, uid=uid))

    def test_good(self) -> None:
        """A good file of one's own is read."""
        config = read_config(self.path, ENVIRON)
        self.assertEqual(config.path, self.path.absolute())

    def test_others_may_not_write(self) -> None:
        """A file others can write is refused with the command that mends it."""
        for mode in (0o664, 0o646):
            self.path.chmod(mode)
            self.assertIn(f"chmod go-w {self.path}", self.refuse())

    def test_owner(self) -> None:
        """A file of a stranger is refused."""
        if os.geteuid() == 0:
            os.chown(self.path, 12345, -1)
        self.assertIn("belongs to another user", self.refuse(uid=54321))

    def test_unreadable(self) -> None:
        """What is no file, too large or not UTF-8 is refused with a report."""
        self.path.write_bytes(b"[gate]\n\n# \xff\n")
        self.assertIn(":3: the line is not UTF-8", self.refuse())
        self.path.write_bytes(b"#" * (1024 * 1024 + 1))
        self.assertIn("larger than 1024 KiB", self.refuse())
        self.path.unlink()
        self.assertIn("No such file", self.refuse())
        self.path.mkdir()
        self.assertIn("not a regular file", self.refuse())
        self.path = Path("a\0b")
        self.assertIn("can not be read", self.refuse())
