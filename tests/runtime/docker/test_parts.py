"""Tests of the smaller parts of mcpgate.runtime.docker."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import ImageMissing, RuntimeUnavailable
from mcpgate.model import (
    Container,
    Destination,
    Exit,
    InstanceKey,
    Isolation,
    Owner,
    ServerSpec,
    Transport,
    Usage,
)
from mcpgate.runtime.docker import firewall, networks
from mcpgate.runtime.docker.cgroups import Cgroups
from mcpgate.runtime.docker.engine import NotThere, Refused
from mcpgate.runtime.docker.events import EventStream
from mcpgate.runtime.docker.firewall import Firewall
from mcpgate.runtime.docker.images import LOG_S, Images
from mcpgate.runtime.docker.instance import ContainerInstance, how_ended
from mcpgate.runtime.docker.networks import Networks
from mcpgate.runtime.docker.secrets import SecretFiles, default_root
from mcpgate.runtime.places import Places

KEY = InstanceKey("time", Owner(Isolation.PER_KEY, "d" * 32))
SPEC = ServerSpec(
    name="time",
    transport=Transport.STDIO,
    runtime="docker",
    container=Container(image="mcp/time:1"),
)


class FakeCalls:
    """Calls answered by a fake client, at once."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.closed = False

    def call(self, work: Any, **_: Any) -> Deferred[Any]:
        """Do it."""
        try:
            return succeed(work(self.client))
        except Exception as error:
            return fail(error)

    def close(self) -> None:
        """Close."""
        self.closed = True


class CgroupTests(SynchronousTestCase):
    """`Cgroups`."""

    def setUp(self) -> None:
        """Make folders."""
        self.root = Path(self.mktemp())
        (self.root / "7").mkdir(parents=True)
        self.cgroups = Cgroups(str(self.root), str(self.root / "cg"))

    def write(self, folder: str, **files: str) -> None:
        """Write files of a cgroup."""
        where = self.root / "cg" / folder
        where.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (where / name.replace("__", ".")).write_text(text)

    def test_version_1(self) -> None:
        """Memory without cache, processor and processes."""
        (self.root / "7" / "cgroup").write_text(
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n1:x:/\n"
            "0::/docker/abc\n"
        )
        self.write(
            "memory/docker/abc",
            memory__usage_in_bytes="1000\n",
            memory__stat="cache 1\ntotal_inactive_file 300\n",
            memory__oom_control="under_oom 0\noom_kill 4\n",
        )
        self.write("cpuacct/docker/abc", cpuacct__usage="2500000000\n")
        self.write("pids/docker/abc", pids__current="3\n")
        found = self.cgroups.find(7, "abc")
        self.assertEqual(
            self.cgroups.usage(found), Usage(memory_bytes=700, cpu_s=2.5, processes=3, oom_kills=4)
        )

    def test_version_2(self) -> None:
        """The same from one folder."""
        (self.root / "7" / "cgroup").write_text("0::/system.slice/docker-abc.scope\n")
        self.write(
            "system.slice/docker-abc.scope",
            memory__current="1000\n",
            memory__stat="inactive_file 1\n",
            memory__events="oom 2\noom_kill 1\n",
            cpu__stat="usage_usec 1500000\nuser_usec 1\n",
            pids__current="2\n",
        )
        found = self.cgroups.find(7, "abc")
        self.assertEqual(
            self.cgroups.usage(found), Usage(memory_bytes=999, cpu_s=1.5, processes=2, oom_kills=1)
        )

    def test_version_2_of_podman(self) -> None:
        """Podman puts the processes one folder deeper."""
        path = "machine.slice/libpod-abc.scope/container"
        (self.root / "7" / "cgroup").write_text(f"0::/{path}\n")
        self.write(path, memory__current="500\n", pids__current="1\n")
        found = self.cgroups.find(7, "abc")
        self.assertEqual(self.cgroups.usage(found), Usage(memory_bytes=500, processes=1))

    def test_unknown(self) -> None:
        """What can not be told is None; a process of somebody else is not looked at."""
        self.assertEqual(self.cgroups.find(8, "abc"), {})
        (self.root / "7" / "cgroup").write_text("0::/user.slice\n")
        self.assertEqual(self.cgroups.find(7, "abc"), {})
        self.assertEqual(self.cgroups.usage({}), Usage())
        self.assertEqual(self.cgroups.usage({"memory": "/nowhere"}), Usage())
        self.assertEqual(self.cgroups.usage({"": "/nowhere"}), Usage())


