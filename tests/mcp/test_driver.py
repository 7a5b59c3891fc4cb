"""Tests of mcpgate.mcp.driver: conversations, written as they go."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BadBackendAnswer, CallCancelled
from mcpgate.mcp.driver import (
    MAX_QUESTIONS,
    MAX_ROUNDS,
    Answered,
    Ask,
    Cancelled,
    Command,
    Driver,
    Event,
    Expired,
    Fail,
    Finish,
    Lost,
    Recall,
    Replied,
    Send,
    State,
    TakeBack,
)
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response
from mcpgate.mcp.to_legacy import context

EVERYTHING: dict[str, object] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {},
    "roots": {},
}
FORM: dict[str, object] = {
    "method": "elicitation/create",
    "params": {"mode": "form", "message": "Name?", "requestedSchema": {"type": "object"}},
}
ROOTS: dict[str, object] = {"method": "roots/list"}
SAMPLE: dict[str, object] = {"method": "sampling/createMessage", "params": {"maxTokens": 5}}


def answered(**result: object) -> Answered:
    """Make a result of the server."""
    return Answered(Response(1, {"resultType": "complete", **result}))


def required(questions: dict[str, object] | None = None, state: object = None) -> Answered:
    """Make an answer of the server that wants input."""
    result: dict[str, object] = {"resultType": "input_required"}
    if questions is not None:
        result["inputRequests"] = questions
    if state is not None:
        result["requestState"] = state
    return Answered(Response(1, result))


class Playbook:
    """
    A conversation: what comes in, and what must come out of it.

    :param capabilities: of the client.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        *,
        capabilities: dict[str, object] | None = None,
        revision: str = "2025-11-25",
        method: str = "tools/call",
    ) -> None:
        self.case = case
        ids = count(1)
        self.request = Request("r", method, {"name": "greet", "_meta": {"progressToken": 9}})
        declared = EVERYTHING if capabilities is None else capabilities
        said = context({"capabilities": declared}, revision)
        self.driver = Driver(self.request, said, revision, lambda: f"ask-{next(ids)}")
        self.meta = {"progressToken": 9, **said.meta()}
        self.say(self.driver.begin(), self.sent(1))

    def sent(self, number: int, **extra: object) -> Send:
        """Give what is put to the server in one try."""
        params: dict[str, object] = {"name": "greet", "_meta": self.meta, **extra}
        return Send(Request(number, self.request.method, params))

    def say(self, commands: list[Command], *wanted: Command) -> None:
        """Compare, so that a failure shows the whole of both."""
        self.case.assertEqual([*map(repr, commands)], [*map(repr, wanted)])

    def __call__(self, event: Event, *wanted: Command) -> None:
        """Let something happen; say what must come of it."""
        self.say(self.driver.receive(event), *wanted)

    def fails(self, event: Event, text: str) -> None:
        """Let something happen that ends the call as a tool that failed."""
        commands = self.driver.receive(event)
        last = commands[-1]
        assert isinstance(last, Finish), commands
        assert isinstance(last.response, Response), commands
        self.case.assertTrue(last.response.result["isError"])
        self.case.assertIn(text, str(last.response.result["content"]))
        self.case.assertIs(self.driver.state, State.OVER)


