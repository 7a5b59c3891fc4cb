"""No object of the access room shows a key, however it is printed or logged (R84)."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import GateError
from mcpgate.gate.access import (
    AnyOf,
    Breaker,
    CachedAuthenticator,
    FailureBudget,
    Lockout,
    Revocations,
    StaticAuthenticator,
    extract,
)
from mcpgate.gate.access.keyfile import changing, make_entry
from mcpgate.gate.access.remote import RemoteAuthenticator, RemoteCheck
from mcpgate.http.fields import Fields
from mcpgate.model import Secret
from mcpgate.telemetry.meters import Meters
from tests.gate.access.fakes import CANARY, DIGEST, ISSUER


class CanaryTests(SynchronousTestCase):
    """A key that went everywhere is seen nowhere."""

    def setUp(self) -> None:
        """Listen to every log event."""
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.shown: list[str] = []

    def show(self, *things: object) -> None:
        """Print things in every way."""
        for thing in things:
            self.shown += [repr(thing), str(thing), f"{thing}", f"{thing!r:>10}"]

    def catch(self, waiting: Deferred[Any]) -> None:
        """Show how something ended."""
        outcomes: list[Any] = []
        waiting.addBoth(outcomes.append)
        (outcome,) = outcomes
        self.show(outcome)
        if hasattr(outcome, "getTraceback"):
            self.shown += [outcome.getTraceback(), *traceback.format_exception(outcome.value)]
            self.show(outcome.value, getattr(outcome.value, "data", None))

    def test_nothing_shows_it(self) -> None:
        """Neither reprs nor errors, logs, challenges, meters, files nor tracebacks hold the key."""
        path = Path(self.mktemp())
        key = extract(Fields([(b"x-api-key", CANARY.encode())]), None, ())
        assert key is not None
        clock, meters, revocations = Clock(), Meters(), Revocations()
        entry = make_entry("ann", key, random_bytes=bytes, now=datetime(2026, 1, 1, tzinfo=UTC))
        with changing(path) as (keys, write):
            write(keys.with_key(entry))
        static = StaticAuthenticator("team", path, DIGEST, revocations)

        def send(method: str, url: str, headers: object, body: object) -> Deferred[Any]:
            return fail(ValueError(f"{url} {headers}"))

        remote = RemoteAuthenticator(
            ISSUER, RemoteCheck(url="https://a/{key}"), send, clock, DIGEST, meters=meters
        )
        breaker = Breaker(remote, clock, name=ISSUER)
        budget = FailureBudget(breaker, clock, DIGEST, meters=meters)
        cached = CachedAuthenticator(budget, clock, DIGEST, revocations, issuer=ISSUER)
        lockout = Lockout(clock, meters)
        for _ in range(30):
            self.catch(cached.authenticate(key))
            wrong = Secret(CANARY + "x")
            self.catch(lockout.authenticate(static, wrong, "192.0.2.1"))
        everything = AnyOf([static, cached])
        self.catch(everything.authenticate(key))
        caller = static.remembered(key)
        release = revocations.watch(caller) if caller else None
        path.write_text("")
        static.reload()
        path.write_text(f"{CANARY}\n")
        static.reload()
        for line in (b"Bearer " + CANARY.encode() + b"\xff", b"Basic " + CANARY.encode()):
            try:
                extract(Fields([(b"authorization", line)]), None, ())
            except GateError as error:
                self.show(error, error.detail, error.data)
        self.show(key, caller, static, remote, breaker, budget, cached, lockout, everything)
        self.show(revocations, meters, entry, keys, RemoteCheck(url="u"), release)
        self.show(caller and caller.principal)
        self.shown += [eventAsText(event) for event in self.events]
        self.shown += [repr(event) for event in self.events]
        self.assertGreater(len(self.events), 3)
        self.assertEqual([text for text in self.shown if CANARY in text], [])
