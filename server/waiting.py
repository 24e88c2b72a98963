"""An answer that is long in the making, for as long as somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Receive, Scope, Send


class Awaited:
    """Makes the answer and sends it; gives it up when the client goes away. An ASGI application.

    A wait that outlives its client would be counted for it, and would hold up the end of the server.
    """

    def __init__(self, make: Callable[[], Awaitable[ASGIApp]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        making, gone = asyncio.ensure_future(self._make()), asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({making, gone}, return_when=asyncio.FIRST_COMPLETED)
            answer = making.result() if making.done() else None
        finally:
            making.cancel()
            gone.cancel()
            await asyncio.gather(making, gone, return_exceptions=True)
        if answer is not None:
            await answer(scope, receive, send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the body, which says nothing
