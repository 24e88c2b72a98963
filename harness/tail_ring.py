"""The newest events of one run, pushed to every reader that keeps up and kept for those that are a little behind."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence

from structlog import get_logger

from cody.store import events
from cody.store.events import Frame, id_tuple
from cody.store.reader import Entry
from harness.tail_pages import Batch

log = get_logger()

RING_FRAMES = 4_096
RING_BYTES = 1 << 20
"""For each run that is watched."""
SLICE_FRAMES = 256

Take = Callable[[Batch], int]
"""Sends a batch without waiting; answers how many of its frames it took. Must not raise."""
Left = tuple[int, Frame | None]
"""From which position on a reader has nothing, and the event before it."""


class Live:
    """One reader at the tail's end."""

    __slots__ = ("take", "until")

    def __init__(self, take: Take, until: asyncio.Future[Left]) -> None:
        self.take = take
        self.until = until


class Tail:
    """The last events of one run, shared by everyone who watches it."""

    def __init__(self, run_id: str, floor: Frame | None) -> None:
        self.run_id = run_id
        self.floor = id_tuple(floor.id) if floor else (0, 0)
        """The ring holds every event after this id."""
        self.readers = 0
        self.lost = False
        """Redis has lost events that are in this tail: it was wiped, or set back to an older state."""
        self._last = floor
        self._ring: list[Frame] = []
        self._bytes = 0
        self._base = 0
        """Position of the ring's first event; positions only grow."""
        self._live: set[Live] = set()
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def newest(self) -> tuple[int, int]:
        """The id of the last event that was read."""
        return id_tuple(self._last.id) if self._last else self.floor

    @property
    def end(self) -> int:
        """The position of the event that comes next."""
        return self._base + len(self._ring)

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Take new entries in and hand them to everyone."""
        frames: list[Frame] = []
        for entry_id, fields in entries:
            try:
                frames.append(events.frame(entry_id, fields))
            except (KeyError, ValueError):
                log.warning("tail.foreign_entry", run_id=self.run_id, entry_id=entry_id.decode(errors="replace"))
        if not frames:
            return
        begin, before = self.end, self._last
        self._last = frames[-1]
        self._ring += frames
        self._bytes += sum(len(one.sse) for one in frames)
        if not _contiguous([before, *frames] if before else frames):
            # A store that was set back gives old numbers to new events: each reader looks for itself what it misses.
            self._release(begin, before)
        elif self._live:
            self._push(Batch(frames), begin, before)
        self._wake()
        while len(self._ring) > RING_FRAMES or self._bytes > RING_BYTES:
            self._shorten()

    def _push(self, batch: Batch, begin: int, before: Frame | None) -> None:
        frames = batch.frames
        count, ended = len(frames), frames[-1].terminal
        for one in list(self._live):
            taken = one.take(batch)
            if taken < count or ended:
                self._let_go(one, (begin + taken, frames[taken - 1] if taken else before))

    def _release(self, position: int, before: Frame | None) -> None:
        for one in list(self._live):
            self._let_go(one, (position, before))

    def _let_go(self, one: Live, left: Left) -> None:
        self._live.discard(one)
        if not one.until.done():
            one.until.set_result(left)

    async def push_to(self, take: Take) -> Left:
        """Hand every new event, as it comes, to a reader that has all before `end`.

        Until it does not take one, took the run's last event, or the tail can't say what follows.
        """
        one = Live(take, asyncio.get_running_loop().create_future())
        self._live.add(one)
        try:
            return await one.until
        finally:
            self._live.discard(one)

    def lose(self) -> None:
        """Nothing contiguous can come any more: tell everyone."""
        self.lost = True
        self._release(self.end, self._last)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def changed(self) -> None:
        """Wait for the next delivery."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _shorten(self) -> None:
        """Let the older half go: seldom, so that the cost of moving the rest does not count."""
        count = max(1, len(self._ring) // 2)
        self.floor = id_tuple(self._ring[count - 1].id)
        self._bytes -= sum(len(one.sse) for one in self._ring[:count])
        self._base += count
        del self._ring[:count]

    def place_after(self, cursor_id: str) -> int:
        """The position of the first event after this id, which must not be older than `floor`."""
        return self._base + bisect_right(self._ring, id_tuple(cursor_id), key=lambda one: id_tuple(one.id))

    def since(self, position: int) -> list[Frame] | None:
        """Some events from this position on; None when the ring does not reach back so far any more."""
        begin = position - self._base
        return self._ring[begin : begin + SLICE_FRAMES] if begin >= 0 else None


def _contiguous(frames: Sequence[Frame]) -> bool:
    return frames[-1].seq - frames[0].seq == len(frames) - 1
