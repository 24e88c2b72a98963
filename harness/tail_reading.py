"""One reader of a run's events: catches up from Redis, follows the tail, is handed each new event once it keeps up."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cody.errors import StreamTrimmed
from cody.store import events
from cody.store.events import Frame, id_tuple
from harness.tail_pages import FEW, LARGE_PAGE_BYTES, MANY, Batch, Pages
from harness.tail_ring import Left, Tail, Take

RETRY_S = 0.2


@dataclass(slots=True)
class Cursor:
    """Where a reader is. `seq` None: not known yet, any event may come next."""

    id: str
    seq: int | None
    ended: bool
    """The run had ended when the reader came: when nothing more is kept, nothing more comes."""
    position: int | None = None
    """Where in the tail it is; None while it catches up from Redis."""


class Tails(Protocol):
    """What a reading needs of those who keep the tails."""

    redis: Redis
    pages: Pages

    async def join(self, run_id: str) -> Tail: ...

    def leave(self, tail: Tail) -> None: ...


class Reading(AsyncIterator[list[Frame]]):
    """Events after the cursor, each once and in order, until the terminal one.

    As an iterator it gives them in batches. A sender of its own calls `next`, and `sent` for what it sent; it is asked for
    nothing more until then, and holds nothing while it can't send. Both raise StreamTrimmed when events were trimmed before
    this reader got to them. While Redis is away nothing comes and nothing is lost. End it with `aclose`.
    """

    __slots__ = ("_cursor", "_run_id", "_size", "_tail", "_tails", "done")

    def __init__(self, tails: Tails, run_id: str, cursor: Cursor) -> None:
        self.done = False
        """The terminal event was sent."""
        self._tails = tails
        self._run_id = run_id
        self._cursor = cursor
        self._size = FEW
        self._tail: Tail | None = None

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> list[Frame]:
        found = await self.next()
        if found is None:
            self.close()
            raise StopAsyncIteration
        batch, place = found
        self.sent(batch, place, len(batch.frames))
        return list(batch.frames[place:])

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """The reader went; repeating it is harmless."""
        tail, self._tail = self._tail, None
        if tail is not None:
            self._tails.leave(tail)

    def __del__(self) -> None:
        # `async for` does not close what it leaves early, unless it is a generator.
        self.close()

    async def next(self, take: Take | None = None) -> tuple[Batch, int] | None:
        """The next events, waiting for them: a batch and the place in it where they begin; None at the end.

        `take` is called with every new event while this reader has all that came before.
        """
        while not self.done:
            try:
                if self._tail is None:
                    self._tail = await self._tails.join(self._run_id)
                if self._cursor.position is None:
                    if (found := await self._catch_up(self._tail)) is not None:
                        return found
                    if self._cursor.ended:
                        return None
                    self._cursor.position = self._tail.place_after(self._cursor.id)
                    continue
                if (live := self._live(self._tail, self._cursor.position)) is not None:
                    return await self._checked(Batch(live), 0)
                if self._cursor.position is not None:
                    # One coroutine less that waits, for each reader.
                    self._left(await self._news(self._tail, take))
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(RETRY_S)
        return None

    def sent(self, batch: Batch, place: int, until: int) -> None:
        """Of this batch everything from `place` to before `until` was sent."""
        if until == place:
            return
        last = batch.frames[until - 1]
        self._cursor.id, self._cursor.seq = last.id, last.seq
        self.done = last.terminal
        if self._cursor.position is not None:
            self._cursor.position += until - place
        if until == len(batch.frames):
            size = sum(len(one.sse) for one in batch.frames[-FEW:])
            self._size = MANY if size * (MANY // FEW) <= LARGE_PAGE_BYTES else FEW

    def fell_behind(self) -> None:
        """The reader is slow: it is given little at once."""
        self._size = FEW

    def _live(self, tail: Tail, position: int) -> list[Frame] | None:
        """What the tail has for this reader; None = nothing yet, or not any more (then the position is gone, too)."""
        found = tail.since(position)
        if found is None:
            self._cursor.position = None
            return None
        # A reader that caught up past a tail that lags has had these from Redis. Told by the id, not by the number:
        # a store that was set back gives old numbers to new events, and that must not go unnoticed.
        known = bisect_right(found, id_tuple(self._cursor.id), key=lambda one: id_tuple(one.id))
        self._cursor.position = position + known
        return found[known:] or None

    def _news(self, tail: Tail, take: Take | None) -> Awaitable[Left | None]:
        """To be waited for by a reader that has all that the tail has."""
        if tail.lost:
            raise StreamTrimmed(
                f"Redis has lost events of run {self._run_id} that you were given (wiped, or set back to an older "
                "state): start again with from=0",
                earliest_event_id="0",
            )
        if take is None or id_tuple(self._cursor.id) > tail.newest:
            return tail.changed()
        return tail.push_to(take)

    def _left(self, left: Left | None) -> None:
        """Events were pushed to this reader, up to there."""
        if left is not None:
            self._cursor.position, last = left
            if last is not None:
                self._cursor.id, self._cursor.seq, self.done = last.id, last.seq, last.terminal

    async def _catch_up(self, tail: Tail) -> tuple[Batch, int] | None:
        """Events from Redis up to where the tail begins."""
        cursor = self._cursor
        if id_tuple(cursor.id) >= tail.floor and not cursor.ended:
            return None
        found = await self._tails.pages.after(self._run_id, cursor.id, cursor.seq, self._size)
        if found is not None:
            return await self._checked(*found)
        if id_tuple(cursor.id) < tail.floor:
            raise StreamTrimmed(f"the events of run {self._run_id} are no longer kept", earliest_event_id="0")
        return None

    async def _checked(self, batch: Batch, place: int) -> tuple[Batch, int]:
        """The batch, with no hole in it nor before it; its parts begin at `place`."""
        frames = batch.frames
        follows = self._cursor.seq is None or frames[place].seq == self._cursor.seq + 1
        if not (follows and frames[-1].seq - frames[place].seq == len(frames) - 1 - place):
            raise trimmed(self._run_id, await events.first(self._tails.redis, self._run_id) or frames[place])
        return (batch, place) if batch.begins_part(place) else (Batch(frames[place:]), 0)


def trimmed(run_id: str, earliest: Frame) -> StreamTrimmed:
    """What to tell a reader whose next events are gone."""
    return StreamTrimmed(
        f"events of run {run_id} between your cursor and {earliest.id} are no longer kept: start again with from=0",
        earliest_event_id=earliest.id,
    )


def ahead(run_id: str, newest: Frame, earliest: Frame) -> StreamTrimmed:
    """What to tell a reader that was further than the run is."""
    return StreamTrimmed(
        f"the newest event of run {run_id} is {newest.id}, before your cursor: start again with from=0",
        earliest_event_id=earliest.id,
    )
