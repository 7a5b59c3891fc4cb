"""A legacy client for the matrix of eras, on the Python SDK 1.30; see ``matrix.py``."""

import asyncio
import contextlib
import shlex
from typing import Any

from matrix import KINDS, TASK, WATCHED, Matrix, check, check_holds, until
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from pydantic import AnyUrl

# The SDK offers this one; every revision it knows works.
types.LATEST_PROTOCOL_VERSION = TASK["revision"]


def transport() -> Any:
    """Open what the task names."""
    if "command" in TASK:
        program, *words = shlex.split(TASK["command"])
        return stdio_client(StdioServerParameters(command=program, args=words))
    connect = sse_client if TASK["revision"] == "2024-11-05" else streamablehttp_client
    return connect(TASK["url"])


class Driver:
    """One session, and what came in it unasked."""

    def __init__(self) -> None:
        self.matrix = Matrix()
        self.logged: list[Any] = []
        self.noticed: list[Any] = []
        self.asked: list[str] = []
        self.session: Any = None

    # --- What the server may ask ----------------------------------------------------------------

    async def elicited(self, context: Any, params: Any) -> Any:
        """Answer for the user."""
        self.asked.append("elicitation")
        content = {"username": "ann", "email": "ann@example.org"}
        return types.ElicitResult(action="accept", content=content)

    async def sampled(self, context: Any, params: Any) -> Any:
        """Answer for the model."""
        self.asked.append("sampling")
        content = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def rooted(self, context: Any) -> Any:
        """Give the roots."""
        self.asked.append("roots")
        root = types.Root(uri=AnyUrl("file:///matrix"), name="matrix")  # type: ignore[arg-type,unused-ignore]
        return types.ListRootsResult(roots=[root])

    async def log(self, params: Any) -> None:
        """Keep a line of the log."""
        self.logged.append(params.data)

    async def notice(self, message: Any) -> None:
        """Keep a notification."""
        if isinstance(message, types.ServerNotification):
            self.noticed.append(message.root.method)

    # --- Features -------------------------------------------------------------------------------

    async def text(self, name: str, **arguments: Any) -> str:
        """Call a tool and give its text."""
        result = await self.session.call_tool(name, arguments)
        check(result.isError, False)
        return str(result.content[0].text)

    async def tools(self) -> None:
        """List and call."""
        names = [tool.name for tool in (await self.session.list_tools()).tools]
        check_holds(names, "test_simple_text")
        check_holds(await self.text("test_simple_text"), "simple text")

    async def progress(self) -> None:
        """See a call's progress."""
        seen: list[float] = []

        async def report(done: float, total: float | None, message: str | None) -> None:
            seen.append(done)

        await self.session.call_tool("test_tool_with_progress", {}, progress_callback=report)
        await until(lambda: len(seen) >= 3)
        check(seen, [0, 50, 100])

    async def logging(self) -> None:
        """See what a call logs."""
        await self.session.set_logging_level("info")
        await self.text("test_tool_with_logging")
        await until(lambda: len(self.logged) >= 3)
        check(self.logged[0], "Tool execution started")

    async def cancellation(self) -> None:
        """Take a call back."""
        mark = f"{TASK['revision']}-{id(self)}"
        number = self.session._request_id
        call = asyncio.create_task(self.session.call_tool("test_slow", {"mark": mark}))
        # Let it take its number before another call does.
        await asyncio.sleep(0)
        try:
            await until(lambda: self.is_slow(mark, "running"))
            params = types.CancelledNotificationParams(requestId=number, reason="enough")
            notice = types.CancelledNotification(method="notifications/cancelled", params=params)
            await self.session.send_notification(types.ClientNotification(notice))
            await until(lambda: self.is_slow(mark, "cancelled"))
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    async def is_slow(self, mark: str, how: str) -> bool:
        """Ask how the slow call is."""
        return await self.text("test_slow_state", mark=mark) == how

    async def elicitation(self) -> None:
        """Be asked as the user."""
        check_holds(await self.text("test_elicitation", message="Who?"), "ann@example.org")
        check_holds(self.asked, "elicitation")

    async def sampling(self) -> None:
        """Be asked as the model."""
        check_holds(await self.text("test_sampling", prompt="Where?"), "Paris")

    async def roots(self) -> None:
        """Be asked for roots."""
        said = await self.text("test_input_required_result_list_roots")
        check_holds(said, "file:///matrix")

    async def prompts(self) -> None:
        """List and get."""
        names = [prompt.name for prompt in (await self.session.list_prompts()).prompts]
        check_holds(names, "test_simple_prompt")
        arguments = {"arg1": "one", "arg2": "two"}
        got = await self.session.get_prompt("test_prompt_with_arguments", arguments)
        check_holds(got.messages[0].content.text, "arg2='two'")

    async def resources(self) -> None:
        """List and read."""
        listed = (await self.session.list_resources()).resources
        check_holds([str(resource.uri) for resource in listed], WATCHED)
        templates = (await self.session.list_resource_templates()).resourceTemplates
        check(templates[0].uriTemplate, "test://template/{id}/data")
        read = await self.session.read_resource(AnyUrl("test://template/7/data"))
        check_holds(read.contents[0].text, "Data for ID: 7")

    async def subscription(self) -> None:
        """Hear that a resource has changed."""
        await self.session.subscribe_resource(AnyUrl(WATCHED))
        await self.text("test_touch")
        await until(lambda: "notifications/resources/updated" in self.noticed)
        await self.session.unsubscribe_resource(AnyUrl(WATCHED))

    async def changes(self) -> None:
        """Hear that lists have changed, and see that they did."""
        for kind in KINDS:
            before = await self.names(kind)
            await self.text(f"test_trigger_{kind.removesuffix('s')}_change")
            wanted = f"notifications/{kind}/list_changed"
            await until(lambda wanted=wanted: wanted in self.noticed)
            check(set(await self.names(kind)) ^ set(before), {"test_grown"})

    async def names(self, kind: str) -> list[str]:
        """List names."""
        listed = await getattr(self.session, f"list_{kind}")()
        return [entry.name for entry in getattr(listed, kind)]

    async def completion(self) -> None:
        """Complete an argument."""
        ref = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        argument = {"name": "arg1", "value": "par"}
        found = await self.session.complete(ref, argument)
        check(found.completion.values, ["paris", "park", "party"])

    # --- All ------------------------------------------------------------------------------------

    async def connected(self) -> None:
        """Try everything in one session."""
        async with contextlib.AsyncExitStack() as stack:
            streams = await stack.enter_async_context(transport())
            self.session = await stack.enter_async_context(
                ClientSession(
                    *streams[:2],
                    sampling_callback=self.sampled,
                    elicitation_callback=self.elicited,
                    list_roots_callback=self.rooted,
                    logging_callback=self.log,
                    message_handler=self.notice,
                )
            )
            greeted = await asyncio.wait_for(self.session.initialize(), 10)
            check(greeted.protocolVersion, TASK["revision"])
            # The stream for what comes unasked is opened in the background.
            await asyncio.sleep(0.5)
            for feature in TASK["features"]:
                await self.matrix.attempt(feature, getattr(self, feature.replace(" ", "_")))
            self.matrix.tell()

    async def run(self) -> None:
        """Tell what came of it, also of no connection."""
        try:
            await asyncio.wait_for(self.connected(), TASK["seconds"])
        except BaseException as error:  # also what task groups wrap
            if len(self.matrix.outcomes) < len(TASK["features"]):
                self.matrix.give_up(error)
                self.matrix.tell()


asyncio.run(Driver().run())
