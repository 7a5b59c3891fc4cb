"""
What keeps containers with a network from the host and from its neighbours (R52).

The engine separates its networks from each other, but each of them has an address of the host in
it, with every service that listens on all addresses behind.  All our bridges carry one prefix, so
a few rules made once hold for all of them, also for those that come later:

- nobody behind them opens a connection to the host, only answers;
- nobody behind them is let through to private, link-local (169.254.169.254) or shared addresses,
  but for the name servers of the host;
- behind those of ``egress = none`` nobody is let through at all;
- behind those of ``egress = allow-list`` somebody is let through to what the list of the bridge
  opens: a chain of its own, which goes when the bridge has gone.

Containers on stdio without egress have no network, and need none of this.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.timing.deferreds import deferred

log = Logger()

PREFIX: Final = "mcpg"
CLOSED: Final = PREFIX + "0"
OPEN: Final = PREFIX + "1"
LISTED: Final = PREFIX + "2"

_INPUT: Final = "MCPGATE-INPUT"
_FORWARD: Final = "MCPGATE-FORWARD"
_LISTS: Final = "MCPGATE-LISTS"
_LIST: Final = "MCPGATE-"
_LAST: Final = (_FORWARD, "-i", f"{LISTED}+", "-j", "DROP")
_ANSWERED: Final = "-m conntrack --ctstate ESTABLISHED,RELATED"
_ANSWERS: Final = f"{_ANSWERED} -j RETURN"
KEPT_FROM: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
)
_RESOLVERS: Final = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_RUN_S: Final = 5.0
_SAID: Final = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Opening:
    """
    What somebody is let through to, over TCP.

    :ivar port: 0: every one.
    """

    network: IPv4Network
    port: int = 0


def rules(name_servers: Iterable[str], more: Iterable[str] = ()) -> str:
    """
    Give our chains as ``iptables-restore --noflush`` reads them.

    :param name_servers: addresses that may be asked for names.
    :param more: further networks nobody may reach: public addresses of one's own, say.
    """
    lines = ["*filter", f":{_INPUT} - [0:0]", f":{_FORWARD} - [0:0]"]
    lines += [f"-A {_INPUT} {_ANSWERS}", f"-A {_INPUT} -j DROP"]
    # The engine would end what a list opened towards another network of its own.
    lines += [f"-A {_FORWARD} -i {LISTED}+ {_ANSWERED} -j ACCEPT"]
    lines += [f"-A {_FORWARD} {_ANSWERS}", f"-A {_FORWARD} -i {CLOSED}+ -j DROP"]
    lines += [f"-A {_FORWARD} -i {LISTED}+ -j {then}" for then in (_LISTS, "DROP")]
    for address in name_servers:
        for protocol in ("udp", "tcp"):
            lines.append(f"-A {_FORWARD} -d {address}/32 -p {protocol} --dport 53 -j RETURN")
    lines += [f"-A {_FORWARD} -d {network} -j DROP" for network in (*KEPT_FROM, *more)]
    return "\n".join([*lines, "COMMIT", ""])


def jumps() -> tuple[tuple[str, ...], ...]:
    """Give the rules that lead into our chains; ``DOCKER-USER`` is the engine's place for that."""
    return (
        ("INPUT", "-i", f"{PREFIX}+", "-j", _INPUT),
        ("DOCKER-USER", "-i", f"{PREFIX}+", "-j", _FORWARD),
        # The engine would keep answers from other networks of its own from coming back.
        ("DOCKER-USER", "-o", f"{LISTED}+", *_ANSWERED.split(), "-j", "ACCEPT"),
    )


def list_rules(bridge: str, openings: Iterable[Opening]) -> str:
    """
    Give the chain of a bridge as ``iptables-restore --noflush`` reads it.

    What lies within a private network is meant when it is opened; a larger network is not.
    """
    chain = _LIST + bridge
    meant: list[str] = []
    public: list[str] = []
    for one in openings:
        port = f" --dport {one.port}" if one.port else ""
        private = any(one.network.subnet_of(IPv4Network(kept)) for kept in KEPT_FROM)
        (meant if private else public).append(f"-A {chain} -d {one.network} -p tcp{port} -j ACCEPT")
    return "\n".join(
        [
            "*filter",
            f":{chain} - [0:0]",
            f"-A {chain} -o {PREFIX}+ -j DROP",
            *meant,
            *(f"-A {chain} -d {network} -j DROP" for network in KEPT_FROM),
            *public,
            "COMMIT",
            "",
        ]
    )


def name_servers(paths: Iterable[str] = _RESOLVERS) -> list[str]:
    """Give the IPv4 name servers of the host that are not on the host itself."""
    found: dict[str, None] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                words = [line.split() for line in file.read(65536).splitlines()]
        except OSError:
            continue
        for each in words:
            if len(each) == 2 and each[0] == "nameserver":
                try:
                    address = ipaddress.ip_address(each[1])
                except ValueError:
                    continue
                if address.version == 4 and not address.is_loopback:
                    found[str(address)] = None
    return list(found)


