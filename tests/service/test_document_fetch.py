"""Tests of mcpgate.service.document_fetch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers

from mcpgate.config.rest import DOCUMENT_BYTES
from mcpgate.gate.access import outbound
from mcpgate.gate.access.outbound import BadAnswerError, PrivateAddressError
from mcpgate.model import RESTSource, ServerSpec, Transport
from mcpgate.service.document_fetch import FETCH_S, Fetched, fetch
from mcpgate.service.document_outbound import NotHadError, Outbound
from mcpgate.stores.document_files import Origin
from tests.gate.access.test_remote import FakeResponse

SOURCE = RESTSource(url="https://h:8443/openapi.json?key=s3cret")
SPEC = ServerSpec(
    name="pets",
    transport=Transport.REST,
    runtime="remote",
    url="https://h:8443/v1",
    headers=(("X-Token", "t"), ("X-Owner", "{key}"), ("Accept", "text/html")),
    rest_source=SOURCE,
)
ACCEPT = ("Accept", "application/json, application/yaml;q=0.9, */*;q=0.5")


class Response(FakeResponse):
    """An answer with fields."""

    def __init__(self, code: int = 200, body: bytes = b"", **fields: str) -> None:
        super().__init__(code, body)
        self.headers = Headers({name.replace("_", "-"): [text] for name, text in fields.items()})


class FetchTests(SynchronousTestCase):
    """One question for a document."""

    def setUp(self) -> None:
        """Prepare to answer."""
        self.clock = Clock()
        self.asked: list[list[tuple[str, str]]] = []

    def fetch(
        self, answer: Any, *, spec: ServerSpec = SPEC, have: Origin | None = None
    ) -> Deferred[Fetched | None]:
        """Ask; the service does this."""

        def ask(source: RESTSource, fields: list[tuple[str, str]]) -> Deferred[Any]:
            self.asked.append(fields)
            if isinstance(answer, Deferred):
                return answer
            return fail(answer) if isinstance(answer, Exception) else succeed(answer)

        return Deferred.fromCoroutine(fetch(ask, spec, SOURCE, have, self.clock))

    def why(self, answer: Any) -> str:
        """Give what is said of an answer."""
        return str(self.failureResultOf(self.fetch(answer), NotHadError).value)

    def test_fetched(self) -> None:
        """Content and what names its version come back; oversized or odd names do not."""
        answer = Response(body=b"{}", ETag='"1"', Last_Modified="then")
        self.assertEqual(self.successResultOf(self.fetch(answer)), Fetched(b"{}", '"1"', "then"))
        answer = Response(body=b"{}", ETag="x" * 1001)
        self.assertEqual(self.successResultOf(self.fetch(answer)), Fetched(b"{}", "", ""))

    def test_fields(self) -> None:
        """What the operator sends along goes to the service's own host, callers' fields nowhere."""
        self.fetch(Response())
        self.assertEqual(self.asked[-1], [ACCEPT, ("X-Token", "t")])
        self.fetch(Response(), spec=replace(SPEC, url="https://h/v1"))
        self.assertEqual(self.asked[-1], [ACCEPT])

    def test_not_modified(self) -> None:
        """A version that is known is named, and need not be sent again."""
        have = Origin(url=SOURCE.url, digest="d", etag='"1"', modified="then")
        self.assertIsNone(self.successResultOf(self.fetch(Response(304), have=have)))
        self.assertEqual(self.asked[-1][-1], ("If-None-Match", '"1"'))
        self.fetch(Response(304), have=replace(have, etag=""))
        self.assertEqual(self.asked[-1][-1], ("If-Modified-Since", "then"))
        self.assertIn("HTTP 304", self.why(Response(304)))

    def test_not_had(self) -> None:
        """Whatever goes wrong is said with what to do, and without what may be secret."""
        never = ResponseNeverReceived([Failure(TLSError([("SSL", "", "verify failed")]))])
        refused = ConnectionRefusedError("s3cret")
        for answer, why in (
            (Response(301), "redirects are not followed. Name the address"),
            (Response(404), "HTTP 404. Look at the address"),
            (PrivateAddressError(), "Set allow_private = on"),
            (BadAnswerError("the answer broke off"), "broke off. Look at the service"),
            (Response(body=b"x" * (DOCUMENT_BYTES + 1)), "too long. Leave out"),
            (never, "its certificate is not trusted"),
            (refused, "h:8443 can not be reached (ConnectionRefusedError). Look at name"),
        ):
            told = self.why(answer)
            self.assertIn(why, told)
            self.assertNotIn("s3cret", told)

    def test_silent(self) -> None:
        """A service that says nothing is given up, however its connection takes that."""
        cancelled = ResponseNeverReceived([Failure(CancelledError())])
        silents: list[Deferred[Any]] = [Deferred(), Deferred(lambda d: d.errback(cancelled))]
        for silent in silents:
            fetching = self.fetch(silent)
            self.clock.advance(FETCH_S)
            why = self.failureResultOf(fetching, NotHadError).value
            self.assertIn("h:8443 does not answer within 30 s", str(why))

    def test_outbound(self) -> None:
        """Addresses are looked at unless the operator says otherwise; connections are kept."""
        made: list[Any] = []

        class Client:
            def __init__(self, reactor: object, **options: Any) -> None:
                made.append(options["public_only"])

            def send(self, *words: Any) -> Deferred[Any]:
                made.append(words)
                return succeed(None)

            def close(self) -> Deferred[None]:
                made.append("closed")
                return succeed(None)

        self.patch(outbound, "OutboundClient", Client)
        asking = Outbound(object())
        for source in (SOURCE, SOURCE, replace(SOURCE, allow_private=True)):
            asking.ask(source, [])
        self.successResultOf(asking.close())
        sent: Any = ("GET", SOURCE.url, [], None)
        self.assertEqual(made, [True, sent, sent, False, sent, "closed", "closed"])