class SecretTests(SynchronousTestCase):
    """`SecretFiles`."""

    def setUp(self) -> None:
        """Make a root."""
        self.root = Path(self.mktemp()).absolute()
        self.files = SecretFiles(str(self.root))

    def spec(self, **files: str) -> ServerSpec:
        """Make an entry with files."""
        return ServerSpec(name="x", transport=Transport.STDIO, files=tuple(files.items()))

    def test_written(self) -> None:
        """Files hold what templates say, for the container alone: the root is closed."""
        folder = self.files.write("label", self.spec(token="<{key}>"), {"key": "sesame"})
        self.assertEqual(Path(folder, "token").read_text(), "<sesame>")
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o700)
        self.assertEqual(Path(folder, "token").stat().st_mode & 0o777, 0o444)
        again = self.files.write("label", self.spec(token="new"), {})
        self.assertEqual((again, Path(folder, "token").read_text()), (folder, "new"))
        self.files.empty("label")
        self.assertEqual(list(Path(folder).iterdir()), [])
        self.files.empty("nobody")
        self.files.tidy({"label"})
        self.assertTrue(Path(folder).exists())
        self.files.tidy(set())
        self.assertFalse(Path(folder).exists())

    def test_hosts(self) -> None:
        """The hosts file of a container is changed in place, and goes with its folder."""
        self.assertEqual(self.files.hosts("label"), "")
        self.files.write_hosts("label", "long text\n")
        self.files.write_hosts("label", "short\n")
        self.assertEqual(self.files.hosts("label"), "short\n")
        self.files.tidy({"label"})
        self.assertEqual(self.files.hosts("label"), "short\n")
        self.files.tidy(set())
        self.assertEqual(list(self.root.iterdir()), [])

    def test_nothing_to_write(self) -> None:
        """A server without files has no folder."""
        self.assertEqual(self.files.write("label", self.spec(), {}), "")
        self.files.tidy(set())
        self.assertFalse(self.root.exists())

    def test_leading_out(self) -> None:
        """A name that leads out is refused."""
        for name in ("../x", "a/b", ""):
            with self.assertRaises(ValueError):
                self.files.write("label", self.spec(**{name: "x"}), {})

    def test_open_to_others(self) -> None:
        """A root somebody else could look into is refused."""
        self.root.mkdir(mode=0o755)
        with self.assertRaises(PermissionError):
            self.files.write("label", self.spec(token="x"), {})

    def test_default(self) -> None:
        """The system's place for such things is used, else memory."""
        self.assertEqual(default_root({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "g"), "/run/a/files")
        self.assertEqual(default_root({}, "g"), "/dev/shm/mcpgate-g")

    def test_data(self) -> None:
        """A folder of data can be written by any user, below one that is closed."""
        places = Places(str(self.root))
        folder = Path(places.make_data(KEY))
        self.assertEqual(folder.stat().st_mode & 0o777, 0o777)
        self.assertEqual((self.root / "data").stat().st_mode & 0o777, 0o700)
        self.assertEqual(places.make_data(KEY), str(folder))


class FakeNetworks:
    """The SDK's calls for networks."""

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.created: list[dict[str, Any]] = []
        self.removed: list[str] = []
        self.refusals: list[Exception] = []

    def networks(self, **_: Any) -> list[dict[str, Any]]:
        """See the SDK."""
        return self.listed

    def create_network(self, **wanted: Any) -> None:
        """See the SDK."""
        if self.refusals:
            raise self.refusals.pop(0)
        self.created.append(wanted)

    def remove_network(self, network_id: str) -> None:
        """See the SDK."""
        if network_id == "busy":
            raise Refused(403, "has active endpoints")
        self.removed.append(network_id)


WEB = ServerSpec(name="web", transport=Transport.HTTP, runtime="docker")
OPEN = ServerSpec(
    name="web", transport=Transport.STDIO, runtime="docker", container=Container(egress="internet")
)


class NetworkTests(SynchronousTestCase):
    """`Networks`."""

    def setUp(self) -> None:
        """Make a fake engine."""
        self.engine = FakeNetworks()
        self.networks = self.make()

    def make(self, **more: Any) -> Networks:
        """Make networks of four subnets."""
        pool = IPv4Network("10.213.0.0/26")
        return Networks(FakeCalls(self.engine), gate_id="g", pool=pool, **more)  # type: ignore[arg-type]  # a fake

    def name(self, spec: ServerSpec = WEB, key: InstanceKey = KEY) -> str:
        """Ask for a network."""
        name: str = self.successResultOf(self.networks.ensure(spec, key))
        return name

    def test_none(self) -> None:
        """A server on stdio that reaches nothing has none."""
        self.assertEqual(self.name(SPEC), "none")
        self.assertEqual(self.engine.created, [])

    def test_closed(self) -> None:
        """An HTTP server has an internal one, made once, known by our prefix."""
        name = self.name()
        self.assertEqual(self.name(), name)
        (made,) = self.engine.created
        self.assertTrue(made["internal"])
        bridge = made["options"]["com.docker.network.bridge.name"]
        self.assertTrue(bridge.startswith(firewall.CLOSED))
        self.assertLessEqual(len(bridge), 15)
        self.assertEqual(made["labels"], {"mcpgate.gate": "g"})

    def test_open(self) -> None:
        """One with a way out is not internal, and has the other prefix."""
        self.name(OPEN)
        (made,) = self.engine.created
        self.assertFalse(made["internal"])
        self.assertTrue(made["options"]["com.docker.network.bridge.name"].startswith(firewall.OPEN))

    def test_listed(self) -> None:
        """One with a list has a prefix of its own; another list is another network."""
        names = []
        for host in ("a.example", "b.example"):
            box = Container(egress="allow-list", egress_to=(Destination(host),))
            names.append(self.name(replace(WEB, container=box)))
        self.assertEqual(len(set(names)), 2)
        made = self.engine.created[0]
        self.assertFalse(made["internal"])
        bridge = made["options"]["com.docker.network.bridge.name"]
        self.assertEqual(bridge, networks.bridge_name(names[0], "allow-list"))
        self.assertTrue(bridge.startswith(firewall.LISTED))

    def test_published(self) -> None:
        """To publish ports the engine must not close it; nothing is masqueraded."""
        self.networks = self.make(published=True)
        self.name()
        (made,) = self.engine.created
        self.assertFalse(made["internal"])
        self.assertEqual(made["options"]["com.docker.network.bridge.enable_ip_masquerade"], "false")

    def test_owners(self) -> None:
        """Every owner has his own, shared servers have one each."""
        other = InstanceKey("web", Owner(Isolation.PER_KEY, "e" * 32))
        shared = InstanceKey("web", Owner(Isolation.SHARED))
        also = InstanceKey("more", Owner(Isolation.SHARED))
        names = {networks.network_name("g", key, "none") for key in (KEY, other, shared, also)}
        self.assertEqual(len(names), 4)
        same = InstanceKey("another", KEY.owner)
        self.assertEqual(
            networks.network_name("g", KEY, "none"), networks.network_name("g", same, "none")
        )

    def test_there_already(self) -> None:
        """One that exists is taken; so is one that came to be in between."""
        self.engine.listed = [{"Name": networks.network_name("g", KEY, "none"), "Id": "1"}]
        self.name()
        self.engine.listed = []
        self.networks.forget(self.name())
        self.engine.refusals = [Refused(409, "network already exists")]
        self.name()
        self.assertEqual(self.engine.created, [])

    def test_addresses(self) -> None:
        """Subnets in use are passed over, also those the engine alone knows of."""
        taken = {
            "Name": "x",
            "IPAM": {"Config": [{"Subnet": "10.213.0.0/28"}, {"Subnet": "fd::/64"}]},
        }
        self.engine.listed = [taken, {"Name": "y", "IPAM": None}, {"Name": "host"}]
        self.engine.refusals = [
            Refused(403, "Pool overlaps with other one on this address space"),
            Refused(500, "subnet 10.213.0.32/28 is already used on the host or by another config"),
        ]
        self.name()
        (made,) = self.engine.created
        self.assertEqual(made["ipam"]["Config"][0]["Subnet"], "10.213.0.48/28")

    def test_no_addresses(self) -> None:
        """When none is left that is said; what else the engine refuses is told as it is."""
        self.engine.listed = [{"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/8"}]}}]
        self.failureResultOf(self.networks.ensure(WEB, KEY), RuntimeUnavailable)
        self.engine.listed = []
        self.engine.refusals = [Refused(500, "no")]
        self.failureResultOf(self.networks.ensure(WEB, KEY), Refused)

    def test_tidy(self) -> None:
        """What nobody needs is removed; what somebody uses stays."""
        name = self.name()
        self.engine.listed = [
            {"Name": name, "Id": "1"},
            {"Name": "kept", "Id": "2"},
            {"Name": "used", "Id": "busy"},
        ]
        self.assertEqual(self.successResultOf(self.networks.tidy({"kept"})), 1)
        self.assertEqual(self.engine.removed, ["1"])
        self.engine.listed = []
        self.name()
        self.assertEqual(len(self.engine.created), 2)