class DriverTests(SynchronousTestCase):
    """One request of a legacy client at a modern server."""

    def test_plain(self) -> None:
        """A complete answer is the client's, in its own words and under its own id."""
        talk = Playbook(self)
        talk(answered(content=[]), Finish(Response("r", {"content": []})))
        talk(answered(content=[]))
        self.assertIs(talk.driver.state, State.OVER)

    def test_error(self) -> None:
        """An error ends the request, too."""
        talk = Playbook(self, method="prompts/get")
        talk(
            Answered(ErrorResponse(None, -32602, "no", {"a": 1})),
            Finish(ErrorResponse("r", -32602, "no", {"a": 1})),
        )

    def test_form(self) -> None:
        """The client is asked, and the server gets the answer with its state."""
        talk = Playbook(self)
        talk(
            required({"who": FORM}, "opaque"),
            Ask(Request("ask-1", "elicitation/create", FORM["params"])),  # type: ignore[arg-type]
        )
        reply: dict[str, object] = {"action": "accept", "content": {"name": "Ada"}}
        talk(
            Replied(Response("ask-1", reply)),
            talk.sent(2, inputResponses={"who": reply}, requestState="opaque"),
        )
        talk(answered(content=[]), Finish(Response("r", {"content": []})))

    def test_several_at_once(self) -> None:
        """The server is asked again when the last of several answers is there."""
        talk = Playbook(self)
        talk(
            required({"a": ROOTS, "b": SAMPLE}),
            Ask(Request("ask-1", "roots/list")),
            Ask(Request("ask-2", "sampling/createMessage", {"maxTokens": 5})),
        )
        talk(Replied(Response("ask-2", {"model": "m"})))
        talk(Replied(Response("ask-2", {"model": "again"})))
        talk(Replied(Response("other", {})))
        talk(
            Replied(Response("ask-1", {"roots": []})),
            talk.sent(2, inputResponses={"b": {"model": "m"}, "a": {"roots": []}}),
        )

    def test_rounds(self) -> None:
        """Each round has new ids, its own answers and the newest state alone."""
        talk = Playbook(self)
        talk(required({"a": ROOTS}, "one"), Ask(Request("ask-1", "roots/list")))
        talk(
            Replied(Response("ask-1", {"roots": []})),
            talk.sent(2, inputResponses={"a": {"roots": []}}, requestState="one"),
        )
        talk(required({"b": ROOTS}), Ask(Request("ask-2", "roots/list")))
        talk(
            Replied(Response("ask-2", {"roots": [1]})),
            talk.sent(3, inputResponses={"b": {"roots": [1]}}),
        )

    def test_state_alone(self) -> None:
        """A server that gives nothing but a state is asked again at once."""
        talk = Playbook(self)
        talk(required(None, "later"), talk.sent(2, requestState="later"))
        talk(required({}, {"n": 1}), talk.sent(3, requestState={"n": 1}))

    def test_too_many_rounds(self) -> None:
        """A server that is never content is left."""
        talk = Playbook(self)
        for number in range(MAX_ROUNDS):
            talk(required(None, number), talk.sent(number + 2, requestState=number))
        talk.fails(required(None, "more"), "more than 10 times")

    def test_too_many_questions(self) -> None:
        """A server can not flood its client."""
        many: dict[str, object] = {str(number): ROOTS for number in range(MAX_QUESTIONS + 1)}
        Playbook(self).fails(required(many), "too much at once")

    def test_older_form(self) -> None:
        """Clients of before modes are not shown one."""
        talk = Playbook(self, revision="2025-06-18", capabilities={"elicitation": {}})
        talk(
            required({"who": FORM}),
            Ask(
                Request(
                    "ask-1",
                    "elicitation/create",
                    {"message": "Name?", "requestedSchema": {"type": "object"}},
                )
            ),
        )

    def test_address(self) -> None:
        """A client that opens addresses gets one with an id; others get it in words."""
        question: dict[str, object] = {
            "method": "elicitation/create",
            "params": {"mode": "url", "message": "Sign in", "url": "https://x.example/a"},
        }
        talk = Playbook(self)
        asked: dict[str, object] = {
            "mode": "url",
            "message": "Sign in",
            "url": "https://x.example/a",
            "elicitationId": "ask-1",
        }
        talk(required({"in": question}), Ask(Request("ask-1", "elicitation/create", asked)))
        older = Playbook(self, capabilities={"elicitation": {}})
        older.fails(required({"in": question}), "https://x.example/a")

    def test_not_declared(self) -> None:
        """What the client did not declare is not asked, though the server wants it."""
        for question, text in ((FORM, "elicitation"), (SAMPLE, "sampling"), (ROOTS, "roots")):
            Playbook(self, capabilities={}).fails(required({"a": question}), text)
        only_urls = Playbook(self, capabilities={"elicitation": {"url": {}}})
        only_urls.fails(required({"a": FORM}), "elicitation")
        other = Playbook(self, capabilities={}, method="prompts/get")
        (finish,) = other.driver.receive(required({"a": ROOTS}))
        assert isinstance(finish, Finish)
        assert isinstance(finish.response, ErrorResponse)
        self.assertEqual(finish.response.code, -32603)

    def test_nonsense(self) -> None:
        """What can not be understood fails the call and reaches no client."""
        Playbook(self).fails(required({"a": {"method": "tools/call"}}), "does not have")
        Playbook(self).fails(required({"a": 3}), "can not be read")
        for answer in (
            required(),
            required({}),
            Answered(Response(1, {"resultType": "input_required", "inputRequests": []})),
            Answered(Response(1, {"resultType": "task", "taskId": "t"})),
        ):
            (command,) = Playbook(self).driver.receive(answer)
            assert isinstance(command, Fail)
            self.assertIsInstance(command.error, BadBackendAnswer)
        (command,) = Playbook(self, method="tools/list").driver.receive(required({"a": ROOTS}))
        assert isinstance(command, Fail)

    def test_client_refuses(self) -> None:
        """A client that answers with an error has ended the call; other questions are recalled."""
        talk = Playbook(self)
        talk.driver.receive(required({"a": ROOTS, "b": ROOTS}))
        commands = talk.driver.receive(Replied(ErrorResponse("ask-1", -1, "User said no")))
        self.assertEqual(commands[0], Recall("ask-2", "The request is over."))
        finish = commands[1]
        assert isinstance(finish, Finish)
        self.assertIn("User said no", str(finish.response))

    def test_client_silent(self) -> None:
        """A client that does not answer in time has ended the call, too."""
        talk = Playbook(self)
        talk.driver.receive(required({"a": ROOTS}))
        talk(Expired("other"))
        commands = talk.driver.receive(Expired("ask-1"))
        self.assertEqual(commands[0], Recall("ask-1", "The request is over."))
        self.assertIn("in time", str(commands[1]))

    def test_cancelled(self) -> None:
        """Whoever works for the client is told that it wants no answer any more."""
        talk = Playbook(self)
        back, fail = talk.driver.receive(Cancelled())
        self.assertEqual(back, TakeBack())
        assert isinstance(fail, Fail)
        self.assertIsInstance(fail.error, CallCancelled)
        talk = Playbook(self)
        talk.driver.receive(required({"a": ROOTS}))
        recall, fail = talk.driver.receive(Cancelled())
        self.assertEqual(recall, Recall("ask-1", "The request is over."))
        assert isinstance(fail, Fail)
        talk(Replied(Response("ask-1", {})))

    def test_lost(self) -> None:
        """A server that died fails the call with how it ended."""
        talk = Playbook(self)
        error = BackendDied()
        talk(Lost(error), Fail(error))
        talk(Cancelled())

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_any_order(self, data: Any) -> None:
        """
        Whatever happens in whatever order: one last word, nothing after it, and no question that
        is neither answered nor recalled.
        """
        talk = Playbook(self)
        names = [f"ask-{number}" for number in range(1, 7)]
        events = st.one_of(
            st.sampled_from(
                [
                    answered(content=[]),
                    required({"a": ROOTS}),
                    required({"a": FORM, "b": SAMPLE}, "s"),
                    required(None, "s"),
                    Answered(ErrorResponse(1, -32602, "no")),
                    Cancelled(),
                    Lost(BackendDied()),
                ]
            ),
            st.sampled_from(names).map(lambda name: Replied(Response(name, {}))),
            st.sampled_from(names).map(lambda name: Replied(ErrorResponse(name, 1, "no"))),
            st.sampled_from(names).map(Expired),
        )
        open_asks: set[str] = set()
        last_words = 0
        in_work = True
        for _ in range(data.draw(st.integers(1, 30))):
            event = data.draw(events)
            if isinstance(event, Answered | Lost) and not in_work:
                continue  # Nothing was sent: nobody answers.
            if isinstance(event, Answered | Lost):
                in_work = False
            commands = talk.driver.receive(event)
            if isinstance(event, Replied) and event.response.id in open_asks:
                open_asks.discard(str(event.response.id))
            for command in commands:
                self.assertEqual(last_words, 0, command)
                match command:
                    case Ask():
                        self.assertNotIn(command.ask_id, open_asks)
                        open_asks.add(command.ask_id)
                    case Recall(ask_id, _):
                        self.assertIn(ask_id, open_asks)
                        open_asks.discard(ask_id)
                    case Send():
                        self.assertFalse(in_work)
                        self.assertFalse(open_asks)
                        in_work = True
                    case TakeBack():
                        self.assertTrue(in_work)
                        in_work = False
                    case _:
                        last_words += 1
        self.assertEqual(last_words, 1 if talk.driver.state is State.OVER else 0)
        if talk.driver.state is State.OVER:
            self.assertFalse(open_asks)
        elif talk.driver.state is State.ASKING:
            self.assertTrue(open_asks)
        else:
            self.assertTrue(in_work)
