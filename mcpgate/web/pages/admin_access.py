"""
Who may see statistics: users with passwords (HTTP Basic, RFC 7617) and networks.

Holding back those who guess is the caller's business: `AdminAccess` asks and tells.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b, scrypt
from hmac import compare_digest
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from mcpgate.model import Secret

_SCRYPT: Final = "scrypt"
_SCRYPT_BITS: Final = 13
_SCRYPT_MAX_BITS: Final = 15
_REMEMBERED: Final = 64


class PasswordError(ValueError):
    """A password hash is not one we can check; the text never holds it."""


def hash_password(password: str, salt: bytes) -> str:
    """
    Make what stands in a users file: ``scrypt:BITS:SALT:HASH``.

    :param salt: 16 random bytes.
    """
    return f"{_SCRYPT}:{_SCRYPT_BITS}:{salt.hex()}:{_scrypt(password, salt, _SCRYPT_BITS).hex()}"


def _scrypt(password: str, salt: bytes, bits: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    return scrypt(secret, salt=salt, n=1 << bits, r=8, p=1, maxmem=1 << 26, dklen=32)


@dataclass(frozen=True, slots=True)
class _PasswordHash:
    bits: int
    salt: bytes
    digest: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> _PasswordHash:
        kind, *parts = text.strip().split(":")
        if kind != _SCRYPT or len(parts) != 3:
            raise PasswordError("a password hash has the form scrypt:BITS:SALT:HASH")
        try:
            bits, salt, digest = int(parts[0]), bytes.fromhex(parts[1]), bytes.fromhex(parts[2])
        except ValueError:
            raise PasswordError("a password hash holds something that is no number") from None
        if not 10 <= bits <= _SCRYPT_MAX_BITS or len(salt) < 8 or len(digest) != 32:
            raise PasswordError(
                f"a password hash has 10 to {_SCRYPT_MAX_BITS} bits, a salt of 8 bytes or more "
                "and 32 bytes of hash"
            )
        return cls(bits, salt, digest)

    def fits(self, password: str) -> bool:
        return compare_digest(_scrypt(password, self.salt, self.bits), self.digest)


class AdminUsers:
    """
    Names and passwords for HTTP Basic authentication (RFC 7617).

    A right password is remembered (as a keyed digest), so that only the first use pays for the
    slow hash, some 25 ms.  A wrong one always does: hold guessing back by address.

    :param users: passwords in clear, or their hashes as `hash_password` makes them.
    :param pepper: random bytes of this process.
    :raises PasswordError: a hash can not be read.
    """

    def __init__(self, users: Mapping[str, Secret | str], pepper: bytes) -> None:
        self._pepper = pepper
        self._digests: dict[str, bytes] = {}
        self._hashes: dict[str, _PasswordHash] = {}
        self._right: set[bytes] = set()
        for name, password in users.items():
            if isinstance(password, Secret):
                self._digests[name] = self._digest(name, password.reveal())
            else:
                self._hashes[name] = _PasswordHash.parse(password)

    @classmethod
    def parse(cls, text: str, pepper: bytes) -> AdminUsers:
        """
        Read a users file: lines ``name:hash``; blank lines and ``#`` comments are skipped.

        :raises PasswordError: a line can not be read; tells which.
        """
        users: dict[str, Secret | str] = {}
        for number, line in enumerate(map(str.strip, text.splitlines()), 1):
            if not line or line.startswith("#"):
                continue
            name, colon, hashed = line.partition(":")
            try:
                if not (name and colon) or name in users:
                    raise PasswordError("a line is name:hash, each name once")
                _PasswordHash.parse(hashed)
            except PasswordError as error:
                raise PasswordError(f"line {number}: {error}") from None
            users[name] = hashed
        return cls(users, pepper)

    def __bool__(self) -> bool:
        return bool(self._digests or self._hashes)

    def check(self, name: str, password: str) -> bool:
        """Tell whether this is a user's password, in a time that tells nothing about it."""
        digest = self._digest(name, password)
        if any(
            [compare_digest(digest, known) for known in (*self._right, *self._digests.values())]
        ):
            return True
        hashed = self._hashes.get(name)
        if hashed is None:
            # An unknown name takes as long as a known one.
            if self._hashes:
                next(iter(self._hashes.values())).fits(password)
            return False
        if not hashed.fits(password):
            return False
        if len(self._right) >= _REMEMBERED:
            self._right.pop()
        self._right.add(digest)
        return True

    def _digest(self, name: str, password: str) -> bytes:
        content = f"{name}\0{password}".encode("utf-8", "surrogatepass")
        return blake2b(content, key=self._pepper[:64], digest_size=32).digest()


def basic_credentials(value: str | None) -> tuple[str, str] | None:
    """Read an ``Authorization`` field; None when it holds no Basic credentials."""
    if value is None:
        return None
    scheme, _, coded = value.strip().partition(" ")
    if scheme.lower() != "basic" or len(coded) > 4096:
        return None
    try:
        decoded = b64decode(coded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    name, colon, password = decoded.partition(":")
    return (name, password) if colon else None


class Admission(Enum):
    """What somebody who asks for statistics gets."""

    WELCOME = "welcome"
    WHO_ARE_YOU = "who are you"
    NOTHING_HERE = "nothing here"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAccess:
    """
    The rule for ``/stats`` and ``/metrics``.

    Where ``allow`` lists networks, others find nothing.  Where there are users, one of them has
    to log in, except that ``/metrics`` is open to ``allow``.  Without users the pages are for
    ``allow`` and, without that, for this machine alone: a proxy on it speaks for others.

    :ivar proxies: networks of proxies: what comes from there is never from this machine.
    :ivar enabled: false: there are no such pages.
    :ivar held_back: tells for how many seconds an address must not try passwords; 0 = it may.
    :ivar wrong: called with the address of each wrong password.
    """

    users: AdminUsers
    allow: Sequence[IPv4Network | IPv6Network] = ()
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    enabled: bool = True
    held_back: Callable[[str], float] = lambda _: 0.0
    wrong: Callable[[str], object] = lambda _: None

    def admit(
        self,
        address: str,
        credentials: tuple[str, str] | None,
        *,
        scrape: bool,
        forwarded: bool = False,
    ) -> Admission:
        """
        Decide.

        :param address: numeric, of the client; empty for a unix socket.
        :param scrape: it is ``/metrics`` that is asked for.
        :param forwarded: the request tells that a proxy passed it on.
        """
        allowed = _is_in(self.allow, address)
        if not self.enabled or (self.allow and not allowed):
            return Admission.NOTHING_HERE
        if scrape and allowed:
            return Admission.WELCOME
        if not self.users:
            here = _is_here(address) and not forwarded and not _is_in(self.proxies, address)
            return Admission.WELCOME if allowed or here else Admission.NOTHING_HERE
        if credentials is None:
            return Admission.WHO_ARE_YOU
        if self.users.check(*credentials):
            return Admission.WELCOME
        self.wrong(address)
        return Admission.WHO_ARE_YOU


def _is_in(networks: Sequence[IPv4Network | IPv6Network], address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(mapped in network for network in networks if network.version == mapped.version)


def _is_here(address: str) -> bool:
    if not address:
        return True
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