class FakeProcess:
    """A process transport that ends as it is told."""

    def __init__(self, protocol: Any, code: int | None, said: str) -> None:
        self.protocol, self.code, self.said = protocol, code, said
        self.given = b""
        self.killed = False

    def write(self, data: bytes) -> None:
        """See the interface."""
        self.given += data

    def closeStdin(self) -> None:  # noqa: N802  # Twisted's
        """End, unless it hangs."""
        if self.code is None:
            return
        self.protocol.outReceived(self.said.encode())
        reason: Exception = ProcessTerminated(self.code) if self.code else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))

    def signalProcess(self, _: str) -> None:  # noqa: N802  # Twisted's
        """See the interface."""
        if self.killed:
            raise ProcessExitedAlready
        self.killed = True


class FirewallTests(SynchronousTestCase):
    """`Firewall`."""

    def setUp(self) -> None:
        """Make a firewall over programs that do nothing."""
        self.clock = Clock()
        self.ran: list[tuple[list[str], bytes]] = []
        self.answers: list[tuple[int | None, str]] = []
        self.clock.spawnProcess = self.spawn  # type: ignore[attr-defined]  # a reactor for this
        self.bridges: set[str] = set()
        self.firewall = Firewall(
            self.clock, program="/sbin/iptables", exists=lambda bridge: bridge in self.bridges
        )

    def spawn(self, protocol: Any, program: str, words: list[str], env: object) -> None:
        """Run a program."""
        code, said = self.answers.pop(0) if self.answers else (0, "")
        if code == -99:
            raise FileNotFoundError(program)
        process = FakeProcess(protocol, code, said)
        protocol.makeConnection(process)
        self.ran.append((words, process.given))

    def test_rules(self) -> None:
        """Nobody gets to the host, to private networks or to the metadata service."""
        text = firewall.rules(["10.1.2.3"])
        self.assertIn("-A MCPGATE-INPUT -j DROP", text)
        self.assertIn("-A MCPGATE-FORWARD -i mcpg0+ -j DROP", text)
        self.assertIn("-A MCPGATE-FORWARD -d 169.254.0.0/16 -j DROP", text)
        self.assertLess(text.index("10.1.2.3/32 -p udp --dport 53"), text.index("-d 10.0.0.0/8"))
        self.assertTrue(text.endswith("COMMIT\n"))

    def test_there_already(self) -> None:
        """What stands in our chains is made anew once; then what is there is left as it is."""
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "")
        self.assertEqual([words[3] for words, _ in self.ran], ["-C", "-C", "-C", "-N", "--noflush"])
        self.ran.clear()
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "")
        self.assertEqual([words[3] for words, _ in self.ran], ["-C"] * 4)
        self.ran.clear()
        self.answers = [(0, ""), (0, ""), (0, ""), (1, "")]
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "")
        self.assertEqual(self.ran[-1][0][3], "--noflush")

    def test_put_up(self) -> None:
        """What is missing is put up: the chains first, then the ways into them."""
        self.answers = [(1, ""), (2, "Chain 'x' does not exist")]
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "")
        programs = [(words[0], words[3]) for words, _ in self.ran]
        self.assertEqual(
            programs,
            [
                ("/sbin/iptables", "-C"),
                ("/sbin/iptables", "-C"),
                ("/sbin/iptables", "-C"),
                ("/sbin/iptables", "-N"),
                ("/sbin/iptables-restore", "--noflush"),
                ("/sbin/iptables", "-I"),
                ("/sbin/iptables", "-I"),
            ],
        )

    def test_not_allowed(self) -> None:
        """Why it can not be done is told."""
        self.answers = [(4, "Fatal\nPermission denied (you must be root)\n")]
        self.assertIn("must be root", self.successResultOf(self.firewall.ensure()))
        self.answers = [(4, "")]
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "iptables ended: 4")
        self.answers = [(1, ""), (0, ""), (0, ""), (0, ""), (3, "bad rule")]
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "bad rule")
        self.answers = [(1, ""), (0, ""), (0, ""), (0, ""), (3, "")]
        self.assertEqual(self.successResultOf(self.firewall.ensure()), "iptables ended: 3")
        self.answers = [(-99, "")]
        self.assertIn("/sbin/iptables", self.successResultOf(self.firewall.ensure()))

    def test_no_program(self) -> None:
        """A machine without iptables is told so."""
        self.firewall._program = ""
        self.assertIn("no iptables", self.successResultOf(self.firewall.ensure()))

    def test_hanging(self) -> None:
        """A program that hangs is killed and told."""
        self.answers = [(None, "")]
        ensuring = self.firewall.ensure()
        self.clock.advance(5.0)
        self.assertIn("did not end", self.successResultOf(ensuring))

    def test_list_rules(self) -> None:
        """A list opens what it names; private networks only where it names them themselves."""
        named = [firewall.Opening(IPv4Network(one), 443) for one in ("10.1.0.0/16", "8.0.0.0/5")]
        lines = firewall.list_rules("mcpg2a", named).splitlines()
        self.assertEqual(lines[2], "-A MCPGATE-mcpg2a -o mcpg+ -j DROP")
        meant = lines.index("-A MCPGATE-mcpg2a -d 10.1.0.0/16 -p tcp --dport 443 -j ACCEPT")
        kept = lines.index("-A MCPGATE-mcpg2a -d 10.0.0.0/8 -j DROP")
        public = lines.index("-A MCPGATE-mcpg2a -d 8.0.0.0/5 -p tcp --dport 443 -j ACCEPT")
        self.assertTrue(meant < kept < public)
        every = firewall.list_rules("mcpg2a", [firewall.Opening(IPv4Network("8.8.8.8"))])
        self.assertIn("-d 8.8.8.8/32 -p tcp -j ACCEPT", every)

    def test_list(self) -> None:
        """The chain of a bridge is made anew at once; the way into it is made once."""
        self.answers = [(0, ""), (1, "")]
        self.assertEqual(self.successResultOf(self.firewall.open_list("mcpg2a", [])), "")
        self.assertEqual([words[3] for words, _ in self.ran], ["--noflush", "-C", "-A"])
        self.ran.clear()
        self.assertEqual(self.successResultOf(self.firewall.open_list("mcpg2a", [])), "")
        self.assertEqual([words[3] for words, _ in self.ran], ["--noflush", "-C"])
        self.answers = [(4, "no")]
        self.assertEqual(self.successResultOf(self.firewall.open_list("mcpg2a", [])), "no")
        self.answers = [(0, ""), (1, ""), (4, "not now")]
        self.assertEqual(self.successResultOf(self.firewall.open_list("mcpg2a", [])), "not now")

    def test_lists_of_the_gone(self) -> None:
        """Lists of bridges that are gone are removed."""
        self.bridges = {"mcpg2a"}
        said = "-N MCPGATE-LISTS\n" + "".join(
            f"-A MCPGATE-LISTS -i mcpg2{one} -j MCPGATE-mcpg2{one}\n" for one in "ab"
        )
        self.answers = [(0, said)]
        self.assertEqual(self.successResultOf(self.firewall.lists()), {"mcpg2a"})
        self.assertIn(b"-X MCPGATE-mcpg2b\n", self.ran[-1][1])
        self.answers = [(1, "No chain")]
        self.assertEqual(self.successResultOf(self.firewall.lists()), set())
        self.firewall._program = ""
        self.assertEqual(self.successResultOf(self.firewall.lists()), set())

    def test_name_servers(self) -> None:
        """Name servers elsewhere are found; those on the host itself and of IPv6 are not."""
        path = self.mktemp()
        Path(path).write_text(
            "search x\nnameserver 10.0.0.2\nnameserver 127.0.0.53\nnameserver ::1\n"
            "nameserver what\n"
        )
        self.assertEqual(firewall.name_servers([path, "/nowhere"]), ["10.0.0.2"])


