"""What the gate forwards is what h11 and twisted.web would have read."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.http.agreement import Agreement
from tests.http.generated import Case, Generated
from tests.web.relay.in_memory import AUTHORITY, GateInMemory


class AgreementTests(SynchronousTestCase):
    """Requests made up by dice; ``tests.functional.test_agreement`` throws them more often."""

    def test_nobody_reads_otherwise(self) -> None:
        """Method, target, fields and body of what is forwarded are those the others read."""
        gate, agreement = GateInMemory(), Agreement(authority=AUTHORITY)
        for case in Generated(6).cases(1000):
            agreement.compare(case, *gate.converse(case.pieces))
        tally = agreement.tally
        self.assertEqual(tally.unexpected(), [])
        self.assertGreater(tally.outcomes["forwarded, all agree on it"], 500)
        self.assertGreater(len(tally.stricter), 15)

    def test_a_difference_would_be_seen(self) -> None:
        """A body, a target or a field that is not what was sent, and a request too many."""
        case = Case(
            [b"PUT /srv/a HTTP/1.1\r\nHost: g\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nhi"], [""]
        )
        told, sent = GateInMemory().converse(case.pieces)
        honest = Agreement(authority=AUTHORITY)
        honest.compare(case, told, sent)
        self.assertEqual(honest.tally.unexpected(), [])
        for wrong in (
            [sent[0].replace(b"hi", b"ho")],
            [sent[0].replace(b"/a", b"/b")],
            [sent[0].replace(b"x-a: 1", b"x-a: 2")],
            [sent[0].replace(b"x-a: 1", b"cookie: 1")],
            [sent[0].replace(b"forwarded-host: g", b"forwarded-host: h")],
            [sent[0].replace(b"x-a: 1", b"x-a : 1")],
            [sent[0] * 2],
            [],
        ):
            agreement = Agreement(authority=AUTHORITY)
            agreement.compare(case, told, wrong)
            self.assertNotEqual(agreement.tally.unexpected(), [], wrong)

    def test_an_unknown_reason_would_be_seen(self) -> None:
        """A refusal that is on no list, of what others accept."""
        case = Case([b"GET /srv/a HTTP/1.1\r\nHost: g\r\n\r\n"], [""])
        body = b'{"error": {"message": "I do not like it."}}'
        told = b"HTTP/1.1 400 X\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        agreement = Agreement(authority=AUTHORITY)
        agreement.compare(case, told, [])
        self.assertEqual(agreement.tally.unexpected(), ["refused: 400 I do not like it."])
