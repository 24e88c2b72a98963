"""The way out to one client, who may read slowly or not at all."""

from __future__ import annotations

import asyncio

from starlette.types import Send

from server.connection import Connection

SEND_DEADLINE_S = 30.0


class ClientGone(Exception):
    """Nobody is there to read any more."""


class ClientTooSlow(ClientGone):
    """The client did not read for so long that its connection was cut."""


class Outlet:
    """Sends the parts of one body. What waits for the client: one part and the transport's buffer (64 KiB), no more."""

    def __init__(self, send: Send, connection: Connection, *, deadline_s: float = SEND_DEADLINE_S) -> None:
        self._send = send
        self._connection = connection
        self._deadline_s = deadline_s

    def offer(self, part: bytes) -> bool:
        """Send a part of a chunked body if it need not wait for the client; False: nothing was sent, use `write`."""
        return self._connection.offer(part)

    async def write(self, part: bytes, *, last: bool = False) -> None:
        """Send a part, waiting for a slow client up to the deadline; then its connection is cut. Raises ClientGone,
        ClientTooSlow."""
        message = {"type": "http.response.body", "body": part, "more_body": not last}
        if not self._connection.is_stuck:
            # The usual case, kept cheap: nothing waits, so nothing needs a deadline.
            if self._connection.is_lost:
                raise ClientGone
            await self._send(message)
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._send(message)
        except TimeoutError:
            self._connection.abort()
            raise ClientTooSlow from None
