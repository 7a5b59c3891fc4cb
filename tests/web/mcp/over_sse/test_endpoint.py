"""HTTP+SSE of 2024-11-05 towards clients: paths, ids and refusals."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import Principal
from mcpgate.web.guard import Guard
from tests.web.endpoint_kit import World, caller_of, request
from tests.web.fake_inbound import FakeInbound
from tests.web.sse_client import SSEClient


class StreamTests(SynchronousTestCase):
    """What GET gets."""

    def test_the_first_event_tells_where_to_post(self) -> None:
        """With the path the client used, alias and trailing slash or not."""
        for path, prefix in (
            (b"/notes/sse", "/notes"),
            (b"/notes/sse/", "/notes"),
            (b"/servers/notes/sse", "/servers/notes"),
        ):
            client = SSEClient(World(), path=path)
            self.assertEqual(client.stream.status, 200)
            self.assertEqual(client.stream.fields[b"content-type"], b"text/event-stream")
            self.assertEqual(client.endpoint, f"{prefix}/messages?session_id=stream-{1:032x}")

    def test_behind_a_path(self) -> None:
        """What a trusted proxy has taken off the path stands before it."""
        world = World()
        world.dispatcher._guard = Guard(allowed_hosts=["*"], trusted_proxies=["192.0.2.7"])
        client = SSEClient(world, more=((b"x-forwarded-prefix", b"/tools"),))
        self.assertTrue(client.endpoint.startswith("/tools/notes/messages?session_id="))

    def test_other_methods(self) -> None:
        """HEAD answers health checks; POST is told to use GET; OPTIONS tells the methods."""
        world = World()
        head = world.ask("HEAD", path=b"/notes/sse")
        self.assertEqual((head.status, head.is_stream), (200, True))
        for path, method, allowed in (
            (b"/notes/sse", "POST", b"GET, OPTIONS"),
            (b"/notes/messages", "GET", b"POST, OPTIONS"),
        ):
            answer = world.ask(method, b"{}" if method == "POST" else b"", path=path)
            self.assertEqual((answer.status, answer.fields[b"allow"]), (405, allowed))
            self.assertEqual(world.ask("OPTIONS", path=path).fields[b"allow"], allowed)
        answer = world.ask("GET", path=b"/notes/sse", accept=b"application/json")
        self.assertEqual(answer.status, 406)
        self.assertEqual(world.leaks(), {})

    def test_streams_of_a_key_are_counted(self) -> None:
        """Beyond the bound a stream is refused, until another has ended."""
        world = World(streams=1)
        first = SSEClient(world)
        refused = world.ask("GET", path=b"/notes/sse", accept=b"text/event-stream")
        self.assertEqual(refused.status, 503)
        self.assertEqual(len(world.sse), 1)
        first.stream.go()
        self.assertEqual((len(world.sse), world.leaks()), (0, {}))
        self.assertEqual(SSEClient(world).stream.status, 200)

    def test_a_key_that_was_revoked_loses_its_streams(self) -> None:
        """And nobody else's."""
        world = World()
        mine, other = SSEClient(world), SSEClient(world, key="k2")
        world.sse.close(caller_of("k1").principal)
        world.sse.close(Principal("file", "nobody", "0" * 32))
        self.assertTrue(mine.stream.finished)
        self.assertFalse(other.stream.finished)

    def test_the_paths_may_be_left_to_the_server(self) -> None:
        """With sse = off they are relayed like any other."""
        world = World(sse=False)
        world.ask("GET", path=b"/notes/sse")
        world.ask("POST", b"{}", path=b"/notes/messages")
        self.assertEqual([route.rest for route in world.relayed], [b"/sse", b"/messages"])

    def test_without_a_key(self) -> None:
        """A stream is opened for nobody unknown; the refusal is JSON-RPC, as of the endpoint."""
        world = World()
        answer = world.ask("GET", path=b"/notes/sse", key="")
        self.assertEqual((answer.status, answer.json["jsonrpc"]), (401, "2.0"))


class MessageTests(SynchronousTestCase):
    """What POST demands."""

    def post(self, client: SSEClient, body: object, **options: object) -> FakeInbound:
        """POST to the client's stream."""
        return client.world.ask(
            "POST",
            body,
            **{"path": b"/notes/messages", "query": client.query, **options},  # type: ignore[arg-type]
        )

    def test_accepted(self) -> None:
        """A message is taken at once, whatever comes of it."""
        client = SSEClient(World())
        answer = self.post(client, request("ping", 5), path=b"/notes/messages/")
        self.assertEqual((answer.status, answer.body), (202, b"Accepted"))
        self.assertEqual(client.heard, [{"jsonrpc": "2.0", "id": 5, "result": {}}])

    def test_unknown_and_foreign_ids_look_the_same(self) -> None:
        """To the last byte; also on another server, and for ids of the other transport (R70)."""
        world = World()
        mine, foreign = SSEClient(world), SSEClient(world, key="k2")
        session = world.open()
        answers = [
            self.post(mine, request("ping"), query=query, path=path)
            for query, path in (
                (b"session_id=" + b"0" * 39, b"/notes/messages"),
                (foreign.query, b"/notes/messages"),
                (mine.query, b"/other/messages"),
                (b"session_id=" + session.encode(), b"/notes/messages"),
            )
        ]
        self.assertEqual(
            {(a.status, a.body, str(a.fields)) for a in answers},
            {(404, answers[0].body, str(answers[0].fields))},
        )
        self.assertEqual(world.meters.events["session_theft"], 1)
        self.assertEqual(world.post(request("ping"), mine.stream_id).status, 404)

    def test_malformed(self) -> None:
        """No id, two ids, no JSON, an array, another type or coding."""
        client = SSEClient(World())
        for status, body, options in (
            (400, request("ping"), {"query": None}),
            (400, request("ping"), {"query": b"session_id=a&session_id=b"}),
            (400, b"{", {}),
            (400, {"id": 3, "method": "ping"}, {}),
            (400, [request("ping")], {}),
            (415, request("ping"), {"kind": b"text/plain"}),
            (415, request("ping"), {"more": ((b"content-encoding", b"gzip"),)}),
        ):
            answer = self.post(client, body, **options)
            self.assertEqual((answer.status, answer.json["jsonrpc"]), (status, "2.0"))
        self.assertEqual(client.heard, [])

    def test_a_stream_that_ended_meanwhile(self) -> None:
        """A body that was read after the end is answered like an unknown id."""
        client = SSEClient(World())
        answer = FakeInbound(
            "POST",
            b"/notes/messages",
            body=b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
            fields=[(b"authorization", b"Bearer k1"), (b"content-type", b"application/json")],
            query=client.query,
        )
        read = answer.read_body

        def read_late(limit: int, done: Callable[[bytes], None]) -> None:
            client.stream.go()
            read(limit, done)

        answer.read_body = read_late  # type: ignore[method-assign]  # the stream ends meanwhile
        client.world.dispatcher(answer)
        self.assertEqual((answer.status, answer.json["id"]), (404, None))
