"""The floor of a fan-out: `python -m tests.bench.bare_server COUNT`: uvloop, and one `transport.write` a client and frame.

Prints its port. Once COUNT clients have asked, each line `FRAMES PER_SECOND BYTES` on stdin has it write so many frames to
all of them; it answers `done`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class Bare(asyncio.Protocol):
    clients: list[asyncio.Transport] = []
    paused: set[asyncio.Transport] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.clients.append(self.transport)

    def pause_writing(self) -> None:
        self.paused.add(self.transport)

    def resume_writing(self) -> None:
        self.paused.discard(self.transport)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", 0, backlog=2_048)
    print(server.sockets[0].getsockname()[1], flush=True)
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while asked := await stdin.readline():
        frames, per_second, size = map(int, asked.split())
        frame = b"x" * size
        began = loop.time()
        for number in range(frames):
            await asyncio.sleep(max(0.0, began + number / per_second - loop.time()))
            for client in Bare.clients:
                client.write(frame)
        while Bare.paused:
            await asyncio.sleep(0.001)
        print("done", flush=True)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())
