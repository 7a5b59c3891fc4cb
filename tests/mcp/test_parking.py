"""The conversation of one modern call with a legacy server: tests of mcpgate.mcp.parking."""

from __future__ import annotations

from typing import Self

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, MissingCapability
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.parking import (
    MAX_INPUTS,
    Answered,
    Ask,
    Asked,
    Cancel,
    Client,
    Collect,
    Collected,
    Command,
    Complete,
    Conversation,
    Event,
    Expired,
    Failed,
    Gone,
    Pass,
    Place,
    Refuse,
    Reply,
    Retried,
    Told,
    Withdrawn,
)
from mcpgate.mcp.to_modern import ALL_POWERS, Powers

FORM = Asked(Request(0, "elicitation/create", {"message": "Name?", "requestedSchema": {}}))
SAMPLE = Asked(Request("s", "sampling/createMessage", {"messages": [], "maxTokens": 1}))
ROOTS = Asked(Request(7, "roots/list"))
FORM_INPUT: dict[str, object] = {
    "method": "elicitation/create",
    "params": {"message": "Name?", "requestedSchema": {}},
}
SAMPLE_INPUT: dict[str, object] = {
    "method": "sampling/createMessage",
    "params": {"messages": [], "maxTokens": 1},
}
ROOTS_INPUT: dict[str, object] = {"method": "roots/list"}
DONE = Answered(Response(99, {"content": []}))
CLIENT = Client(id=1, powers=ALL_POWERS, token="p", log_level="info")
BACK = Client(id=2, powers=ALL_POWERS)
GIVEN: dict[str, object] = {"action": "accept", "content": {"name": "x"}}
PROGRESS = Told(Notification("notifications/progress", {"progressToken": 5, "progress": 1}))
PASSED = Pass(Notification("notifications/progress", {"progressToken": "p", "progress": 1}))


def line(level: str) -> Told:
    """Make a log line."""
    return Told(Notification("notifications/message", {"level": level, "data": "x"}))


def complete(id: int = 1) -> Complete:
    """Make the end of a call that went well."""
    return Complete(Response(id, {"content": [], "resultType": "complete"}))


def refused(request: Asked, code: int = -32601) -> tuple[int | str, int]:
    """Tell whose request is refused, and how."""
    return request.request.id, code


class Playbook:
    """A conversation: ``>>`` is what happens, ``<<`` what is to be done about it."""

    def __init__(self, case: SynchronousTestCase, method: str = "tools/call") -> None:
        self.case = case
        self.it = Conversation(method=method, client=CLIENT)
        self._due: list[Command] = []

    def __rshift__(self, event: Event) -> Self:
        """Let something happen; what had to be done before must have been said."""
        self.case.assertEqual(self._due, [], "not expected")
        self._due = self.it.take(event)
        return self

    def __lshift__(self, command: Command | tuple[int | str, int]) -> Self:
        """Expect something to be done; a refusal to the server by its id and code."""
        self.case.assertNotEqual(self._due, [], f"nothing is done, not {command}")
        found: Command | tuple[int | str, int] = self._due.pop(0)
        if isinstance(command, tuple):
            assert isinstance(found, Reply)
            assert isinstance(found.response, ErrorResponse)
            assert found.response.id is not None
            found = found.response.id, found.response.code
        self.case.assertEqual(found, command)
        return self

    def lacks(self, required: dict[str, object]) -> None:
        """Expect the client to be told what it did not declare."""
        refusal = self._due.pop(0)
        assert isinstance(refusal, Refuse)
        assert isinstance(refusal.error, MissingCapability)
        self.case.assertEqual(refusal.error.data, {"requiredCapabilities": required})
        self.done(Place.OVER)

    def done(self, place: Place) -> None:
        """Expect nothing more, and the conversation to be at a place."""
        self.case.assertEqual(self._due, [])
        self.case.assertIs(self.it.place, place)


class CallTests(SynchronousTestCase):
    """Calls in which nothing is asked."""

    def test_answer(self) -> None:
        """Progress and lines that are severe enough are passed on, then the answer."""
        book = Playbook(self)
        book >> PROGRESS << PASSED
        (
            book
            >> line("debug")
            >> line("nonsense")
            >> line("error")
            << Pass(line("error").notification)
        )
        book >> DONE << complete()
        book >> PROGRESS >> DONE >> Gone() >> Expired()
        book.done(Place.OVER)

    def test_unwanted(self) -> None:
        """A client without a token hears no progress, one without a level no lines."""
        book = Playbook(self)
        book.it.client = BACK
        book >> PROGRESS >> line("emergency")
        book >> Told(Notification("notifications/other"))
        book.done(Place.WORKING)

    def test_failures(self) -> None:
        """An error of the server, and one of the gate."""
        book = Playbook(self, "resources/read")
        (
            book
            >> Answered(ErrorResponse(99, -32002, "gone"))
            << Complete(ErrorResponse(1, -32602, "gone"))
        )
        book.done(Place.OVER)
        error = BackendDied()
        book = Playbook(self)
        book >> Failed(error) << Refuse(error)
        book.done(Place.OVER)

    def test_gone(self) -> None:
        """A client that goes has cancelled; the server's requests are answered."""
        book = Playbook(self)
        book >> FORM << Collect()
        book >> ROOTS
        book >> Gone() << Cancel("The client has gone.")
        book << Reply(Response(0, {"action": "cancel"})) << refused(ROOTS, -32603)
        book.done(Place.OVER)
        book >> FORM << refused(FORM)


