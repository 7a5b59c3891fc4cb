"""Tests of mcpgate.web.mcp.together.member."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.mcp.jsonrpc import ErrorResponse, Request
from mcpgate.web.mcp.together.member import Members, RefusedError
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.together.group_kit import ANN, CONTEXT, FakeServers, spec

ASKED = Request("x", "tools/list", {"_meta": CONTEXT.meta()})


class MemberTests(SynchronousTestCase):
    """One server of a group."""

    def setUp(self) -> None:
        """Make the servers."""
        self.servers = FakeServers()
        self.members = Members(self.servers)

    def test_result(self) -> None:
        """The result is given; the request goes with the fields of the client's own."""
        self.servers.results["git", "tools/list"] = {"tools": []}
        source = FakeInbound(fields=[(b"x-request-language", b"cs")])
        answered = self.members.answer(spec("git"), ANN, ASKED, source)
        self.assertEqual(self.successResultOf(answered).result, {"tools": []})
        (post,) = self.servers.posts
        self.assertEqual(post.inbound.head.fields.get(b"x-request-language"), b"cs")
        self.assertEqual((post.caller, post.context), (ANN, CONTEXT))
        post.release()

    def test_of_ours(self) -> None:
        """A question of the gate's own has a head too."""
        self.members.answer(spec("git"), ANN, ASKED, None)
        self.assertEqual(self.servers.posts[0].inbound.head.path, b"/git/mcp")

    def test_errors(self) -> None:
        """An error of the server's is told apart from a failure to ask."""
        self.servers.results["git", "tools/list"] = ErrorResponse("x", -32603, "no")
        failure = self.failureResultOf(
            self.members.answer(spec("git"), ANN, ASKED, None), RefusedError
        )
        self.assertEqual(failure.value.response.code, -32603)
        self.servers.results["git", "tools/list"] = BackendUnavailable()
        self.failureResultOf(self.members.answer(spec("git"), ANN, ASKED, None), BackendUnavailable)

    def test_no_answer(self) -> None:
        """An answer without a message is a failure."""
        answered = self.members.answer(spec("git"), ANN, ASKED, None)
        self.servers.posts[0].inbound.respond(502, [], b"")
        self.failureResultOf(answered, BackendUnavailable)

    def test_taken_back(self) -> None:
        """Who does not want the answer any more takes the question back."""
        answered = self.members.answer(spec("git"), ANN, ASKED, None)
        answered.addErrback(lambda _: None)
        answered.cancel()
        self.assertTrue(self.servers.posts[0].inbound.finished)
