"""
What the yardstick servers on both Python SDKs share: the table in ``yardstick.json``, run.

The table names everything that the conformance suite and the matrix of eras call.  A tool or
prompt does its ``steps`` and then puts its ``asks``, rounds of questions to the client: a legacy
server sends them as requests of its own, a modern one returns them as input that it requires.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "yardstick.json").read_text())

# What a client must have declared to be asked, and what its answer always holds.
CAPABILITIES = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
ANSWERS = {
    "elicitation/create": "action",
    "sampling/createMessage": "content",
    "roots/list": "roots",
}

KINDS = ("tools", "prompts", "resources")
SECRET = b"nobody is fooled by this, it is a test"


class ToolError(Exception):
    """A tool fails as it should."""


class StateError(Exception):
    """A request state that no server of ours made."""


class CapabilityError(Exception):
    """The client did not declare what a tool needs."""

    def __init__(self, *names: str) -> None:
        super().__init__(" ".join(names))
        self.required: dict[str, dict[str, Any]] = {name: {} for name in names}


class Wire:
    """What a step may do to the client; each server has its own."""

    async def log(self, text: str) -> None:
        """Write a line of level info to the client's log."""
        raise NotImplementedError

    async def progress(self, done: float, total: float) -> None:
        """Tell the progress, if the client asked for it."""
        raise NotImplementedError

    async def changed(self, kind: str) -> None:
        """Say that a list has changed."""
        raise NotImplementedError

    async def updated(self, uri: str) -> None:
        """Say that a resource has changed."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the stream of this request, so that the client must come back for the answer."""
        raise NotImplementedError


class Yardstick:
    """The table, and what has become of it: lists that grow and shrink, slow calls."""

    def __init__(self) -> None:
        self._grown: dict[str, bool] = dict.fromkeys(KINDS, False)
        self._slow: dict[str, str] = {}

    # --- Lists ----------------------------------------------------------------------------------

    def tools(self) -> list[dict[str, Any]]:
        """List the tools, with one more after each second change."""
        names = ("name", "description", "inputSchema")
        listed = [{name: entry[name] for name in names} for entry in TABLE["tools"]]
        return listed + self._extra("tools", inputSchema={"type": "object", "properties": {}})

    def prompts(self) -> list[dict[str, Any]]:
        """List the prompts."""
        names = ("name", "description", "arguments")
        listed = [{name: entry.get(name, []) for name in names} for entry in TABLE["prompts"]]
        return listed + self._extra("prompts")

    def resources(self) -> list[dict[str, Any]]:
        """List the resources."""
        names = ("uri", "name", "description", "mimeType")
        listed = [{name: entry[name] for name in names} for entry in TABLE["resources"]]
        return listed + self._extra("resources", uri="test://grown")

    def templates(self) -> list[dict[str, Any]]:
        """List the templates."""
        names = ("uriTemplate", "name", "description", "mimeType")
        return [{name: entry[name] for name in names} for entry in TABLE["templates"]]

    def _extra(self, kind: str, **more: Any) -> list[dict[str, Any]]:
        if not self._grown[kind]:
            return []
        return [{"name": "test_grown", "description": "Grown meanwhile", **more}]

    def found(self, kind: str, name: str) -> dict[str, Any] | None:
        """Give the entry of a tool or a prompt."""
        entries = (entry for entry in TABLE[kind] if entry["name"] == name)
        return next(entries, None)

    # --- Answers --------------------------------------------------------------------------------

    def read(self, uri: str) -> dict[str, Any] | None:
        """Read a resource."""
        for entry in TABLE["resources"]:
            if entry["uri"] == uri:
                names = ("uri", "mimeType", "text", "blob")
                return {name: entry[name] for name in names if name in entry}
        for entry in TABLE["templates"]:
            before, after = entry["uriTemplate"].split("{id}")
            if uri.startswith(before) and uri.endswith(after):
                number = uri.removeprefix(before).removesuffix(after)
                text = entry["text"].replace("{id}", number)
                return {"uri": uri, "mimeType": entry["mimeType"], "text": text}
        return None

    def complete(self, begun: str) -> dict[str, Any]:
        """Complete an argument."""
        values = [value for value in TABLE["completions"] if value.startswith(begun)]
        return {"values": values, "total": len(values), "hasMore": False}

    def messages(self, entry: Mapping[str, Any], arguments: Mapping[str, str]) -> Any:
        """Give the messages of a prompt."""
        text = json.dumps(entry["messages"])
        for name, value in arguments.items():
            text = text.replace("{" + name + "}", json.dumps(value)[1:-1])
        return json.loads(text)

    def content(self, entry: Mapping[str, Any], said: str) -> Any:
        """Give the content of a tool's result."""
        return entry.get("content", [{"type": "text", "text": said}])

    # --- Steps ----------------------------------------------------------------------------------

    async def run(self, entry: Mapping[str, Any], arguments: Mapping[str, Any], wire: Wire) -> str:
        """
        Do the steps of a tool.

        :returns: what it says.
        :raises ToolError: it is meant to.
        """
        said = str(entry.get("say", ""))
        for name, *values in entry.get("steps", ()):
            match name:
                case "log":
                    await wire.log(values[0])
                case "progress":
                    await wire.progress(*values)
                case "wait":
                    await asyncio.sleep(values[0])
                case "change":
                    self._grown[values[0]] = not self._grown[values[0]]
                    await wire.changed(values[0])
                case "update":
                    await wire.updated(values[0])
                case "close":
                    await wire.close()
                case "fail":
                    raise ToolError(values[0])
                case "hang":
                    await self._hang(arguments["mark"], values[0])
                case "state":
                    said = self._slow.get(arguments["mark"], "none")
        return said

    async def _hang(self, mark: str, seconds: float) -> None:
        self._slow[mark] = "running"
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._slow[mark] = "cancelled"
            raise
        self._slow[mark] = "finished"

    # --- Questions ------------------------------------------------------------------------------

    def rounds(
        self,
        entry: Mapping[str, Any],
        arguments: Mapping[str, Any],
        declared: Mapping[str, Any],
    ) -> Sequence[dict[str, Any]]:
        """
        Give the rounds of questions, filled with the arguments of the call.

        Entries that say so ask only for what the client has ``declared``; the others ask in any
        case.
        """
        rounds = [filled(asked, arguments) for asked in entry.get("asks", ())]
        if not entry.get("declared"):
            return rounds
        return [
            {
                key: question
                for key, question in asked.items()
                if CAPABILITIES[question["method"]] in declared
            }
            for asked in rounds
        ]

    def required(
        self,
        entry: Mapping[str, Any],
        arguments: Mapping[str, Any],
        *,
        answers: Mapping[str, Any],
        state: str | None,
        declared: Mapping[str, Any],
    ) -> dict[str, Any] | None:
        """
        Give the input that a modern call still requires, or None.

        :param answers: of this retry, as they stand on the wire.
        :param declared: the client's capabilities.
        :raises StateError: the state is not ours.
        :raises CapabilityError: the client can not be asked.
        """
        rounds = self.rounds(entry, arguments, declared)
        at = 0 if state is None else read_state(entry["name"], state)
        if at < len(rounds) and answered(rounds[at], answers):
            at += 1
        if at >= len(rounds):
            return None
        requests = rounds[at]
        needed = {CAPABILITIES[question["method"]] for question in requests.values()}
        if needed - set(declared):
            raise CapabilityError(*sorted(needed - set(declared)))
        result = {"resultType": "input_required", "inputRequests": requests}
        if entry.get("state"):
            result["requestState"] = make_state(entry["name"], at)
        return result