class AskTests(SynchronousTestCase):
    """Calls in which the server asks its client."""

    def test_round(self) -> None:
        """What is asked within a moment goes to the client together, and back one by one."""
        book = Playbook(self)
        book >> FORM << Collect()
        book >> SAMPLE >> ROOTS
        (
            book
            >> Collected()
            << Ask(
                {"elicitation-1": FORM_INPUT, "sampling-2": SAMPLE_INPUT, "roots-3": ROOTS_INPUT}
            )
        )
        book.done(Place.PARKED)
        book >> PROGRESS >> Gone()
        answers: dict[str, dict[str, object]] = {
            "roots-3": {"roots": [], "resultType": "complete"},
            "elicitation-1": GIVEN,
            "unknown": {},
            "sampling-2": {"role": "assistant"},
        }
        book >> Retried(BACK, answers) << Reply(Response(7, {"roots": []}))
        book << Reply(Response(0, GIVEN)) << Reply(Response("s", {"role": "assistant"}))
        book.done(Place.WORKING)
        book >> DONE << complete(2)
        book.done(Place.OVER)

    def test_missing(self) -> None:
        """What a client does not answer it is asked again; answers given count."""
        book = Playbook(self)
        book >> FORM << Collect()
        book >> ROOTS
        book >> Collected() << Ask({"elicitation-1": FORM_INPUT, "roots-2": ROOTS_INPUT})
        book >> Retried(BACK, {"elicitation-1": GIVEN}) << Reply(Response(0, GIVEN)) << Collect()
        book >> Collected() << Ask({"roots-2": ROOTS_INPUT})
        book >> Retried(BACK, {"elicitation-1": GIVEN}) << Collect()
        book >> DONE << complete(2)
        book >> Collected()
        book.done(Place.OVER)

    def test_meanwhile(self) -> None:
        """What the server says while the client is away waits for it."""
        book = Playbook(self)
        book >> FORM << Collect()
        book >> Collected() << Ask({"elicitation-1": FORM_INPUT})
        book >> ROOTS
        book >> Retried(BACK, {"elicitation-1": GIVEN}) << Reply(Response(0, GIVEN)) << Collect()
        book >> Collected() << Ask({"roots-2": ROOTS_INPUT})
        book >> DONE
        book.done(Place.PARKED)
        book >> Retried(BACK, {}) << complete(2)
        book.done(Place.OVER)

    def test_expired(self) -> None:
        """A client that never comes back: the server is told; unless it had answered."""
        book = Playbook(self)
        book >> FORM << Collect()
        book >> Expired()  # Somebody waits: nothing expires.
        book >> Collected() << Ask({"elicitation-1": FORM_INPUT})
        book >> Expired("late") << Cancel("late") << Reply(Response(0, {"action": "cancel"}))
        book.done(Place.OVER)
        book = Playbook(self)
        book >> FORM << Collect()
        book >> Collected() << Ask({"elicitation-1": FORM_INPUT})
        book >> Failed(BackendDied()) >> Expired()
        book.done(Place.OVER)

    def test_withdrawn(self) -> None:
        """A request the server takes back is not asked; ids of another type are others."""
        book = Playbook(self)
        book >> FORM << Collect()
        self.assertTrue(book.it.waits_for(0))
        self.assertFalse(book.it.waits_for("0"))
        book >> Withdrawn("0") >> Withdrawn(0) >> Collected()
        book.done(Place.WORKING)
        book >> FORM << Collect()
        book >> Collected() << Ask({"elicitation-2": FORM_INPUT})
        book >> Withdrawn(0) >> Retried(BACK, {"elicitation-2": GIVEN})
        book.done(Place.WORKING)

    def test_out_of_place(self) -> None:
        """Words that come late, or out of turn, do nothing."""
        book = Playbook(self)
        book >> Collected() >> Retried(BACK, {})
        book.done(Place.WORKING)
        self.assertIs(book.it.client, CLIENT)

    def test_bound(self) -> None:
        """A server that asks without end is refused."""
        book = Playbook(self)
        book >> FORM << Collect()
        for _ in range(MAX_INPUTS - 1):
            book >> SAMPLE
        book >> ROOTS << refused(ROOTS, -32603)
        book.done(Place.COLLECTING)

    def test_not_here(self) -> None:
        """Some calls can not be answered with a question, and some requests are none of MCP's."""
        book = Playbook(self, "tools/list")
        book >> FORM << refused(FORM)
        book.done(Place.WORKING)
        book = Playbook(self)
        book >> Asked(Request(3, "vendor/ask")) << (3, -32601)
        book.done(Place.WORKING)


