"""What a result asks of a client, and whether it can be asked."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.input_requests import asks, can_all, missing


def result(*requests: object) -> dict[str, object]:
    """Make a result that asks."""
    named = {f"k{number}": request for number, request in enumerate(requests)}
    return {"resultType": "input_required", "inputRequests": named}


FORM = {"method": "elicitation/create", "params": {"mode": "form"}}
PLAIN = {"method": "elicitation/create", "params": {}}
URL = {"method": "elicitation/create", "params": {"mode": "url"}}
SAMPLE = {"method": "sampling/createMessage", "params": {}}
TOOLS = {"method": "sampling/createMessage", "params": {"tools": []}}
ROOTS = {"method": "roots/list"}


class InputRequestTests(SynchronousTestCase):
    """Capabilities held against questions."""

    def test_what_is_missing(self) -> None:
        """It is told in the form of clientCapabilities."""
        for requests, capabilities, lacking in (
            ((FORM,), {}, {"elicitation": {"form": {}}}),
            ((PLAIN,), {"elicitation": {}}, {}),
            ((FORM,), {"elicitation": {"form": {}}}, {}),
            ((FORM,), {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
            ((URL,), {"elicitation": {}}, {"elicitation": {"url": {}}}),
            ((URL,), {"elicitation": {"url": {}}}, {}),
            ((SAMPLE,), {}, {"sampling": {}}),
            ((SAMPLE,), {"sampling": {}}, {}),
            ((TOOLS,), {"sampling": {}}, {"sampling": {"tools": {}}}),
            ((ROOTS,), {"roots": True}, {"roots": {}}),
            ((ROOTS, FORM), {}, {"roots": {}, "elicitation": {"form": {}}}),
            (({"method": "vendor/ask"}, 7), {}, {}),
        ):
            self.assertEqual(missing(result(*requests), capabilities), lacking)
        self.assertEqual(missing({"inputRequests": 7}, {}), {})

    def test_who_can_do_all(self) -> None:
        """Only such a client's results need not be looked at."""
        everything: dict[str, object] = {
            "elicitation": {"form": {}, "url": {}},
            "sampling": {"tools": {}},
            "roots": {},
        }
        self.assertTrue(can_all(everything))
        for name in everything:
            self.assertFalse(can_all({**everything, name: None}))

    def test_which_results_ask(self) -> None:
        """Their type says so."""
        self.assertTrue(asks(result()))
        self.assertFalse(asks({"resultType": "complete"}))
        self.assertFalse(asks({}))