def told(said: str, answers: Mapping[str, Any]) -> str:
    """Say what a tool says, and what it was answered."""
    return f"{said} {json.dumps(answers, sort_keys=True)}" if answers else said


def filled(value: Any, arguments: Mapping[str, Any]) -> Any:
    """Put arguments in the place of ``$name``."""
    match value:
        case str() if value.startswith("$") and value[1:] in arguments:
            return arguments[value[1:]]
        case dict():
            return {name: filled(inner, arguments) for name, inner in value.items()}
        case list():
            return [filled(inner, arguments) for inner in value]
    return value


def answered(asked: Mapping[str, Any], answers: Mapping[str, Any]) -> bool:
    """Tell whether every question has an answer of its kind."""
    return all(
        isinstance(answers.get(key), dict) and ANSWERS[question["method"]] in answers[key]
        for key, question in asked.items()
    )


def make_state(name: str, at: int) -> str:
    """Seal the number of a round."""
    text = f"{name}:{at}"
    return f"{text}:{hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()}"


def read_state(name: str, state: str) -> int:
    """Unseal it; :raises StateError: somebody changed it."""
    of, _, rest = state.partition(":")
    at, _, _ = rest.partition(":")
    if (
        of != name
        or not at.isdecimal()
        or not hmac.compare_digest(state, make_state(name, int(at)))
    ):
        raise StateError
    return int(at)


class Events:
    """What was sent on each stream, so that it can be sent again; what both SDKs call a store."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._sent: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep a message, or the mark of a stream's beginning."""
        self._sent.append((stream_id, message))
        return str(len(self._sent))

    async def replay_events_after(self, last_event_id: str, send: Any) -> str | None:
        """Send what came after an event on its stream."""
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self._sent):
            return None
        stream = self._sent[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self._sent, 1):
            if of == stream and number > int(last_event_id) and message is not None:
                await send(self._make(message, str(number)))
        return stream
