"""uvicorn's server, started and stopped by us: no signals of its own, no looking ten times a second whether to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Protocol, cast

import uvicorn

from server.connection import ServerConfig

DATE_HEADER_S = 1.0
CONNECTIONS_POLL_S = 0.02


class _Abortable(Protocol):
    def abort(self) -> None: ...


class HttpServer(uvicorn.Server):
    """Serves one socket until `leave`."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._leaving = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal once more at its end, and the process would exit with -15."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        while not self._leaving.is_set():
            await self.on_tick(0)  # brings the Date header up to date
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_HEADER_S):
                    await self._leaving.wait()

    def leave(self) -> None:
        """Stop accepting, finish the answers that have begun; `serve` returns when the last connection is gone."""
        self._leaving.set()

    async def cut_connections(self, *, after_s: float) -> None:
        """Close what is still open after so long, whether its client reads or not."""
        open_ones = self.server_state.connections
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                while open_ones:
                    await asyncio.sleep(CONNECTIONS_POLL_S)
        for connection in list(open_ones):
            cast("_Abortable", connection).abort()
