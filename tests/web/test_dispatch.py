"""Where requests go, and how those are refused that go nowhere."""

from __future__ import annotations

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import AuthUnavailable, InvalidCredential
from mcpgate.interfaces import IInbound
from tests.web.endpoint_kit import INIT, World, caller_of, request
from tests.web.fake_inbound import FakeInbound


class DispatcherTests(SynchronousTestCase):
    """The order of the steps."""

    def test_the_guard_comes_first(self) -> None:
        """What the guard answered goes no further."""
        world = World()

        class Shut:
            """Answers everything."""

            def check(self, inbound: IInbound) -> bool:
                """Answer."""
                inbound.respond(421, [], b"")
                return True

        world.dispatcher._guard = Shut()  # type: ignore[assignment]  # a stand-in
        self.assertEqual(world.post(INIT, key="").status, 421)

    def test_pages_need_no_key_here(self) -> None:
        """What belongs to no server is the tree's, even while the gate drains."""
        world = World()
        world.dispatcher.draining = True
        world.ask("GET", path=b"/health", key="")
        self.assertEqual(world.pages, [b"/health"])

    def test_draining(self) -> None:
        """New requests for servers are refused, in the form of their path."""
        world = World()
        world.dispatcher.draining = True
        answer = world.post(INIT)
        self.assertEqual((answer.status, answer.json["error"]["code"]), (503, -31008))
        self.assertEqual(answer.fields[b"retry-after"], b"5")
        answer = world.ask("GET", path=b"/notes/x")
        self.assertEqual((answer.status, answer.json["error"]["reason"]), (503, "draining"))

    def test_no_key(self) -> None:
        """401 tells how to send one; the endpoint says so in words of JSON-RPC."""
        world = World()
        answer = world.post(INIT, key="")
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.fields[b"www-authenticate"], b'Bearer realm="mcpgate"')
        self.assertEqual(answer.json["jsonrpc"], "2.0")
        answer = world.ask("GET", path=b"/notes/x", key="wrong")
        self.assertEqual(answer.status, 401)
        self.assertIn(b"invalid_token", answer.fields[b"www-authenticate"])
        self.assertEqual(answer.json["error"]["reason"], "invalid_credential")

    def test_a_key_for_other_servers(self) -> None:
        """403, and no session."""
        answer = World().post(INIT, key="konly")
        self.assertEqual((answer.status, answer.json["error"]["code"]), (403, -32600))

    def test_a_key_that_is_asked_for(self) -> None:
        """The request waits for the answer, whatever it is."""
        world = World()
        answers = [world.post(INIT, key="kslow") for _ in range(4)]
        asked = [waiting for _, waiting in world.authenticator.asked]
        answers[3].go()
        asked[0].callback(caller_of("kslow"))
        asked[1].errback(Failure(InvalidCredential()))
        asked[2].errback(Failure(AuthUnavailable(retry_after_s=1)))
        asked[3].callback(caller_of("kslow"))
        world.answer_initialize()
        self.assertEqual([a.status for a in answers], [200, 401, 503, 0])
        self.assertEqual(answers[0].notes["principal"], caller_of("kslow").principal.fingerprint)
        self.assertEqual(len(world.sessions), 1)

    def test_paths_of_a_server(self) -> None:
        """The endpoint under both names, everything else to the relay."""
        world = World()
        session = world.open()
        for path in (b"/notes/mcp/", b"/servers/notes/mcp"):
            self.assertEqual(world.post(request("ping"), session, path=path).status, 200)
        world.ask("GET", path=b"/notes/files/a%2Fb")
        self.assertEqual([r.rest for r in world.relayed], [b"/files/a%2Fb"])
        answer = world.ask("GET", path=b"/notes")
        self.assertEqual(answer.status, 404)
        self.assertIn("/notes/mcp", answer.json["error"]["message"])

    def test_bugs_are_answered(self) -> None:
        """Whatever goes wrong, the client gets an answer without a traceback."""
        world = World()

        def broken(*args: object) -> None:
            raise ZeroDivisionError

        world.dispatcher._relay = broken
        self.assertEqual(world.ask("GET", path=b"/notes/x").status, 500)
        world.dispatcher._show_page = broken
        self.assertEqual(world.ask("GET", path=b"/").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_refusal_after_the_answer_began_cuts_it(self) -> None:
        """Half an answer must not look whole."""
        world = World()

        def broken(inbound: IInbound, *args: object) -> None:
            inbound.start(200, [], None)
            raise ZeroDivisionError

        world.dispatcher._relay = broken
        answer: FakeInbound = world.ask("GET", path=b"/notes/x")
        self.assertTrue(answer.aborted)
        world.dispatcher._endpoint.serve = broken  # type: ignore[method-assign,assignment]  # to break it
        answer = world.ask("GET")
        self.assertTrue(answer.aborted)
        self.flushLoggedErrors(ZeroDivisionError)
