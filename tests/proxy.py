"""A TCP door in front of a real server, that can lose answers, hold them back, or be shut."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """`async with Proxy(url) as proxy`: `proxy.url` leads to the same server, until `lead_to` says another."""

    def __init__(self, upstream: str | None = None, host: str = "127.0.0.1") -> None:
        """`upstream`: redis://host:port or unix:///path; None: nobody is let in before `lead_to`."""
        self._listen_on = host
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.drop_replies = 0
        """So many of the next answers are thrown away, each with its connection."""
        self.dropped = 0
        self.refuse = upstream is None
        if upstream is not None:
            self.lead_to(upstream)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._listen_on, 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://{self._listen_on}:{port}/0"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.refuse = True  # also to who came in just now
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End every connection now."""
        for writer in list(self._writers):
            writer.transport.abort()

    def lead_to(self, upstream: str) -> None:
        """Connections that are made from now on lead to this server, and none is refused."""
        parts = urlsplit(upstream)
        self._path = parts.path if parts.scheme == "unix" else None
        self._host, self._port = parts.hostname, parts.port
        self.refuse = False

    def stall(self) -> None:
        """Answers stay away until `flow`; connections stay open: as when packets are lost."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        self._keep(asyncio.current_task())
        self._writers.add(writer)
        try:
            up_reader, up_writer = await self._open()
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(up_writer)
        self._keep(asyncio.create_task(self._pump(reader, up_writer, answers=False)))
        self._keep(asyncio.create_task(self._pump(up_reader, writer, answers=True)))

    def _keep(self, task: asyncio.Task[None] | None) -> None:
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path is not None:
            return await asyncio.open_unix_connection(self._path)
        return await asyncio.open_connection(self._host, self._port)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(1 << 16):
                if answers:
                    await self._flowing.wait()
                    if self.drop_replies:
                        self.drop_replies -= 1
                        self.dropped += 1
                        break
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.transport.abort()
