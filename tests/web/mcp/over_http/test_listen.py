"""Streams of HTTP servers through the endpoint."""

from __future__ import annotations

from mcpgate.errors import (
    BadRequest,
)
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.http_case import HTTPCase


class StreamTests(HTTPCase):
    """What a client's GET opens."""

    def assert_alone(self) -> None:
        """Check that just one stream is counted."""
        self.assertEqual(self.world.leaks(), {"streams": 1, "stream slots": 1, "in use": 1})

    def test_the_servers_stream_is_piped(self) -> None:
        """Events pass as they are, without keeping the instance in use."""
        stream = self.world.get(self.session)
        self.assertEqual(stream.status, 0)
        sent = self.take()
        self.assertEqual((sent.method, sent.raw), ("GET", None))
        sent.head()
        sent.data(b"data: {")
        sent.event({})
        self.assertEqual(stream.body, b": open\n\ndata: {data: {}\r\n\r\n")
        self.assert_alone()
        stream.go()
        self.assertTrue(sent.aborted)
        self.assertEqual(self.world.leaks(), {})

    def test_a_slow_reader_slows_the_server(self) -> None:
        """Pausing reaches the server's stream."""
        stream = self.world.get(self.session)
        sent = self.take()
        sent.head()
        stream.read_slowly()
        self.assertTrue(sent.paused)
        stream.catch_up()
        self.assertFalse(sent.paused)

    def test_it_is_parked_while_nothing_runs(self) -> None:
        """The client's stream is open and quiet; the next call attaches it."""
        del self.world.pool._running[self.world.pool.newest.key]
        stream = self.world.get(self.session)
        self.assertEqual(stream.status, 200)
        stream.read_slowly()
        self.call()
        gets = [sent for sent in self.world.server.all if sent.method == "GET"]
        self.assertEqual(len(gets), 1)
        gets[0].head()
        self.assertTrue(gets[0].paused)
        stream.catch_up()
        gets[0].event({})
        self.assertEqual(stream.events, [{}])

    def test_405_is_passed_on(self) -> None:
        """A server without a stream says so."""
        stream = self.world.get(self.session)
        self.take().empty(405)
        self.assertEqual((stream.status, stream.fields[b"allow"]), (405, b"POST, DELETE"))
        self.assertEqual(self.world.leaks(), {})

    def test_405_after_the_stream_was_opened_is_kept_in_mind(self) -> None:
        """A parked stream stays open, and the server is not asked again."""
        del self.world.pool._running[self.world.pool.newest.key]
        stream = self.world.get(self.session)
        self.call()
        sent = next(sent for sent in self.world.server.waiting if sent.method == "GET")
        self.world.server.waiting.remove(sent)
        sent.empty(405)
        self.take().result()
        self.call()
        self.assertFalse(stream.finished)
        self.assertEqual([s.method for s in self.world.server.waiting], ["POST"])

    def test_409_is_tried_again(self) -> None:
        """The server notices late that the older stream is gone; then it is parked."""
        stream = self.world.get(self.session)
        for _ in range(5):
            self.take().empty(409)
            self.world.pass_time(4)
        sent = self.take()
        self.assertEqual(stream.status, 200)
        sent.empty(409)
        self.world.pass_time(30)
        self.assertEqual(self.world.server.waiting, [])
        self.assertFalse(stream.finished)

    def test_a_server_that_ends_the_stream_is_asked_again(self) -> None:
        """The client's stream goes on; also when the connection broke."""
        stream = self.world.get(self.session)
        for end in (Sent.done, Sent.fail):
            sent = self.take()
            sent.head()
            sent.event({})
            end(sent)
            self.world.pass_time(1)
        self.take().head()
        self.assertEqual(len(stream.events), 2)
        self.assert_alone()

    def test_a_stream_that_ended_is_not_asked_for(self) -> None:
        """When the client goes between two tries nothing is tried."""
        stream = self.world.get(self.session)
        self.take().empty(409)
        stream.go()
        self.world.pass_time(1)
        self.assertEqual(self.world.server.waiting, [])
        self.assertEqual(self.world.leaks(), {})

    def test_an_instance_that_stops_parks_the_stream(self) -> None:
        """The client notices nothing; a call in between does not ask twice."""
        stream = self.world.get(self.session)
        sent = self.take()
        sent.head()
        instance = self.world.pool.newest
        del self.world.pool._running[instance.key]
        sent.fail()
        self.world.pass_time(1)
        self.assertFalse(stream.finished)
        self.call()
        gets = [sent for sent in self.world.server.all if sent.method == "GET"]
        self.assertEqual(len(gets), 1)

    def test_a_lost_session_is_noticed(self) -> None:
        """404 on the stream makes the next call shake hands first."""
        stream = self.world.get(self.session)
        self.take().empty(404)
        self.assertEqual(stream.status, 200)
        self.call()
        self.assertEqual(self.world.server.heard().count("initialize"), 2)
        self.world.server.waiting[0].empty(500)
        self.assertFalse(stream.finished)

    def test_a_server_without_a_word_does_not_keep_the_client_waiting(self) -> None:
        """Some servers write no head before the first event."""
        stream = self.world.get(self.session)
        sent = self.take()
        self.world.pass_time(16)
        self.assertEqual(stream.body, b": open\n\n")
        sent.head()
        sent.event({})
        self.assertEqual(stream.events, [{}])

    def test_a_newer_stream_replaces_the_older(self) -> None:
        """The older is ended before the server is asked for the newer."""
        first = self.world.get(self.session)
        one = self.take()
        one.head()
        second = self.world.get(self.session)
        self.assertTrue(first.finished and one.aborted)
        third = self.world.get(self.session)
        self.assertEqual(second.status, 409)
        gets = [sent for sent in self.world.server.all if sent.method == "GET"]
        self.assertEqual([sent.aborted for sent in gets], [True, True, False])
        gets[-1].head()
        self.assertEqual(third.status, 200)
        self.assert_alone()
        self.world.ask("DELETE", session=self.session)
        self.assertTrue(third.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_too_large_an_event_detaches(self) -> None:
        """The server's stream is cut, the client's goes on."""
        stream = self.world.get(self.session)
        sent = self.take()
        sent.head()
        for _ in range(5):
            sent.data(b"x" * 1024 * 1024)
        self.assertTrue(sent.aborted)
        self.assertFalse(stream.finished)
        sent.receiver.response_data(b"late")

    def test_what_can_not_be_asked_for_is_parked(self) -> None:
        """Fields that break out of their line are never sent."""
        self.world.server.error = BadRequest()
        stream = self.world.get(self.session)
        self.assertEqual(stream.status, 200)
        self.assert_alone()

    def replay(self) -> FakeInbound:
        """Ask for what was lost."""
        return self.world.get(self.session, more=((b"last-event-id", b"e7"),))

    def test_a_replay_is_of_one_stream_and_ends(self) -> None:
        """Last-Event-ID reaches the server; the standing stream is not disturbed."""
        standing = self.world.get(self.session)
        self.take().head()
        replay = self.replay()
        sent = self.take()
        self.assertEqual(sent.fields[b"last-event-id"], b"e7")
        sent.head()
        sent.event({"n": 1})
        sent.done()
        self.assertEqual(replay.events, [{"n": 1}])
        self.assertTrue(replay.finished)
        self.assertFalse(standing.finished)
        self.assert_alone()

    def test_a_replay_the_server_does_not_know_is_405(self) -> None:
        """It must not hold a stream open for ever (Gemini asks for one per answer)."""
        self.world.get(self.session)
        self.take().head()
        replay = self.replay()
        self.take().empty(500)
        self.assertEqual(replay.status, 405)
        replay = self.replay()
        sent = self.take()
        self.world.pass_time(16)
        sent.empty(500)
        self.assertTrue(replay.finished)
        self.assertEqual(self.world.leaks()["streams"], 1)

    def test_a_replay_without_a_standing_stream_becomes_it(self) -> None:
        """A client that reconnects its standing stream has it again."""
        del self.world.pool._running[self.world.pool.newest.key]
        stream = self.replay()
        self.assertEqual(stream.status, 200)
        self.call()
        self.assertIn("GET", [sent.method for sent in self.world.server.all])
