"""Events that many readers get, read and encoded once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from cody.store import events
from cody.store.events import Frame

PART_BYTES = 32 << 10
"""Joined into one piece: large enough for a fast replay, and all that a reader who stops reading holds beyond its
transport's buffer."""
FEW, MANY = 100, 1_000
"""Events read at once: few for a reader that begins, is slow, or meets large events; many for one that keeps up."""
LARGE_PAGE_BYTES = 2 << 20
PAGES_BYTES = 16 << 20
PAGE_KEPT_S = 1.0
"""Shared by readers that come together; not for long, as Redis may lose (trimmed, wiped, set back) what a page still has."""
READS_AT_ONCE = 4
"""A thousand readers that come back at once must not hold a thousand replies, nor all connections that leases need too."""

Part = tuple[bytes, int]
"""Some whole frames in one piece, as the transport wants them, and how many of the batch's frames are out with it."""


class Batch:
    """Contiguous events; encoded by the first reader that sends them, and then kept for the others."""

    __slots__ = ("_parts", "frames")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self._parts: list[Part] | None = None

    def parts(self, framed: Callable[[bytes], bytes]) -> list[Part]:
        """All frames in pieces of about PART_BYTES; `framed` is the same for everyone who asks."""
        if self._parts is None:
            self._parts = [(framed(piece), until) for piece, until in _joined(self.frames)]
        return self._parts

    def begins_part(self, place: int) -> bool:
        """Whether a part begins with this frame."""
        return place == 0 or (self._parts is not None and any(until == place for _, until in self._parts))


def _joined(frames: Sequence[Frame]) -> list[Part]:
    if len(frames) == 1:  # a quiet run: what most deliveries are
        return [(frames[0].sse, 1)]
    found: list[Part] = []
    begin, size = 0, 0
    for place, frame in enumerate(frames, start=1):
        size += len(frame.sse)
        if size >= PART_BYTES or place == len(frames):
            found.append((b"".join([one.sse for one in frames[begin:place]]), place))
            begin, size = place, 0
    return found


class Page(Batch):
    """Events behind `after_id`, as Redis had them at `read_at_s`."""

    __slots__ = ("after_id", "bytes", "read_at_s")

    def __init__(self, frames: Sequence[Frame], after_id: str, read_at_s: float) -> None:
        super().__init__(frames)
        self.after_id = after_id
        self.read_at_s = read_at_s
        self.bytes = sum(len(one.sse) for one in frames)

    def place_after(self, cursor_id: str, seq: int | None) -> int | None:
        """Where the event after this one is in the page; None when the page does not have it."""
        if seq is None:
            return 0 if self.after_id == cursor_id else None
        place = seq + 1 - self.frames[0].seq
        if not 0 <= place < len(self.frames):
            return None
        before = self.after_id if place == 0 else self.frames[place - 1].id
        return place if before == cursor_id else None


Key = tuple[str, int, int]


class Pages:
    """What readers that catch up are given. Pages end at multiples of their size, so that all meet in the same ones."""

    def __init__(self, redis: Redis, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._kept: OrderedDict[Key, Page] = OrderedDict()
        self._bytes = 0
        self._reading: dict[tuple[Key, str], asyncio.Task[Page | None]] = {}
        self._room = asyncio.Semaphore(READS_AT_ONCE)
        self.reads = 0

    async def after(self, run_id: str, cursor_id: str, seq: int | None, size: int) -> tuple[Batch, int] | None:
        """A page with the events after this one, and where they begin in it; None when there are none.

        `seq`: of the event at the cursor; None = not known. Raises what Redis raises.
        """
        key = (run_id, size, (seq or 0) // size)
        found = self._look_up(key, cursor_id, seq)
        if found is not None and seq is None and not await self._is_oldest(run_id, found[0]):
            found = None
        if found is None:
            # A reader that goes must not take the page from the others that wait for it.
            page = await asyncio.shield(self._begin(key, cursor_id, seq))
            found = None if page is None else (page, 0)
        if found is not None and size == MANY:
            # It keeps up: read on while it is sent this one.
            last = found[0].frames[-1]
            if last.seq % MANY == 0 and (run_id, size, last.seq // size) not in self._kept:
                self._begin((run_id, size, last.seq // size), last.id, last.seq)
        return found

    def _begin(self, key: Key, cursor_id: str, seq: int | None) -> asyncio.Task[Page | None]:
        """The one read of this page; those that want it at the same time share it."""
        reading = self._reading.get((key, cursor_id))
        if reading is None:
            reading = asyncio.create_task(self._read(key, cursor_id, key[1] - (seq or 0) % key[1]))
            self._reading[key, cursor_id] = reading
            reading.add_done_callback(lambda done: self._has_read((key, cursor_id), done))
        return reading

    async def _is_oldest(self, run_id: str, page: Batch) -> bool:
        """Whether the page still begins with the oldest event that is kept: who asks for that must not get older ones."""
        oldest = await events.first(self._redis, run_id)
        return oldest is not None and oldest.id == page.frames[0].id

    def forget(self, run_id: str) -> None:
        """Redis has lost events of this run."""
        for key in [key for key in self._kept if key[0] == run_id]:
            self._drop(key)

    def forget_old(self) -> None:
        """Pages that nobody may be given any more are let go."""
        oldest = self._clock() - PAGE_KEPT_S
        for key in [key for key, page in self._kept.items() if page.read_at_s < oldest]:
            self._drop(key)

    def _look_up(self, key: Key, cursor_id: str, seq: int | None) -> tuple[Batch, int] | None:
        page = self._kept.get(key)
        if page is None:
            return None
        if page.read_at_s < self._clock() - PAGE_KEPT_S:
            self._drop(key)
            return None
        place = page.place_after(cursor_id, seq)
        return None if place is None else (page, place)

    async def _read(self, key: Key, cursor_id: str, count: int) -> Page | None:
        async with self._room:
            self.reads += 1
            read_at_s = self._clock()
            frames = await events.after(self._redis, key[0], cursor_id, count=count)
        if not frames:
            return None
        page = Page(frames, cursor_id, read_at_s)
        self._keep(key, page)
        return page

    def _has_read(self, reading: tuple[Key, str], done: asyncio.Task[Page | None]) -> None:
        del self._reading[reading]
        if not done.cancelled():
            done.exception()  # those who wait have it; without any, nobody needs it

    def _keep(self, key: Key, page: Page) -> None:
        self._drop(key)
        self._kept[key] = page
        self._bytes += page.bytes
        while self._bytes > PAGES_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        page = self._kept.pop(key, None)
        if page is not None:
            self._bytes -= page.bytes
