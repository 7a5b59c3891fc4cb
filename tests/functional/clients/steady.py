"""
A client that stays: of one Python SDK, over one transport, in one session, calling all the time.

``steady.py TASK`` with the task of `tests.functional.real_clients` as JSON, and ``victim``: the
call, a tool and its arguments, that may fail.  Prints ``ready`` when it has called everything once.
A line on stdin has it take stock: it prints how often the list of tools was said to have changed.
At the end of stdin it says how all calls went.
"""

# ruff: noqa: T201 - a program of its own: it prints.

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

TASK = json.loads(sys.argv[1])
TWO = version("mcp").startswith("2.")
CHANGED = "notifications/tools/list_changed"


class Steady:
    """What it did and heard."""

    def __init__(self) -> None:
        self.changes = 0
        self.calls = 0
        self.slowest = 0.0
        self.failures: list[str] = []
        self.victim_calls = 0
        self.victim_failures: list[str] = []
        self.listening = True
        self.leaving = False

    async def heard(self, message: Any) -> None:
        """Take a notification of a session."""
        if getattr(getattr(message, "root", message), "method", "") == CHANGED:
            self.changes += 1

    async def listen(self, client: Any) -> None:
        """Listen in the modern era; what ends by itself is not listened to any more."""
        try:
            async with client.listen(tools_list_changed=True) as stream:
                async for _ in stream:
                    self.changes += 1
        finally:
            self.listening = False

    async def call(self, session: Any, tool: str, arguments: dict[str, Any]) -> str:
        """Call a tool; give what was wrong, or nothing."""
        began = time.monotonic()
        try:
            result = await asyncio.wait_for(session.call_tool(tool, arguments), 60)
        except Exception as error:
            return f"{tool}: {type(error).__name__}: {error}"
        finally:
            self.slowest = max(self.slowest, time.monotonic() - began)
        text = "".join(getattr(part, "text", "") for part in result.content)
        return f"{tool}: {text}" if (result.is_error if TWO else result.isError) else ""

    async def call_others(self, session: Any) -> None:
        """Call each of the others once."""
        for tool, arguments in TASK["calls"]:
            wrong = await self.call(session, tool, arguments)
            self.calls += 1
            if wrong:
                self.failures.append(wrong)

    async def call_victim(self, session: Any) -> None:
        """Call the one that may fail, until it is over."""
        while not self.leaving:
            slowest = self.slowest
            wrong = await self.call(session, *TASK["victim"])
            self.slowest = slowest  # it may wait
            self.victim_calls += 1
            if wrong:
                self.victim_failures.append(wrong)
            await asyncio.sleep(0.05)

    async def run(self, session: Any) -> None:
        """Work until stdin ends."""
        tools = [tool.name for tool in (await session.list_tools()).tools]
        await self.call_others(session)
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        victim = asyncio.create_task(self.call_victim(session))
        line = loop.run_in_executor(None, sys.stdin.readline)
        while True:
            await self.call_others(session)
            if line.done():
                if not await line:
                    break
                print(self.changes, flush=True)
                line = loop.run_in_executor(None, sys.stdin.readline)
        self.leaving = True
        await victim
        after = [tool.name for tool in (await session.list_tools()).tools]
        print(json.dumps({**vars(self), "tools": tools, "tools_after": after}))


@contextlib.asynccontextmanager
async def connected(steady: Steady) -> AsyncIterator[Any]:
    """Connect as the task says."""
    if TWO:
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        http = create_mcp_http_client(headers=TASK["headers"])
        transport = streamable_http_client(TASK["url"], http_client=http)
        async with http, Client(transport, mode=TASK["era"]) as client:
            listening = asyncio.create_task(steady.listen(client))
            yield client
            listening.cancel()
        return
    from mcp import ClientSession
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamablehttp_client

    connect: Any = sse_client if TASK["sse"] else streamablehttp_client
    async with connect(TASK["url"], headers=TASK["headers"]) as streams:
        async with ClientSession(streams[0], streams[1], message_handler=steady.heard) as session:
            await session.initialize()
            yield session


async def main() -> None:
    """Connect and stay."""
    steady = Steady()
    async with connected(steady) as session:
        await steady.run(session)


asyncio.run(main())
