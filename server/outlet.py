"""The way out to one client, who may read slowly or not at all."""

from __future__ import annotations

import asyncio
import time

from starlette.types import Send

from server.connection import Connection

SEND_DEADLINE_S = 30.0
"""How long a client may take no byte of what waits for it: the transport's buffer of 64 KiB and a part."""
MOMENT_S = 0.1


class ClientGone(Exception):
    """Nobody is there to read any more."""


class ClientTooSlow(ClientGone):
    """The client did not read for so long that its connection was cut."""


class Outlet:
    """Sends the parts of one body. What waits for the client: the transport's buffer (64 KiB) and one part, no more."""

    __slots__ = ("_connection", "_deadline_s", "_send", "_stuck_since_s")

    def __init__(self, send: Send, connection: Connection, *, deadline_s: float = SEND_DEADLINE_S) -> None:
        self._send = send
        self._connection = connection
        self._deadline_s = deadline_s
        self._stuck_since_s: float | None = None

    def offer(self, chunk: bytes) -> bool:
        """Send a chunk if it need not wait for the client; False: nothing was sent, wait until `writable`."""
        if self._connection.offer(chunk):
            self._stuck_since_s = None
            return True
        if self._stuck_since_s is None:
            self._stuck_since_s = time.monotonic()
        return False

    @property
    def is_overdue(self) -> bool:
        """Since `offer` said so for the first time the client has taken nothing, for longer than it may."""
        return self._stuck_since_s is not None and time.monotonic() > self._stuck_since_s + self._deadline_s

    async def writable(self) -> bool:
        """Wait until a chunk can be sent, up to the deadline; then the connection is cut. False: it took the client long.

        Raises ClientGone, ClientTooSlow.
        """
        connection = self._connection
        if not connection.is_stuck:
            # The usual case, kept cheap: nothing waits, so nothing needs a deadline.
            if connection.is_lost:
                raise ClientGone
            return True
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._deadline_s):
                await connection.unstuck()
        except TimeoutError:
            connection.abort()
            raise ClientTooSlow from None
        if connection.is_lost:
            raise ClientGone
        return time.monotonic() - began_s < MOMENT_S

    async def write(self, part: bytes, *, last: bool = False) -> None:
        """Send a part (no chunk), waiting for a slow client; raises ClientGone, ClientTooSlow."""
        await self.writable()
        await self._send({"type": "http.response.body", "body": part, "more_body": not last})
