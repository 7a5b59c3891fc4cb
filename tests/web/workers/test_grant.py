"""Tests of mcpgate.web.workers.grant and entries."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BackendUnavailable, Internal
from mcpgate.model import Isolation, Principal, Rate, ServerSpec, Transport
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.web.workers.entries import read_entry, write_entry
from mcpgate.web.workers.grant import Grant, read_error, read_grant, write_error

SPEC = ServerSpec(
    name="web",
    transport=Transport.HTTP,
    isolation=Isolation.SHARED,
    headers=(("X-Key", "{key}"),),
    forward_headers=("cookie",),
    rate=Rate(1.0, 2.0),
    url="http://192.0.2.1/mcp",
)


class GrantTests(SynchronousTestCase):
    """A grant on its way."""

    def test_there_and_back(self) -> None:
        """A worker reads what the owner wrote."""
        for spec, host, address in (
            (SPEC, b"gate.example.org:8443", ("127.0.0.1", 1234)),
            (ServerSpec(name="a", transport=Transport.HTTP), None, None),
        ):
            grant = Grant(
                number=3,
                serial=9,
                channel=1,
                host=host,
                prefix=b"/servers/web",
                digest="ab",
                principal=Principal("keys", "ann", "cd" * 16),
                spec=spec,
                instance="i1",
                address=address,
            )
            self.assertEqual(read_grant(json.loads(json.dumps(grant.write()))), grant)

    def test_errors(self) -> None:
        """What clients are told at the end of a server is what the owner would tell them."""
        for error in (
            BackendDied(data={"exitCode": 1}),
            BackendUnavailable("It was stopped.", retry_after_s=1.0),
        ):
            read = read_error(json.loads(json.dumps(write_error(error))))
            self.assertIs(type(read), type(error))
            self.assertEqual(
                (read.detail, read.retry_after_s, read.data),
                (error.detail, error.retry_after_s, error.data),
            )
        strange: dict[str, object] = {
            "kind": "annotations",
            "detail": "",
            "retry_after_s": None,
            "data": {},
        }
        self.assertIsInstance(read_error(strange), Internal)


class EntryTests(SynchronousTestCase):
    """An entry of the access log on its way."""

    def test_there_and_back(self) -> None:
        """The owner reads what a worker wrote; only plain notes go along."""
        entry = AccessEntry(
            peer="192.0.2.1",
            method="GET",
            path="/web/x",
            status=200,
            bytes_in=1,
            bytes_out=2,
            duration_s=0.5,
            request_id="a-1",
            protocol="HTTP/2",
            complete=True,
            notes={"server": "web", "odd": object()},
        )
        read = read_entry(json.loads(json.dumps(write_entry(entry, 12.5))))
        self.assertEqual((read.at, read.notes), (12.5, {"server": "web"}))
        self.assertEqual((read.peer, read.status, read.protocol), ("192.0.2.1", 200, "HTTP/2"))
        self.assertRaises(ValueError, read_entry, [1, 2])