class FakeImages:
    """The SDK's calls for images."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.steps: list[dict[str, Any]] = []
        self.pulled: list[tuple[str, str]] = []

    def inspect_image(self, name: str) -> dict[str, Any]:
        """See the SDK."""
        if name not in self.there:
            raise NotThere(name)
        return self.there[name]

    def pull(self, repository: str, *, tag: str, **_: Any) -> list[dict[str, Any]]:
        """See the SDK."""
        self.pulled.append((repository, tag))
        if not any("error" in step for step in self.steps):
            self.there[f"{repository}:{tag}"] = {"Id": "sha256:new", "Config": None}
        return self.steps


class ImageTests(SynchronousTestCase):
    """`Images`."""

    def setUp(self) -> None:
        """Make a fake engine."""
        self.engine = FakeImages()
        self.clock = Clock()
        self.clock.callFromThread = lambda f, *args: f(*args)  # type: ignore[attr-defined]  # as a reactor
        self.pulls = FakeCalls(self.engine)
        self.images = Images(self.clock, FakeCalls(self.engine), lambda: self.pulls)  # type: ignore[arg-type,return-value]  # fakes

    def require(self, pull: str = "never") -> Deferred[Any]:
        """Ask for the image of a server."""
        box = Container(image="mcp/time:1", pull=pull)
        spec = ServerSpec(name="time", transport=Transport.STDIO, container=box)
        return Deferred.fromCoroutine(self.images.require(spec))

    def test_there(self) -> None:
        """An image that is there gives its id and user, and nothing else it says counts."""
        self.engine.there["mcp/time:1"] = {"Id": "sha256:1", "Config": {"User": "app"}}
        image = self.successResultOf(self.require())
        self.assertEqual((image.image_id, image.user), ("sha256:1", "app"))

    def test_missing(self) -> None:
        """A missing one is never fetched unless the entry says so (R47)."""
        for pull in ("never", "at-start"):
            error = self.failureResultOf(self.require(pull), ImageMissing).value
            self.assertIn("'mcp/time:1' of server 'time'", error.detail)
        self.assertEqual(self.engine.pulled, [])

    def test_on_demand(self) -> None:
        """On demand it is pulled, by name and tag; the pull tells how it goes."""
        self.engine.steps = [{"id": "a", "status": "Pulling"}, {"status": "done"}]
        image = self.successResultOf(self.require("on-demand"))
        self.assertEqual(image.image_id, "sha256:new")
        self.assertEqual(self.engine.pulled, [("mcp/time", "1")])
        self.assertEqual(self.images.progress, {})
        self.images.close()
        self.assertTrue(self.pulls.closed)

    def test_pull_fails(self) -> None:
        """A pull that fails is a missing image."""
        self.engine.steps = [{"error": "no such repository"}]
        self.failureResultOf(self.require("on-demand"), ImageMissing)

    def test_at_start(self) -> None:
        """At the start what is missing is pulled, failures are only logged."""
        specs = [
            ServerSpec(
                name=f"s{number}",
                transport=Transport.STDIO,
                container=Container(image=f"x/{number}:1", pull=pull),
            )
            for number, pull in enumerate(("at-start", "never", "at-start"))
        ]
        self.engine.there["x/2:1"] = {"Id": "1"}
        self.images.pull_at_start(specs)
        self.assertEqual(self.engine.pulled, [("x/0", "1")])
        self.engine.there.clear()
        self.engine.steps = [{"error": "no"}]
        self.images.pull_at_start(specs)
        self.assertEqual(len(self.engine.pulled), 3)

    def test_one_pull_for_many(self) -> None:
        """Many who wait share a pull; one that gives up does not end it."""
        held: list[Any] = []
        result: Deferred[None] = Deferred()

        def call(work: Any, **_: Any) -> Deferred[None]:
            held.append(work)
            return result

        self.pulls.call = call  # type: ignore[method-assign]  # a slow one
        first, second = self.images.pull("a"), self.images.pull("a")
        first.cancel()
        first.addErrback(lambda _: None)
        self.images._stepped("a", {"status": "half"})
        self.assertEqual((len(held), self.images.progress["a"].text), (1, "half"))
        result.callback(None)
        self.successResultOf(second)
        self.images._stepped("a", {"status": "late"})
        self.assertEqual(self.images.progress, {})

    def test_told(self) -> None:
        """Each image of the configuration is told of: there, missing, or being pulled."""
        specs = [
            ServerSpec(
                name=f"s{number}",
                transport=Transport.STDIO,
                container=Container(image=image, pull=pull),
            )
            for number, (image, pull) in enumerate(
                [("a:1", "never"), ("b:1", "never"), ("b:1", "at-start"), ("", "never")]
            )
        ]
        calls = FakeCalls(self.engine)
        images = Images(self.clock, calls, lambda: self.pulls, specs)  # type: ignore[arg-type,return-value]  # fakes
        self.assertEqual([one.state for one in images.views()], ["unknown", "unknown"])
        self.engine.there["a:1"] = {"Id": "i", "RepoDigests": ["a@sha256:d"], "Size": 7}
        self.successResultOf(images.look())
        first, second = images.views()
        self.assertEqual((first.state, first.digest, first.size_bytes), ("present", "sha256:d", 7))
        self.assertEqual((second.state, second.servers), ("missing", ("s1", "s2")))
        self.assertEqual(second.pull, "at-start")
        held: Deferred[None] = Deferred()
        self.pulls.call = lambda *_, **__: held  # type: ignore[method-assign]  # a slow one
        waiter = images.pull("b:1")
        step = {"id": "l", "status": "Downloading", "progressDetail": {"current": 1, "total": 4}}
        images._stepped("b:1", step)
        self.clock.advance(LOG_S)
        images._stepped("b:1", step)
        second = images.views()[1]
        self.assertEqual((second.state, second.percent), ("pulling", 25.0))
        self.assertEqual(second.progress, "0 of 1 layers, 0.0 of 0.0 MiB")
        held.errback(Refused(500, "no such repository"))
        self.failureResultOf(waiter, Refused)
        second = images.views()[1]
        self.assertEqual((second.state, second.error), ("missing", "no such repository"))
        self.engine.there["b:1"] = {"Id": "i"}
        self.successResultOf(images.look())
        second = images.views()[1]
        self.assertEqual((second.state, second.digest, second.error), ("present", "i", ""))
        calls.call = lambda *_, **__: fail(RuntimeUnavailable())  # type: ignore[method-assign]  # silent
        self.successResultOf(images.look())
        self.assertEqual(images.views()[1].state, "present")

    def test_silent(self) -> None:
        """A silent engine at the start is logged, no more."""
        calls = FakeCalls(None)
        calls.call = lambda *_, **__: fail(RuntimeUnavailable())  # type: ignore[method-assign]  # silent
        images = Images(self.clock, calls, lambda: calls)  # type: ignore[arg-type,return-value]  # fakes
        images.pull_at_start(
            [
                ServerSpec(
                    name="x",
                    transport=Transport.STDIO,
                    container=Container(image="x:1", pull="at-start"),
                )
            ]
        )
        images.close()


class FakeStream:
    """Events of the SDK."""

    def __init__(self, events: list[dict[str, Any]], end: Any) -> None:
        self.events, self.end = events, end

    def __iter__(self) -> Any:
        yield from self.events
        self.end()

    def close(self) -> None:
        """See the SDK."""
        raise OSError("closed already")


class EventTests(SynchronousTestCase):
    """`EventStream`, run on this thread."""

    def test_reconnects(self) -> None:
        """It begins again where it ended, says so, and ends when told."""
        since: list[object] = []
        got: list[object] = []
        opened: list[int] = []

        def end() -> None:
            if len(since) == 3:
                stream.stop()

        class Client:
            def events(self, **wanted: Any) -> FakeStream:
                since.append(wanted["since"])
                if len(since) == 2:
                    raise OSError("engine gone")
                return FakeStream([{"id": "c", "timeNano": 1_500_000_000}, {"id": "d"}], end)

            def close(self) -> None:
                return

        stream = EventStream(
            lambda function, *args: function(*args),
            Client,
            label="l",
            received=got.append,
            opened=lambda: opened.append(1),
        )
        stream._stopped.wait = lambda timeout=None: False  # type: ignore[method-assign]  # no waiting
        stream._run()
        self.assertEqual(since, [None, "1.500000000", "1.500000000"])
        self.assertEqual((len(got), len(opened)), (4, 2))

    def test_stopped_between_events(self) -> None:
        """Nothing is told after the stop; one never begun may be stopped."""
        got: list[object] = []

        class Client:
            def events(self, **_: Any) -> FakeStream:
                return FakeStream([{"id": "c"}, {"id": "d"}], lambda: None)

            def close(self) -> None:
                return

        def received(event: object) -> None:
            got.append(event)
            stream.stop()

        stream = EventStream(
            lambda function, *args: function(*args),
            Client,
            label="l",
            received=received,
            opened=lambda: None,
        )
        stream._run()
        self.assertEqual(len(got), 1)
        EventStream(lambda: None, Client, label="", received=received, opened=lambda: None).stop()


class EndingTests(SynchronousTestCase):
    """How containers end."""

    def test_reasons(self) -> None:
        """Exit codes, signals, want of memory and our own stops are told apart."""
        for state, stopping, killed, told in (
            ({"ExitCode": 0}, False, False, (0, None, "exited")),
            ({"ExitCode": 3}, False, False, (3, None, "exited")),
            ({"ExitCode": 137}, False, False, (None, 9, "killed")),
            ({"ExitCode": 137, "OOMKilled": True}, False, False, (None, 9, "oom_killed")),
            ({"ExitCode": 1}, False, True, (1, None, "oom_killed")),
            ({"ExitCode": 0, "OOMKilled": True}, False, False, (0, None, "exited")),
            ({"ExitCode": 137, "OOMKilled": True}, True, True, (None, 9, "stopped")),
            ({"ExitCode": 255}, False, False, (255, None, "exited")),
        ):
            how = how_ended(state, stopping=stopping, lines=["a"], killed=killed)
            self.assertEqual((how.code, how.signal, how.reason), told)
            self.assertEqual(how.stderr_tail, ("a",))


class FakeStreams:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def drain(self) -> None:
        """See `Streams`."""
        self.said.append("drain")

    def abort(self) -> None:
        """See `Streams`."""
        self.said.append("abort")


class InstanceTests(SynchronousTestCase):
    """`ContainerInstance` over an engine that hears and says nothing."""

    def make(self, *, stdio: bool = True) -> ContainerInstance:
        """Make one that runs."""
        self.clock = Clock()
        self.sent: list[str] = []
        self.looks = 0
        self.deaf = False

        def kill(_: object, name: str) -> Deferred[Any]:
            self.sent.append(name)
            return fail(RuntimeUnavailable()) if self.deaf else succeed(None)

        def look(_: object) -> None:
            self.looks += 1

        return ContainerInstance(
            self.clock,
            instance_id="i",
            key=KEY,
            container_id="c",
            stdio=stdio,
            kill=kill,
            look=look,
            cgroups=Cgroups(self.mktemp()),
            hidden=("secret",),
        )

    def test_ladder(self) -> None:
        """Stdin, TERM, KILL; a look, then it is lost: no step waits for ever."""
        instance = self.make()
        ended = instance.stop(3.0)
        self.clock.advance(3.0)
        self.assertEqual(self.sent, ["SIGTERM"])
        self.clock.advance(3.0)
        self.assertEqual(self.sent, ["SIGTERM", "SIGKILL"])
        self.clock.pump([2.0, 2.0])
        self.assertEqual(self.looks, 1)
        self.assertEqual(self.successResultOf(ended).reason, "lost")
        self.assertFalse(instance.alive)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        instance.over({"ExitCode": 0})
        self.assertEqual(self.successResultOf(instance.stop(1.0)).reason, "lost")

    def test_deaf(self) -> None:
        """A signal the engine does not take makes the gate look."""
        instance = self.make(stdio=False)
        self.deaf = True
        instance.stop(3.0)
        self.assertEqual((self.sent, self.looks), (["SIGTERM"], 1))
        instance.over({"ExitCode": 143})
        how: Exit = self.successResultOf(instance.when_ended())
        self.assertEqual((how.signal, how.reason), (15, "stopped"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hurry(self) -> None:
        """A second stop may only shorten the wait."""
        instance = self.make()
        instance.stop(10.0)
        instance.stop(20.0)
        instance.stop(1.0)
        self.clock.advance(1.0)
        self.assertEqual(self.sent, ["SIGTERM"])
        self.clock.advance(1.0)
        self.assertEqual(self.sent, ["SIGTERM", "SIGKILL"])
        instance.over({"ExitCode": 137})
        self.successResultOf(instance.ended)

    def test_at_once(self) -> None:
        """Without grace it is killed at once."""
        instance = self.make()
        instance.stop(0)
        self.assertEqual(self.sent, ["SIGKILL"])
        instance.over({"ExitCode": 137})

    def test_hidden(self) -> None:
        """What must not be seen is hidden in its logs."""
        instance = self.make()
        instance.ring.feed(b"the secret word\n")
        instance.before = ["earlier"]
        self.assertEqual(instance.logs(), ["earlier", "the *** word"])
        instance.running_as(1)
        self.assertEqual(instance.usage(), Usage())
        instance.lose()
        self.assertEqual(instance.usage(), Usage())

    def test_reads_what_is_left(self) -> None:
        """After the end its last words are waited for, but not for long."""
        for closes in (True, False):
            instance = self.make()
            instance.streams = streams = FakeStreams()  # type: ignore[assignment]  # a fake
            instance.over({"ExitCode": 0})
            self.assertNoResult(instance.when_ended())
            if closes:
                instance.connection_lost()
            else:
                self.clock.advance(0.5)
            self.assertEqual(streams.said, ["drain"] if closes else ["drain", "abort"])
            self.successResultOf(instance.ended)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connection_lost(self) -> None:
        """A connection that breaks makes the gate look."""
        instance = self.make()
        instance.connection_lost()
        self.assertEqual(self.looks, 1)
        self.assertTrue(instance.alive)
        instance.lose()
        instance.connection_lost()
        self.assertEqual(self.looks, 1)
