"""A modern client for the matrix of eras, on the Python SDK 2; see ``matrix.py``."""

import asyncio
import shlex
import warnings
from typing import Any

import mcp_types as types
from matrix import KINDS, TASK, WATCHED, Matrix, check, check_holds, until
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

LISTENS = {kind: {f"{kind}_list_changed": True} for kind in KINDS}


def target() -> Any:
    """Give what the task names."""
    if "command" in TASK:
        program, *words = shlex.split(TASK["command"])
        return stdio_client(StdioServerParameters(command=program, args=words))
    return TASK["url"]


class Driver:
    """One client, and what it was asked and told."""

    def __init__(self) -> None:
        self.matrix = Matrix()
        self.logged: list[Any] = []
        self.client: Any = None

    # --- What the server may ask ----------------------------------------------------------------

    async def elicited(self, context: Any, params: Any) -> Any:
        """Answer for the user."""
        content = {"username": "ann", "email": "ann@example.org"}
        return types.ElicitResult(action="accept", content=content)

    async def sampled(self, context: Any, params: Any) -> Any:
        """Answer for the model."""
        content = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def rooted(self, context: Any) -> Any:
        """Give the roots."""
        return types.ListRootsResult(roots=[types.Root(uri="file:///matrix", name="matrix")])

    async def log(self, params: Any) -> None:
        """Keep a line of the log."""
        self.logged.append(params.data)

    # --- Features -------------------------------------------------------------------------------

    async def text(self, name: str, **arguments: Any) -> str:
        """Call a tool and give its text."""
        result = await self.client.call_tool(name, arguments)
        check(result.is_error, False)
        return str(result.content[0].text)

    async def tools(self) -> None:
        """List and call."""
        check_holds(await self.names("tools"), "test_simple_text")
        check_holds(await self.text("test_simple_text"), "simple text")

    async def progress(self) -> None:
        """See a call's progress."""
        seen: list[float] = []

        async def report(done: float, total: float | None, message: str | None) -> None:
            seen.append(done)

        await self.client.call_tool("test_tool_with_progress", {}, progress_callback=report)
        await until(lambda: len(seen) >= 3)
        check(seen, [0, 50, 100])

    async def logging(self) -> None:
        """See what a call logs."""
        await self.text("test_tool_with_logging")
        await until(lambda: len(self.logged) >= 3)
        check(self.logged[0], "Tool execution started")

    async def cancellation(self) -> None:
        """Take a call back."""
        mark = f"{TASK['revision']}-{id(self)}"
        call = asyncio.create_task(self.client.call_tool("test_slow", {"mark": mark}))
        try:
            await until(lambda: self.is_slow(mark, "running"))
        finally:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await until(lambda: self.is_slow(mark, "cancelled"))

    async def is_slow(self, mark: str, how: str) -> bool:
        """Ask how the slow call is."""
        return await self.text("test_slow_state", mark=mark) == how

    async def elicitation(self) -> None:
        """Be asked as the user."""
        check_holds(await self.text("test_elicitation", message="Who?"), "ann@example.org")

    async def sampling(self) -> None:
        """Be asked as the model."""
        check_holds(await self.text("test_sampling", prompt="Where?"), "Paris")

    async def roots(self) -> None:
        """Be asked for roots."""
        said = await self.text("test_input_required_result_list_roots")
        check_holds(said, "file:///matrix")

    async def prompts(self) -> None:
        """List and get."""
        check_holds(await self.names("prompts"), "test_simple_prompt")
        arguments = {"arg1": "one", "arg2": "two"}
        got = await self.client.get_prompt("test_prompt_with_arguments", arguments)
        check_holds(got.messages[0].content.text, "arg2='two'")

    async def resources(self) -> None:
        """List and read."""
        listed = (await self.client.list_resources()).resources
        check_holds([str(resource.uri) for resource in listed], WATCHED)
        templates = (await self.client.list_resource_templates()).resource_templates
        check(templates[0].uri_template, "test://template/{id}/data")
        read = await self.client.read_resource("test://template/7/data")
        check_holds(read.contents[0].text, "Data for ID: 7")

    async def subscription(self) -> None:
        """Hear that a resource has changed."""
        async with self.client.listen(resource_subscriptions=[WATCHED]) as heard:
            await self.text("test_touch")
            event = await anext(heard)
            check(event.uri, WATCHED)

    async def changes(self) -> None:
        """Hear that lists have changed, and see that they did."""
        for kind in KINDS:
            before = await self.names(kind)
            async with self.client.listen(**LISTENS[kind]) as heard:
                await self.text(f"test_trigger_{kind.removesuffix('s')}_change")
                await anext(heard)
            check(set(await self.names(kind)) ^ set(before), {"test_grown"})

    async def names(self, kind: str) -> list[str]:
        """List names."""
        listed = await getattr(self.client, f"list_{kind}")()
        return [entry.name for entry in getattr(listed, kind)]

    async def completion(self) -> None:
        """Complete an argument."""
        ref = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        found = await self.client.complete(ref, {"name": "arg1", "value": "par"})
        check(found.completion.values, ["paris", "park", "party"])

    # --- All ------------------------------------------------------------------------------------

    async def connected(self) -> None:
        """Try everything with one client."""
        async with Client(
            target(),
            sampling_callback=self.sampled,
            elicitation_callback=self.elicited,
            list_roots_callback=self.rooted,
            logging_callback=self.log,
            log_level="info",
        ) as self.client:
            check(self.client.protocol_version, TASK["revision"])
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


warnings.simplefilter("ignore")
asyncio.run(Driver().run())
