"""The raw output of a turn, from its log file: whole, from an offset, or a range; also while it grows."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from starlette.types import Receive, Scope, Send
from structlog import get_logger

from cody.errors import NotFound
from server.connection import connection_of
from server.grants import Granted
from server.outlet import ClientGone, Outlet
from server.ranges import Part

log = get_logger()

CHUNK_BYTES = 256 << 10


class OpenedLog:
    """A log file, opened; `size` is how long it was then, and no more of it is sent."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    @classmethod
    async def open(cls, path: Path, what: str = "output") -> OpenedLog:
        """`what` of the turn it is, for errors. Raises NotFound when it is gone, or is not a regular file."""
        return await asyncio.to_thread(cls._open, path, what)

    @classmethod
    def _open(cls, path: Path, what: str) -> OpenedLog:
        try:
            # Without O_NONBLOCK a FIFO in its place would hold the thread for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise NotFound(f"the turn's {what} can't be read: {error.strerror}") from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise NotFound(f"the turn's {what} is not a regular file")
        return cls(descriptor, found.st_size)

    async def read(self, begin: int, length: int) -> bytes:
        """Up to `length` bytes; read in a thread, because a disk may be slow."""
        return await asyncio.to_thread(os.pread, self._descriptor, length, begin)

    def close(self) -> None:
        os.close(self._descriptor)


class OutputAnswer:
    """The answer with a part of a log; an ASGI application. It closes the log. Goes on no longer than what let it in."""

    def __init__(self, opened: OpenedLog, part: Part) -> None:
        self._opened = opened
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await Granted(self._answer)(scope, receive, send)
        except ClientGone:
            log.debug("output.client_gone")
        finally:
            self._opened.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 206 if self._part.partial else 200
        await send({"type": "http.response.start", "status": status, "headers": self._headers()})
        outlet = Outlet(send, connection_of(scope))
        if scope["method"] == "HEAD" or self._part.length == 0:
            await outlet.write(b"", last=True)
        else:
            await self._send_part(outlet)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        part, size = self._part, self._opened.size
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % part.length),
            (b"accept-ranges", b"bytes"),
            (b"x-cody-output-size", b"%d" % size),
        ]
        if part.partial:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (part.begin, part.end - 1, size)))
        return headers

    async def _send_part(self, outlet: Outlet) -> None:
        place = self._part.begin
        while place < self._part.end:
            chunk = await self._opened.read(place, min(CHUNK_BYTES, self._part.end - place))
            if not chunk:
                raise OSError("the turn's output was cut while it was read")
            place += len(chunk)
            await outlet.write(chunk, last=place == self._part.end)
