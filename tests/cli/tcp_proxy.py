"""A TCP proxy whose connections can be cut: the network between a client and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class TcpProxy:
    """Passes bytes on in both directions. `cut_after`: after so many more bytes of answers, the connection is cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._target_name = b"127.0.0.1:%d" % target_port
        self._own_name = b""
        self._writers: set[asyncio.StreamWriter] = set()
        self.cut_after: list[int] = []
        self.connections = 0
        self.url = ""

    def listening(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._own_name = b"127.0.0.1:%d" % port

    def cut(self) -> None:
        """End all connections in the middle, without a goodbye."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        with suppress(OSError):
            await asyncio.gather(
                self._pass_on(reader, far_writer, None), self._pass_on(far_reader, writer, self.cut_after)
            )
        self._writers -= pair
        for one in pair:
            one.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut_after: list[int] | None
    ) -> None:
        while chunk := await reader.read(4096):
            if cut_after:
                if len(chunk) >= cut_after[0]:
                    writer.write(chunk[: cut_after.pop(0)])
                    with suppress(OSError):
                        await writer.drain()
                    raise ConnectionResetError
                cut_after[0] -= len(chunk)
            # The server answers to its own name only.
            writer.write(chunk if cut_after is not None else chunk.replace(self._own_name, self._target_name))
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


@asynccontextmanager
async def tcp_proxy(target_port: int) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(target_port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.listening(server.sockets[0].getsockname()[1])
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()
