"""
Whether three readers of the same bytes agree on the requests in them.

The gate's reading is what it forwarded.  It may refuse what others accept, for a closed list of
reasons; what it forwards at least one of the others must have accepted, and whoever accepted it
must have read the same.  What it wrote must mean the same to everybody.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.http.generated import Case
from tests.http.readers import H11Reader, Lines, Seen, TwistedReader

#: What the documentation says goes no further than the gate (``docs/explanation/security.rst``).
_DROPPED: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"http2-settings", b"host", b"content-length", b"expect"),
        *(b"max-forwards", b"authorization", b"cookie", b"x-api-key", b"origin", b"forwarded"),
        *(b"x-real-ip", b"true-client-ip", b"x-request-id", b"via"),
    )
)
_DROPPED_PREFIXES: Final = (b"x-forwarded-", b"x-mcpgate-", b"proxy-")
#: What the gate puts there itself, beside Host and the body's framing.
_WRITTEN: Final = frozenset(
    (
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"),
        *(b"x-request-id", b"via"),
    )
)
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))

#: Why the gate may refuse what another reader accepts: told in ``docs/reference/endpoints.rst``.
STRICTER: Final = frozenset(
    (
        # Framing: what two readers could cut apart at different places (R01-R03, R05).
        "400 Content-Length and Transfer-Encoding exclude each other.",
        "400 Content-Length must be one decimal number.",
        "413 The message is too large.",
        "400 HTTP/1.0 has no Transfer-Encoding.",
        "400 The only transfer coding known here is chunked.",
        "400 The request is malformed: Request has invalid `Transfer-Encoding`.",
        "501 The only transfer coding known here is chunked.",
        "400 A chunk's size must be a hexadecimal number.",
        "400 A chunk does not end where its size says.",
        "400 A trailer holds a header that must stand in the head.",
        # Lines and fields (R04, R08).
        "400 Lines must end with CR LF, and hold no other CR, LF or NUL.",
        "400 Folded header lines are obsolete and refused.",
        "400 A header line has no colon.",
        "400 A header has no name.",
        "400 A header has white space before its colon.",
        "400 A header name holds characters it must not hold.",
        "400 A header name with '_' collides with one that has a meaning here.",
        "400 A header value holds control characters.",
        # Host, target, method, version, expectation (R06, R07, R09, R81).
        "400 There must be one Host header.",
        "400 The Host header is not a host name or address.",
        "400 The request target holds characters that must be percent-encoded.",
        "400 The request target must begin with a slash.",
        "400 The request target names another host than the Host header.",
        "404 A path must not hold '.' or '..' as a segment.",
        "400 The request line must be: method, target, version, one space between.",
        "400 The method is malformed.",
        "405 Method not allowed.",
        "501 This method is not known here.",
        "505 Only HTTP/1.0 and HTTP/1.1 are spoken here.",
        "417 Only 'Expect: 100-continue' is understood.",
        # Sizes (R05, R10).
        "414 The request line is too long.",
        "431 The request header is too large.",
        "400 Chunk sizes or extensions are too long.",
        "400 Trailers are too long.",
        # Nothing of the kind: a path of no server, a key that was changed on the way.
        "404 Not found.",
        "404 The MCP endpoint is /srv/mcp.",
        "421 This host name is not served here.",
        "400 The field authorization may be sent only once.",
        "401 A key consists of visible ASCII characters.",
        "401 A valid key is required: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
        "401 This key is not valid, or not any more.",
        "429 Too many wrong keys came from this address.",
        # Any of these to a HEAD, which has no body to say why in.
        "400",
        "401",
        "404",
        "421",
        "429",
    )
)
#: Why another reader may refuse what the gate and the third accept: h11 forgives no empty line
#: before a request (RFC 9112 2.2 asks for that), and sees it early where its bytes come singly.
LAXER: Final = frozenset(("h11: no request line received", "h11: illegal request line"))

NOT_READ: Final = "not read: incomplete, or behind one that ended the connection"

Grouped = dict[bytes, list[bytes]]


@dataclass
class Answer:
    """
    One final answer of the gate.

    :ivar why: what a refusal says; empty for an answer of the server.
    :ivar last: it says that the connection ends.
    """

    status: int
    why: str
    last: bool


@dataclass
class Tally:
    """
    What became of all requests.

    :ivar outcomes: how many were ``forwarded``, ``refused by all`` ..
    :ivar stricter: why the gate refused what another reader accepted.
    :ivar laxer: why one of the other readers refused what the gate and the other accepted.
    :ivar disagreements: what must not be.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    stricter: Counter[str] = field(default_factory=Counter)
    laxer: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    def unexpected(self) -> list[str]:
        """Give what breaks the rules; empty when all is well."""
        stricter = [f"refused: {why}" for why in self.stricter if why not in STRICTER]
        laxer = [f"accepted: {why}" for why in self.laxer if why not in LAXER]
        return self.disagreements + stricter + laxer

    def table(self) -> str:
        """Give the counts to print."""
        lines = []
        for title, counts in (
            ("requests", self.outcomes),
            ("refused by the gate, accepted by another", self.stricter),
            ("accepted by the gate, refused by another", self.laxer),
        ):
            lines.append(title)
            lines += [f"  {count:6d}  {name}" for name, count in counts.most_common()]
        return "\n".join(lines)


