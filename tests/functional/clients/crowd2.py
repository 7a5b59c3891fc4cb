"""
Many modern clients on the Python SDK 2 at once; each only ever hears its own words.

``crowd2.py TASK``: ``keys``, for each a few clients of ``urls``, ``calls`` each, ``ask`` to be
asked too.  Prints how many calls went well, and what somebody heard that was not theirs.
"""

import asyncio
import json
import random  # noqa: TID251 - the same dice each time
import sys
from collections import Counter
from typing import Any

import mcp_types as types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

TASK = json.loads(sys.argv[1])
crossed: list[str] = []
done: Counter[str] = Counter()


class One:
    """One client."""

    def __init__(self, name: str, url: str, key: str) -> None:
        self.name = name
        self.url = url
        self.key = key
        self.dice = random.Random(name)

    def hears(self, way: str, word: str) -> None:
        """Note what is not ours."""
        done[way] += 1
        if not word.startswith(f"{self.name}:"):
            crossed.append(f"{self.name} heard {word} as {way}")

    async def logged(self, params: Any) -> None:
        """Hear a log line."""
        self.hears("log", str(params.data))

    async def elicited(self, context: Any, params: Any) -> Any:
        """Give a word back."""
        self.hears("question", params.message)
        return types.ElicitResult(action="accept", content={"word": params.message})

    async def call(self, client: Any, number: int) -> None:
        """Call once; perhaps go in the middle."""
        word = f"{self.name}:{number}"
        tool = "ask" if TASK["ask"] and self.dice.random() < 0.4 else "tell"
        # The SDK of the server ends its session when a call is cancelled as it begins or ends.
        goes = tool == "tell" and self.dice.random() < 0.1

        async def progress(_: float, __: float | None, message: str | None) -> None:
            if message != word:
                crossed.append(f"{word} heard {message} as progress")
            done["progress"] += 1
            if goes:
                calling.cancel()

        arguments = {"word": word} if tool == "ask" else {"word": word, "times": 50 if goes else 3}
        calling = asyncio.ensure_future(
            client.call_tool(tool, arguments, progress_callback=progress)
        )
        try:
            result = await asyncio.wait_for(calling, 60)
        except asyncio.CancelledError:
            done["cancelled"] += 1
            return
        except MCPError as error:
            crossed.append(f"{word} failed: {error} {error.error.data}")
            return
        text = result.content[0].text
        if result.is_error or text != word:
            crossed.append(f"{word} was answered {text}")
        done[tool] += 1

    async def run(self) -> None:
        """Do all calls, some at once."""
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {self.key}"})
        transport = streamable_http_client(self.url, http_client=http)
        more: dict[str, Any] = {"elicitation_callback": self.elicited} if TASK["ask"] else {}
        client = Client(transport, logging_callback=self.logged, log_level="info", **more)
        async with http, client:
            done[client.protocol_version] += 1
            for first in range(0, TASK["calls"], 3):
                await asyncio.gather(*(self.call(client, first + n) for n in range(3)))


async def main() -> None:
    """Let them all loose."""
    clients = [
        One(f"{url.rsplit('/', 2)[-2]}{number}of{key[-4:]}", url, key)
        for url in TASK["urls"]
        for key in TASK["keys"]
        for number in range(3)
    ]
    await asyncio.gather(*(client.run() for client in clients))
    print(json.dumps({"crossed": crossed[:20], "done": done}))  # noqa: T201 - read by the test


asyncio.run(main())