class _Run(ProcessProtocol):
    """Runs a program to its end."""

    transport: Any

    def __init__(self, given: bytes) -> None:
        self.over: Deferred[tuple[int, str]] = Deferred(lambda _: self.kill())
        self._given = given
        self._said = b""

    def kill(self) -> None:
        """End it now."""
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return

    @override
    def connectionMade(self) -> None:
        self.transport.write(self._given)
        self.transport.closeStdin()

    @override
    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-_SAID:]

    errReceived = outReceived  # noqa: N815  # as declared

    @override
    def processEnded(self, reason: Failure) -> None:
        code: int | None = 0
        if isinstance(reason.value, ProcessTerminated):
            code = reason.value.exitCode
        if not self.over.called:
            self.over.callback(
                (-1 if code is None else code, self._said.decode("utf-8", "replace"))
            )


def _why(code: int, said: str) -> str:
    """Tell why a program failed: the last line of what it said."""
    return said.strip().splitlines()[-1] if said.strip() else f"iptables ended: {code}"


class Firewall:
    """
    Puts the rules up, and sees to it that they stay.

    :param reactor: clock and processes.
    :param program: ``iptables``; looked for when empty.
    :param exists: tells whether there is a bridge of this name.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        program: str = "",
        exists: Callable[[str], bool] = lambda bridge: os.path.exists(f"/sys/class/net/{bridge}"),
    ) -> None:
        self._reactor = reactor
        self._exists = exists
        self._lock = DeferredLock()
        # What stands in the chains may be of another version, or be gone: they are made anew once.
        self._restored = False
        self._program = program or shutil.which("iptables", path=_PATH) or ""

    @deferred
    async def ensure(self) -> str:
        """Put up what is missing; answer why that can not be done, or nothing."""
        if not self._program:
            return "there is no iptables on this machine"
        return await self._lock.run(self._ensure)

    @deferred
    async def _ensure(self) -> str:
        missing = []
        for jump in jumps():
            code, said = await self._run(self._program, ["-C", *jump])
            if code == 1 or (code != 0 and "does not exist" in said):
                missing.append(jump)
            elif code != 0:
                return _why(code, said)
        if not missing and self._restored:
            # Another gate on this machine, of another version, may have made them anew its way.
            code, _ = await self._run(self._program, ["-C", *_LAST])
            if code == 0:
                return ""
        # Made by itself: its content is not made anew with the rest.
        await self._run(self._program, ["-N", _LISTS])
        text = rules(name_servers()).encode("ascii")
        for program, words, given in (
            (self._restore, ["--noflush"], text),
            *((self._program, ["-I", *jump], b"") for jump in missing),
        ):
            code, said = await self._run(program, words, given)
            if code != 0:
                return _why(code, said)
        self._restored = True
        if missing:
            log.info("Containers are kept from the host by rules that were missing")
        return ""

    # --- Lists --------------------------------------------------------------------------------

    @deferred
    async def open_list(self, bridge: str, openings: Sequence[Opening]) -> str:
        """Let those behind a bridge reach this and nothing else; answer why not, or nothing."""
        return await self._lock.run(self._open_list, bridge, openings)

    @deferred
    async def _open_list(self, bridge: str, openings: Sequence[Opening]) -> str:
        text = list_rules(bridge, openings).encode("ascii")
        code, said = await self._run(self._restore, ["--noflush"], text)
        if code != 0:
            return _why(code, said)
        jump = [_LISTS, "-i", bridge, "-j", _LIST + bridge]
        code, said = await self._run(self._program, ["-C", *jump])
        if code != 0:
            code, said = await self._run(self._program, ["-A", *jump])
        return _why(code, said) if code != 0 else ""

    @deferred
    async def lists(self) -> set[str]:
        """Name the bridges that have a list, after removing the lists of bridges that are gone."""
        if not self._program:
            return set()
        return await self._lock.run(self._lists)

    @deferred
    async def _lists(self) -> set[str]:
        code, said = await self._run(self._program, ["-S", _LISTS])
        found = set(re.findall(rf"-i ({LISTED}[0-9a-f]+) ", said)) if code == 0 else set()
        gone = {bridge for bridge in found if not self._exists(bridge)}
        for bridge in sorted(gone):
            chain = _LIST + bridge
            steps = f"-D {_LISTS} -i {bridge} -j {chain}\n-F {chain}\n-X {chain}"
            text = f"*filter\n{steps}\nCOMMIT\n".encode("ascii")
            await self._run(self._restore, ["--noflush"], text)
        return found - gone

    @property
    def _restore(self) -> str:
        return os.path.join(os.path.dirname(self._program), "iptables-restore")

    async def _run(self, program: str, words: Sequence[str], given: bytes = b"") -> tuple[int, str]:
        run = _Run(given)
        wait = ["-w", "3"]
        try:
            self._reactor.spawnProcess(
                run, program, [program, *wait, *words], env={"PATH": _PATH, "LC_ALL": "C"}
            )
        except OSError as error:
            return -1, str(error)
        try:
            result: tuple[int, str] = await run.over.addTimeout(_RUN_S, self._reactor)
        except TimeoutError:
            return -1, f"{program} did not end"
        return result