def answers(raw: bytes) -> list[Answer]:
    """Take what the gate told a client apart; interim answers are left out."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        status = int(start.split(b" ")[1])
        if status < 200:
            continue
        fields = {
            name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)
        }
        body = b""
        # That to a HEAD tells a length and has no body.
        if not raw.startswith(b"HTTP/1."):
            size = int(fields.get(b"content-length", b"0"))
            body, raw = raw[:size], raw[size:]
        why = ""
        if b"x-seen" not in fields:
            why = f"{status}"
            if body:
                why += " " + json.loads(body)["error"]["message"]
        found.append(Answer(status, why, b"close" in fields.get(b"connection", b"")))
    return found


def _grouped(lines: Lines) -> Grouped:
    groups: Grouped = {}
    for name, value in lines:
        groups.setdefault(name, []).append(value)
    return groups


def _passes(name: bytes) -> bool:
    return name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)


def _origin_form(target: bytes) -> bytes:
    scheme, mark, rest = target.partition(b"://")
    if mark and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    return target


@dataclass(frozen=True)
class Meaning:
    """What is compared of a request."""

    method: bytes
    target: bytes
    host: list[bytes]
    fields: Grouped
    body: bytes
    upgrade: bool


def _asked(seen: Seen, prefix: bytes) -> Meaning:
    """Tell what a request should look like behind the gate, if a reader is right."""
    options = {
        option.strip().lower()
        for name, value in seen.fields
        if name == b"connection"
        for option in value.split(b",")
    }
    upgrades = [value.lower() for name, value in seen.fields if name == b"upgrade"]
    return Meaning(
        seen.method,
        _origin_form(seen.target).removeprefix(prefix),
        [value for name, value in seen.fields if name == b"host"],
        _grouped([line for line in seen.fields if _passes(line[0]) and line[0] not in options]),
        seen.body,
        upgrades == [b"websocket"] and b"upgrade" in options and seen.version == b"1.1",
    )


def _forwarded(seen: Seen) -> Meaning:
    """Tell what came out of the gate, without what it adds."""
    fields = _grouped(
        [
            line
            for line in seen.fields
            if line[0] not in _WRITTEN and line[0] not in _FRAMING and line[0] != b"host"
        ]
    )
    upgrade = fields.pop(b"upgrade", []) == [b"websocket"]
    if upgrade:
        upgrade = fields.pop(b"connection", []) == [b"Upgrade"]
    host = [value for name, value in seen.fields if name == b"x-forwarded-host"]
    return Meaning(seen.method, seen.target, host, fields, seen.body, upgrade)


class Agreement:
    """
    Compares case after case.

    :param prefix: what the gate cuts off a target.
    :param authority: the ``Host`` the gate tells the server.
    """

    def __init__(self, *, prefix: bytes = b"/srv", authority: bytes) -> None:
        self.tally = Tally()
        self._prefix = prefix
        self._authority = authority

    def compare(self, case: Case, answered: bytes, sent: list[bytes]) -> None:
        """
        Look at one connection.

        :param answered: what the gate told the client.
        :param sent: what it sent to the server, by connection, in order.
        """
        h11_seen, twisted_seen = H11Reader(), TwistedReader()
        for piece in case.pieces:
            h11_seen.feed(piece)
            twisted_seen.feed(piece)
        told = answers(answered)
        passed = self._written(case, sent)
        if len(passed) != sum(not answer.why for answer in told):
            self._disagree(case, f"{len(passed)} were forwarded, answers were {told}")
            return
        number = 0
        for number, answer in enumerate(told, 1):
            readings = {
                name: reader.seen[number - 1]
                for name, reader in (("h11", h11_seen), ("twisted.web", twisted_seen))
                if len(reader.seen) >= number
            }
            if answer.why:
                self._refused(answer, bool(readings))
                continue
            self._agreed(case, passed.pop(0), readings)
            for name, reader in (("h11", h11_seen), ("twisted.web", twisted_seen)):
                if readings and name not in readings:
                    self.tally.laxer[f"{name}: {reader.refused or 'waits for more'}"] += 1
        left = max(len(h11_seen.seen), len(twisted_seen.seen)) - number
        if left > 0 and not (told and told[-1].last):
            self._disagree(case, "the gate waits for more where others do not")
        rest = len(case.twists) - number
        self.tally.outcomes[NOT_READ] += rest

    def _written(self, case: Case, sent: list[bytes]) -> list[Seen]:
        """Give the requests that left the gate; all must have the same meaning for both readers."""
        passed: list[Seen] = []
        for raw in sent:
            ours, theirs = H11Reader(), TwistedReader()
            ours.feed(raw)
            theirs.feed(raw)
            if ours.refused or theirs.refused:
                self._disagree(case, f"unreadable: {ours.refused} {theirs.refused} {raw!r}")
            elif [_forwarded(seen) for seen in ours.seen] != [_forwarded(s) for s in theirs.seen]:
                self._disagree(case, f"two readers of {raw!r}")
            passed += ours.seen
        return passed

    def _refused(self, answer: Answer, accepted: bool) -> None:
        if accepted:
            self.tally.outcomes["refused by the gate alone, or by it and one other"] += 1
            self.tally.stricter[answer.why] += 1
        else:
            self.tally.outcomes["refused by all"] += 1

    def _agreed(self, case: Case, passed: Seen, readings: dict[str, Seen]) -> None:
        if not readings:
            self._disagree(case, f"nobody else accepts {passed}")
            return
        if not self._is_well_written(passed):
            self._disagree(case, f"wrong fields of the gate's own: {passed}")
            return
        got = _forwarded(passed)
        for name, seen in readings.items():
            wanted = _asked(seen, self._prefix)
            if got != wanted:
                self._disagree(case, f"{name} reads {wanted}, forwarded was {got}")
                return
            if seen.trailers is not None:
                trailers = [line for line in seen.trailers if _passes(line[0])]
                if passed.trailers != trailers:
                    self._disagree(case, f"trailers {trailers}, forwarded {passed.trailers}")
                    return
        self.tally.outcomes["forwarded, all agree on it"] += 1

    def _is_well_written(self, passed: Seen) -> bool:
        fields = _grouped(passed.fields)
        framing = len(fields.get(b"content-length", [])) + len(fields.get(b"transfer-encoding", []))
        return (
            fields.get(b"host") == [self._authority]
            and framing <= 1
            and fields.get(b"x-forwarded-prefix") == [self._prefix]
            and fields.get(b"x-forwarded-proto") == [b"http"]
            and fields.get(b"via") == [b"1.1 mcpgate"]
            and len(fields.get(b"x-request-id", [])) == 1
            and len(fields.get(b"x-forwarded-for", [])) == 1
        )

    def _disagree(self, case: Case, what: str) -> None:
        self.tally.outcomes["disagreement"] += 1
        self.tally.disagreements.append(f"{what}\nin {case.data!r}\ntwists {case.twists}")
