"""What a connection needs of asyncio at the size that a connection can afford: each deque that uvicorn gives it has 760 bytes."""

from __future__ import annotations

import asyncio
from typing import Any


class LeanEvent:
    """As `asyncio.Event`, as far as uvicorn uses it."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            if not one.done():
                one.set_result(None)

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> bool:
        if not self._is_set:
            one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(one)
            await one
        return True


class LeanFlow:
    """uvicorn's FlowControl (0.54)."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = LeanEvent(is_set=True)
        self.read_paused = False
        self.write_paused = False

    async def drain(self) -> None:
        await self._writable.wait()

    def pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.set()


class LeanQueue(list[Any]):
    """As the deque of pipelined requests, of which there are hardly ever any."""

    __slots__ = ()

    def appendleft(self, one: object) -> None:
        self.insert(0, one)
