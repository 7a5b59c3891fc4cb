"""Tests of `mcpgate.gate.access.remote`; the network is in `tests.functional.test_remote_keys`."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface.verify import verifyObject

from mcpgate.errors import AuthUnavailable, InvalidCredential, Unauthenticated
from mcpgate.gate.access.outbound import PrivateAddressError
from mcpgate.gate.access.remote import RemoteAuthenticator, RemoteCheck
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Principal, Secret
from mcpgate.telemetry.meters import Meters
from tests.gate.access.fakes import CANARY, DIGEST

KEY = Secret(CANARY)
OUTLINE = RemoteCheck(
    url="https://wiki.example/api/auth.info",
    method="POST",
    headers=(("Authorization", "Bearer {key}"), ("Content-Type", "application/json")),
    body="{}",
    user_field="data.user.id",
)


class FakeTransport:
    """What a body is cut off with."""

    def __init__(self) -> None:
        self.cut = False

    def loseConnection(self) -> None:
        """Cut."""
        self.cut = True


class FakeResponse:
    """An answer; its body stays unfinished with ``hang``."""

    def __init__(self, code: int = 200, body: bytes = b"", *, hang: bool = False) -> None:
        self.code = code
        self.length: Any = UNKNOWN_LENGTH
        self.transport = FakeTransport()
        self.ended: BaseException = ResponseDone()
        self._body = body
        self._hang = hang

    def deliverBody(self, protocol: Protocol) -> None:  # noqa: N802 - named by Twisted
        """See `IResponse.deliverBody`."""
        protocol.makeConnection(self.transport)
        if self._body:
            protocol.dataReceived(self._body)
        if not self._hang:
            protocol.connectionLost(Failure(self.ended))


def user(**fields: object) -> bytes:
    """Make an answer of Outline's."""
    return json.dumps({"data": {"user": fields}}).encode()


