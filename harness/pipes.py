"""The read end of a pipe on the event loop: whole chunks as they come, no line limit, no buffer, no thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

DRAIN_ROUND_S = 0.5
DRAIN_ROUNDS = 10


class PipeReader(asyncio.Protocol):
    """Hands each chunk to `receive` and calls `ended` once, at the end of file, after a read error or after `close`."""

    def __init__(self, receive: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self.received_bytes = 0
        self.closed = False
        self._receive, self._ended = receive, ended
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self._receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed = True
        self._ended()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def close_when_silent(loop: asyncio.AbstractEventLoop, readers: Sequence[PipeReader], rounds: int = 0) -> None:
    """Closes pipes that stay open although all that should write to them has ended: someone else holds their other end.

    What is still in them is read first: a round without a byte ends it, or DRAIN_ROUNDS rounds do.
    """
    received = sum(reader.received_bytes for reader in readers)

    def look() -> None:
        silent = received == sum(reader.received_bytes for reader in readers)
        if silent or rounds + 1 >= DRAIN_ROUNDS:
            for reader in readers:
                reader.close()
        else:
            close_when_silent(loop, readers, rounds + 1)

    if not all(reader.closed for reader in readers):
        loop.call_later(DRAIN_ROUND_S, look)
