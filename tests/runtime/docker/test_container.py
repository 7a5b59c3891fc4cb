"""Tests of mcpgate.runtime.docker.container: the walls, the names, the labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import (
    MIB,
    Container,
    InstanceKey,
    Isolation,
    Lifetime,
    Owner,
    Restraint,
    ServerSpec,
    Transport,
)
from mcpgate.runtime.docker import container
from mcpgate.runtime.docker.container import NOBODY, Place

SPEC = ServerSpec(
    name="time",
    transport=Transport.STDIO,
    runtime="docker",
    container=Container(image="mcp/time:1"),
)
WEB = replace(SPEC, name="web", transport=Transport.HTTP, command=("--port", "{port}"))
KEY = InstanceKey("time", Owner(Isolation.PER_KEY, "d" * 32))


def body(spec: ServerSpec = SPEC, place: Place | None = None, **more: Any) -> dict[str, Any]:
    """Make the body of a create call."""
    fields: dict[str, Any] = {
        "gate_id": "gate",
        "image_id": "sha256:1",
        "image_user": "",
        "values": container.template_values(spec, {"key": "k" * 20, "user": "--privileged"}),
        "place": place or Place(),
        "hash_key": b"secret",
    }
    return container.create_parameters(spec, KEY, **(fields | more))


class WallsTests(SynchronousTestCase):
    """What no configuration takes away (R51)."""

    def test_always(self) -> None:
        """Every container is walled in, whatever its entry says."""
        for spec in (
            SPEC,
            WEB,
            replace(WEB, container=Container(image="x", egress="internet", user="12")),
            replace(SPEC, restraint=Restraint(memory_bytes=0, cpus=0, pids=0, open_files=0)),
        ):
            made = body(spec, Place(network="n"))
            host = made["HostConfig"]
            self.assertEqual(host["CapDrop"], ["ALL"])
            self.assertEqual(host["CapAdd"], [])
            self.assertEqual(host["SecurityOpt"], ["no-new-privileges"])
            self.assertIs(host["ReadonlyRootfs"], True)
            self.assertIs(host["Privileged"], False)
            self.assertIs(host["Init"], True)
            self.assertEqual(host["IpcMode"], "private")
            self.assertNotIn("host", (host["NetworkMode"], host.get("PidMode")))
            self.assertEqual(host["PortBindings"], {})
            self.assertEqual(host["RestartPolicy"], {"Name": "no"})
            self.assertIn({"Name": "core", "Soft": 0, "Hard": 0}, host["Ulimits"])
            self.assertNotIn(made["User"].partition(":")[0], ("", "0", "root"))
            self.assertEqual(made["Healthcheck"], {"Test": ["NONE"]})

    def test_limits(self) -> None:
        """Memory is all memory, swap included; processor, processes and files are bounded."""
        host = body(replace(SPEC, restraint=Restraint(file_bytes=5)))["HostConfig"]
        self.assertEqual((host["Memory"], host["MemorySwap"]), (256 * MIB, 256 * MIB))
        self.assertEqual((host["NanoCpus"], host["PidsLimit"]), (300_000_000, 128))
        self.assertEqual([one["Name"] for one in host["Ulimits"]], ["core", "nofile", "fsize"])
        self.assertIn("size=67108864", host["Tmpfs"]["/tmp"])

    def test_logs(self) -> None:
        """Messages of stdio servers are kept on no disk, logs of others are bounded."""
        self.assertEqual(body()["HostConfig"]["LogConfig"], {"Type": "none"})
        self.assertEqual(
            body(WEB)["HostConfig"]["LogConfig"]["Config"], {"max-size": "10m", "max-file": "3"}
        )

    def test_users(self) -> None:
        """An image that wants to be root is nobody; another keeps its user; the entry wins."""
        for wanted in ("", "0", "root", "0:0", "root:root"):
            made = body(image_user=wanted)
            self.assertEqual(made["User"], NOBODY)
            self.assertIn("HOME=/tmp", made["Env"])
        self.assertEqual(body(image_user="app")["User"], "app")
        own = replace(SPEC, container=Container(image="x", user="7:8"), env=(("HOME", "/h"),))
        self.assertEqual(body(own)["User"], "7:8")
        self.assertEqual(body(own)["Env"], ["HOME=/h"])
        nobody = replace(own, container=Container(image="x"))
        self.assertEqual(body(nobody)["Env"], ["HOME=/h"])


class RequestTests(SynchronousTestCase):
    """What else the engine is told."""

    def test_stdio(self) -> None:
        """Stdin is open for a server on stdio alone, and ends with the connection."""
        made = body()
        self.assertTrue(made["OpenStdin"] and made["StdinOnce"] and made["AttachStdin"])
        self.assertNotIn("NetworkingConfig", made)
        self.assertNotIn("Cmd", made)
        made = body(WEB, Place(network="n"))
        self.assertFalse(made["OpenStdin"] or made["StdinOnce"])
        self.assertEqual(made["Cmd"], ["--port", "8000"])
        self.assertEqual(made["NetworkingConfig"], {"EndpointsConfig": {"n": {}}})

    def test_names_are_not_looked_up_where_nothing_can_be_reached(self) -> None:
        """A closed container asks no name server of the engine's."""
        self.assertEqual(body(WEB, Place(network="n"))["HostConfig"]["Dns"], ["127.0.0.1"])
        self.assertNotIn("Dns", body(WEB, Place(network="n", closed=False))["HostConfig"])
        self.assertNotIn("Dns", body()["HostConfig"])

    def test_published(self) -> None:
        """A published port is on the loopback address, and of the engine's choice."""
        made = body(WEB, Place(network="n", published=True))
        self.assertEqual(made["ExposedPorts"], {"8000/tcp": {}})
        self.assertEqual(
            made["HostConfig"]["PortBindings"],
            {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        )
        self.assertEqual(body(place=Place(published=True))["HostConfig"]["PortBindings"], {})

    def test_mounts(self) -> None:
        """Files are read-only, data is not, volumes are as they say."""
        spec = replace(SPEC, container=Container(image="x", volumes=("/a:/b", "/c:/d:rw")))
        mounts = body(spec, Place(files_dir="/f", data_dir="/g"))["HostConfig"]["Mounts"]
        self.assertEqual(
            [(one["Source"], one["Target"], one["ReadOnly"]) for one in mounts],
            [
                ("/f", "/run/mcpgate", True),
                ("/g", "/data", False),
                ("/a", "/b", True),
                ("/c", "/d", False),
            ],
        )

    def test_program(self) -> None:
        """Program, arguments and folder are those of the entry."""
        spec = replace(
            SPEC,
            command=("{data_dir}", "{files_dir}/x"),
            cwd="/w",
            container=Container(image="x", entrypoint=("/bin/run",)),
        )
        made = body(spec)
        self.assertEqual(made["Entrypoint"], ["/bin/run"])
        self.assertEqual(made["Cmd"], ["/data", "/run/mcpgate/x"])
        self.assertEqual(made["WorkingDir"], "/w")

    def test_no_option_from_a_name(self) -> None:
        """A user who is called like an option is no option (R54)."""
        with self.assertRaises(ValueError):
            body(replace(SPEC, command=("{user}",)))
        self.assertEqual(body(replace(SPEC, command=("--u={user}",)))["Cmd"], ["--u=--privileged"])

    def test_key_shows_nowhere(self) -> None:
        """Without key_in_env the engine never sees the caller's key, nor a label the entry."""
        spec = replace(SPEC, files=(("token", "{key}"),), env=(("API", "of-the-gate"),))
        self.assertNotIn("k" * 20, json.dumps(body(spec)))
        labels = json.dumps(body(spec)["Labels"])
        self.assertNotIn("of-the-gate", labels)

    def test_hidden(self) -> None:
        """The caller's key and longer values of the environment are hidden in logs."""
        spec = replace(SPEC, env=(("A", "short"), ("B", "long-{key}")))
        self.assertEqual(container.hidden_texts(spec, {"key": "kkkk"}), ("long-kkkk", "kkkk"))
        self.assertEqual(container.hidden_texts(SPEC, {}), ())


class NameTests(SynchronousTestCase):
    """Names, labels and digests."""

    @given(st.text(max_size=80), st.text(max_size=80))
    @settings(max_examples=60)
    def test_names(self, user: str, digest: str) -> None:
        """Whoever calls, a name is one the engine takes, and no option (R54)."""
        key = InstanceKey("time", Owner(Isolation.PER_KEY, digest + user))
        name = container.container_name("gate", key, "0123456789abcdef")
        self.assertTrue(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name, re.ASCII))
        self.assertTrue(re.fullmatch("[0-9a-f]{32}", container.key_label(key)))

    def test_digest_of_the_entry(self) -> None:
        """What makes a difference in the container changes it, what does not leaves it."""
        usual = container.spec_hash(SPEC, b"k")
        same = (replace(SPEC, lifetime=Lifetime(idle_stop_s=1)), replace(SPEC, max_calls=1))
        for spec in same:
            self.assertEqual(container.spec_hash(spec, b"k"), usual)
        for spec in (
            replace(SPEC, env=(("A", "b"),)),
            replace(SPEC, files=(("A", "b"),)),
            replace(SPEC, restraint=Restraint(pids=3)),
            replace(SPEC, container=Container(image="mcp/time:2")),
        ):
            self.assertNotEqual(container.spec_hash(spec, b"k"), usual)
        self.assertNotEqual(container.spec_hash(SPEC, b"other"), usual)

    def test_known_again(self) -> None:
        """What was written into labels and name is read from the engine's list."""
        listed = {
            "Id": "c1",
            "Names": ["/" + container.container_name("gate", KEY, "start7")],
            "ImageID": "sha256:1",
            "State": "running",
            "Labels": container.labels(SPEC, KEY, "gate", b"k"),
            "Created": 12,
            "HostConfig": {"NetworkMode": "n"},
        }
        known = container.known(listed)
        self.assertEqual((known.key, known.instance_id), (KEY, "start7"))
        self.assertTrue(known.running)
        self.assertEqual((known.network, known.created_at), ("n", 12.0))

    def test_given_away(self) -> None:
        """The name of a container that was nobody's tells who has it."""
        made_for = InstanceKey("time", Owner.nobody(Isolation.PER_KEY, "7f"))
        session = Owner(Isolation.PER_SESSION, "a" * 32 + "/" + "b" * 32)
        listed: dict[str, Any] = {
            "Id": "c1",
            "State": "running",
            "Labels": container.labels(SPEC, made_for, "gate", b"k"),
        }

        def named(name: str) -> container.Known:
            return container.known({**listed, "Names": ["/" + name]})

        spare = named(container.container_name("gate", made_for, "start7"))
        self.assertEqual((spare.key, spare.is_used_up), (made_for, True))
        for owner in (KEY.owner, session):
            name = container.given_name("gate", made_for, InstanceKey("time", owner), "start7")
            self.assertTrue(re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name, re.ASCII))
            given = named(name)
            self.assertEqual(given.key, InstanceKey("time", owner))
            self.assertEqual((given.made_for, given.instance_id), (made_for, "start7"))
            self.assertFalse(given.is_used_up)
            self.assertTrue(replace(given, state="exited").is_used_up)
        for name in ("x.for.whom.y.start7", "x.by.per-key.y.start7"):
            self.assertEqual(named(name).key, made_for)

    def test_foreign(self) -> None:
        """Labels that are not as ours are of nobody."""
        for labels in ({}, {"mcpgate.isolation": "what", "mcpgate.server": "x"}):
            known = container.known({"Id": "c", "State": "exited", "Labels": labels})
            self.assertIsNone(known.key)
            self.assertFalse(known.running)

    def test_times(self) -> None:
        """Times of the engine are read; no time is long ago."""
        self.assertEqual(container.wall_time("1970-01-01T00:01:00.123456789Z"), 60.0)
        self.assertEqual(container.wall_time(""), 0.0)