class CapabilityTests(SynchronousTestCase):
    """Servers that ask what the client did not declare."""

    def book(self, powers: Powers) -> Playbook:
        """Begin a call of a client with these powers."""
        book = Playbook(self)
        book.it.client = Client(id=1, powers=powers)
        return book

    def test_needed(self) -> None:
        """The server is refused; when the call fails of it the client is told what it lacks."""
        book = self.book(Powers())
        url = Asked(Request(4, "elicitation/create", {"mode": "url"}))
        book >> FORM << Collect()
        book >> ROOTS >> url
        book >> Collected() << refused(FORM) << refused(ROOTS) << refused(url)
        book.done(Place.WORKING)
        (book >> Answered(Response(99, {"content": [], "isError": True}))).lacks(
            {"elicitation": {"form": {}, "url": {}}, "roots": {}}
        )
        book = self.book(Powers(sampling=True))
        tools = Asked(Request(4, "sampling/createMessage", {"tools": [{}]}))
        book >> tools << Collect()
        book >> Collected() << refused(tools)
        (book >> Answered(ErrorResponse(99, -1, "can not"))).lacks({"sampling": {"tools": {}}})

    def test_not_needed(self) -> None:
        """A server that goes on without is answered for; one may take its question back."""
        book = self.book(Powers())
        book >> FORM << Collect()
        self.assertTrue(book.it.waits_for(0))
        book >> ROOTS >> Withdrawn(7)
        book >> Collected() << refused(FORM)
        book >> DONE << complete()
        book.done(Place.OVER)

    def test_some(self) -> None:
        """What can be asked is asked before the rest is refused."""
        book = self.book(Powers(sampling=True))
        book >> FORM << Collect()
        book >> SAMPLE >> Collected() << Ask({"sampling-1": SAMPLE_INPUT})
        powers = Powers(sampling=True)
        back = Client(id=2, powers=powers)
        book >> Retried(back, {"sampling-1": {"role": "assistant"}})
        book << Reply(Response("s", {"role": "assistant"})) << refused(FORM)
        book >> Answered(Response(99, {"isError": True}))
        book.lacks({"elicitation": {"form": {}}})
        book = self.book(Powers())
        book >> ROOTS << Collect()
        book >> Gone() << Cancel("The client has gone.") << refused(ROOTS, -32603)
        book.done(Place.OVER)

    def test_urls(self) -> None:
        """Pages to visit first become questions; the call is sent again afterwards."""
        data = {"elicitations": [{"url": "https://x", "elicitationId": "e", "message": "Go"}, 3]}
        wanted = Answered(ErrorResponse(99, -32042, "visit", data))
        book = self.book(ALL_POWERS)
        page: dict[str, object] = {
            "method": "elicitation/create",
            "params": {"mode": "url", "url": "https://x", "message": "Go"},
        }
        book >> wanted << Ask({"url-1": page}, again=True)
        book.done(Place.OVER)
        (self.book(Powers(form=True)) >> wanted).lacks({"elicitation": {"url": {}}})
        book = self.book(ALL_POWERS)
        bare = ErrorResponse(99, -32042, "visit")
        book >> Answered(bare) << Complete(ErrorResponse(1, -32603, "visit"))
        book.done(Place.OVER)
        book = Playbook(self, "tools/list")
        book >> wanted << Complete(ErrorResponse(1, -32603, "visit", data))
        book.done(Place.OVER)


EVENTS = st.one_of(
    st.builds(lambda number: Asked(Request(number, "roots/list")), st.integers(0, 5)),
    st.builds(Withdrawn, st.integers(0, 5)),
    st.sampled_from(
        [PROGRESS, DONE, Failed(BackendDied()), Collected(), Gone(), Expired(), line("error")]
    ),
    st.builds(
        lambda keys: Retried(BACK, {f"roots-{key}": {"roots": []} for key in keys}),
        st.sets(st.integers(0, 6)),
    ),
)


class InterleavingTests(SynchronousTestCase):
    """Whatever happens in whatever order."""

    @given(st.lists(EVENTS, max_size=30))
    def test_order(self, events: list[Event]) -> None:
        """Each exchange ends once, each request is answered once, and nothing comes after."""
        it = Conversation(method="tools/call", client=CLIENT)
        waits = True
        open_: dict[object, int] = {}
        for event in events:
            before = it.place
            if isinstance(event, Asked):
                open_[event.request.id] = open_.get(event.request.id, 0) + 1
            elif isinstance(event, Withdrawn) and before is not Place.OVER:
                open_.pop(event.request_id, None)
            elif isinstance(event, Retried) and before is Place.PARKED:
                waits = True
            for command in it.take(event):
                if isinstance(command, Reply):
                    id = command.response.id
                    open_[id] -= 1
                    self.assertGreaterEqual(open_[id], 0)
                elif isinstance(command, Ask | Complete | Refuse):
                    self.assertTrue(waits)
                    waits = False
                elif isinstance(command, Pass):
                    self.assertTrue(waits)
                elif isinstance(command, Cancel):
                    self.assertIs(it.place, Place.OVER)
                    waits = False
            if before is Place.OVER:
                self.assertIs(it.place, Place.OVER)
            self.assertEqual(waits and not it.over, it.attached)
