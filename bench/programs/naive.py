"""
The relay as one would write it first: Klein in front, treq behind, bodies streamed.

    python -m bench.programs.naive PORT UPSTREAM KEY
"""

# ruff: noqa: PLC0415, TID251 - a program of its own, which chooses its reactor before imports.

from __future__ import annotations

import sys
from typing import Any


def main(port: int, upstream: int, key: str) -> None:
    """Serve until SIGTERM."""
    from twisted.internet import epollreactor

    epollreactor.install()
    import treq
    from klein import Klein
    from twisted.internet import reactor
    from twisted.web.client import HTTPConnectionPool
    from twisted.web.server import Site

    pool: Any = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = 64
    app = Klein()
    known = f"Bearer {key}"

    @app.route("/srv/<path:path>", methods=["GET", "POST"])
    async def relay(request: Any, path: str) -> bytes:
        if request.getHeader("authorization") != known:
            request.setResponseCode(401)
            return b""
        headers: Any = {"Content-Type": request.getHeader("content-type") or ""}
        response = await treq.request(
            request.method.decode(),
            f"http://127.0.0.1:{upstream}/{path}",
            data=request.content.read(),
            headers=headers,
            pool=pool,
        )
        request.setResponseCode(response.code)
        kind = response.headers.getRawHeaders("content-type", [""])[0]
        request.setHeader("content-type", kind)
        await treq.collect(response, request.write)
        return b""

    listening: Any = reactor
    listening.listenTCP(port, Site(app.resource()), interface="127.0.0.1", backlog=1024)
    listening.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