class RemoteTests(SynchronousTestCase):
    """A key is what its API says it is."""

    def setUp(self) -> None:
        """Prepare to answer."""
        self.clock = Clock()
        self.meters = Meters()
        self.sent: list[tuple[str, str, list[tuple[str, str]], bytes | None]] = []
        self.answers: list[Any] = []

    def send(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None
    ) -> Deferred[Any]:
        """Take a question, give the next prepared answer; none prepared: leave it open."""
        self.sent.append((method, url, headers, body))
        if not self.answers:
            return Deferred()
        answer = self.answers.pop(0)
        return fail(answer) if isinstance(answer, BaseException) else succeed(answer)

    def make(self, check: RemoteCheck = OUTLINE) -> RemoteAuthenticator:
        """Make an authenticator."""
        return RemoteAuthenticator(
            "wiki",
            check,
            self.send,
            self.clock,
            DIGEST,
            meters=self.meters,
            servers=frozenset({"a"}),
        )

    def ask(self, *answers: Any, check: RemoteCheck = OUTLINE) -> Deferred[Any]:
        """Ask about the key, with these answers in store."""
        self.answers.extend(answers)
        return self.make(check).authenticate(KEY)

    def assert_unavailable(self, *answers: Any, check: RemoteCheck = OUTLINE) -> None:
        """Check that these answers leave the key undecided, and tell nothing."""
        failure = self.failureResultOf(self.ask(*answers, check=check), AuthUnavailable)
        self.assertNotIn(CANARY, failure.getTraceback() + repr(failure.value))
        self.assertIsNotNone(failure.value.retry_after_s)

    def test_interface(self) -> None:
        """It is an authenticator that remembers nothing."""
        remote = self.make()
        verifyObject(IAuthenticator, remote)
        self.assertIsNone(remote.remembered(KEY))

    def test_good_key(self) -> None:
        """The question is as configured; the answer names the user."""
        found = self.successResultOf(self.ask(FakeResponse(200, user(id="u1", name="Ann"))))
        self.assertEqual(found.principal, Principal("wiki", "u1", DIGEST(KEY)))
        self.assertEqual((found.credential, found.servers), (KEY, frozenset({"a"})))
        headers = [("Authorization", f"Bearer {CANARY}"), ("Content-Type", "application/json")]
        self.assertEqual(self.sent, [("POST", OUTLINE.url, headers, b"{}")])
        self.assertEqual(self.meters.events, {"auth_ok": 1})

    def test_bad_key(self) -> None:
        """401 and 403 mean that the key is bad, whatever comes with them."""
        for status in (401, 403):
            for response in (FakeResponse(status, b"no"), FakeResponse(status, b"x" * 999_999)):
                self.failureResultOf(self.ask(response), InvalidCredential)
        self.assertEqual(self.meters.events, {})

    def test_other_statuses(self) -> None:
        """Any other status leaves the key open, and its body is not read."""
        for status in (201, 204, 301, 302, 307, 400, 404, 418, 429, 500, 502, 503, 504):
            response = FakeResponse(status, hang=True)
            self.assert_unavailable(response)
            self.assertTrue(response.transport.cut)

    def test_statuses_as_configured(self) -> None:
        """What counts as good and bad can be said."""
        check = RemoteCheck(url="https://a", expect_status=(204,), refuse_status=(404,))
        self.successResultOf(self.ask(FakeResponse(204), check=check))
        self.failureResultOf(self.ask(FakeResponse(404), check=check), InvalidCredential)
        self.assert_unavailable(FakeResponse(401), check=check)

    def test_no_user_field(self) -> None:
        """Without a field to look for, the user is the key's fingerprint."""
        found = self.successResultOf(
            self.ask(FakeResponse(200, b"not JSON"), check=RemoteCheck(url="https://a"))
        )
        self.assertEqual(found.principal.subject, DIGEST(KEY)[:8])

    def test_user_fields(self) -> None:
        """Numbers are names too, lists are entered by place."""
        for field, body in (
            ("id", {"id": 17}),
            ("0.id", [{"id": "17"}]),
            ("a.1", {"a": [0, "17"]}),
        ):
            found = self.successResultOf(
                self.ask(
                    FakeResponse(200, json.dumps(body).encode()),
                    check=RemoteCheck(url="https://a", user_field=field),
                )
            )
            self.assertEqual(found.principal.subject, "17")

    def test_answers_that_name_nobody(self) -> None:
        """An answer without a usable user leaves the key open."""
        for body in (
            b"",
            b"not JSON",
            b"\xff",
            b"[]",
            b"{}",
            b'{"data": {"user": [1]}}',
            b'{"data": 1}',
            user(id=""),
            user(id=None),
            user(id=True),
            user(id={"a": 1}),
            user(id="x" * 257),
            user(id="a\nb"),
            user(id="\x1b[31m"),
            b"[" * 100_000,
        ):
            self.assert_unavailable(FakeResponse(200, body))

    def test_broken_answers(self) -> None:
        """An answer that is too long or breaks off leaves the key open."""
        long = FakeResponse(200, user(id="u", more="x" * 300_000), hang=True)
        self.assert_unavailable(long)
        self.assertTrue(long.transport.cut)
        declared = FakeResponse(200, hang=True)
        declared.length = 10_000_000
        self.assert_unavailable(declared)
        self.assertTrue(declared.transport.cut)
        torn = FakeResponse(200, user(id="u"))
        torn.ended = ResponseFailed([])
        self.assert_unavailable(torn)

    def test_network_failures(self) -> None:
        """Whatever goes wrong on the way leaves the key open, and shows no key."""
        for error in (
            ConnectionRefusedError(),
            ValueError(f"bad URL {CANARY}"),
            PrivateAddressError(),
        ):
            self.assert_unavailable(error)

    def test_stale_connection(self) -> None:
        """A connection that the API had closed is tried once more."""
        self.successResultOf(self.ask(ResponseNeverReceived([]), FakeResponse(200, user(id="u1"))))
        self.assert_unavailable(ResponseNeverReceived([]), ResponseNeverReceived([]))

    def test_silence(self) -> None:
        """No answer in 5 s leaves the key open, before the head and in the body."""
        waiting = self.ask()
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.failureResultOf(waiting, AuthUnavailable)
        response = FakeResponse(200, b'{"data":', hang=True)
        waiting = self.ask(response)
        self.clock.advance(5)
        self.failureResultOf(waiting, AuthUnavailable)
        self.assertTrue(response.transport.cut)
        self.assertEqual(self.meters.events["auth_unavailable"], 2)

    def test_deadline_as_agents_tell_it(self) -> None:
        """A question that was cancelled is not sent again."""

        def send(*_: Any) -> Deferred[Any]:
            self.sent.append(("", "", [], None))
            reasons = [Failure(CancelledError())]
            return Deferred(lambda asked: asked.errback(ResponseNeverReceived(reasons)))

        remote = RemoteAuthenticator("wiki", OUTLINE, send, self.clock, DIGEST, meters=self.meters)
        waiting = remote.authenticate(KEY)
        self.clock.advance(5)
        self.failureResultOf(waiting, AuthUnavailable)
        self.assertEqual(len(self.sent), 1)

    def test_places(self) -> None:
        """Only so many questions are open at once; waiting counts towards the deadline."""
        remote = self.make(RemoteCheck(url="https://a", calls=2))
        waiting = [remote.authenticate(Secret(f"k{number}")) for number in range(4)]
        self.assertEqual(len(self.sent), 2)
        self.clock.advance(5)
        for one in waiting:
            self.failureResultOf(one, AuthUnavailable)
        self.answers.append(FakeResponse(200))
        self.successResultOf(remote.authenticate(KEY))

    def test_keys_that_are_not_asked_about(self) -> None:
        """Keys that could break out of a header, and those of our own make, are never sent."""
        remote = self.make()
        for key in ("a\r\nX: y", "a b", "é", "a\x00", "k" * 4097, "mg_00000001_" + "0" * 64):
            self.failureResultOf(remote.authenticate(Secret(key)), InvalidCredential)
        failure = self.failureResultOf(remote.authenticate(Secret("")), Unauthenticated)
        self.assertIsNone(failure.check(InvalidCredential))
        self.assertEqual(self.sent, [])

    def test_templates(self) -> None:
        """The key is put in so that it stays one value: in a URL, in JSON, in a form."""
        nasty = Secret('a"b&c=d/e?f#{key}\\%')
        remote = self.make(
            RemoteCheck(url="https://a/{key}?k={key}", method="POST", body='{"k": "{key}"}')
        )
        first = remote.authenticate(nasty)
        form = self.make(
            RemoteCheck(
                url="https://a",
                method="POST",
                headers=(("content-type", "application/X-WWW-form-urlencoded; charset=utf-8"),),
                body="token={key}&x=1",
            )
        )
        second = form.authenticate(nasty)
        quoted = "a%22b%26c%3Dd%2Fe%3Ff%23%7Bkey%7D%5C%25"
        self.assertEqual(self.sent[0][1], f"https://a/{quoted}?k={quoted}")
        self.assertEqual(json.loads(self.sent[0][3] or b""), {"k": nasty.reveal()})
        self.assertEqual(self.sent[1][3], f"token={quoted}&x=1".encode())
        self.clock.advance(5)
        for waiting in (first, second):
            self.failureResultOf(waiting, AuthUnavailable)

    def test_templates_are_not_shown(self) -> None:
        """Headers and body of a check may hold a secret of the gate's own."""
        check = RemoteCheck(url="https://a", headers=(("X-App", CANARY),), body=CANARY)
        self.assertNotIn(CANARY, repr(check))
