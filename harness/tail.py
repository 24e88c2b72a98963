"""Readers of a run's events: one tail per run and process, any number of subscribers, each with nothing but a place in it.

A subscriber catches up from Redis until it is where the tail begins, then reads the tail. One that falls behind the tail's
ring catches up from Redis again. Sequence numbers are contiguous, so an event that was trimmed before a reader got to it
cannot go unnoticed.
"""

from __future__ import annotations

import asyncio
import uuid
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog import get_logger

from cody.contracts.run import TERMINAL
from cody.errors import StreamTrimmed
from cody.store import events, keys, runs
from cody.store.events import Frame, id_tuple
from cody.store.reader import Entry, StreamReader

log = get_logger()

RING_FRAMES = 4_096
RING_BYTES = 8 << 20
CATCH_UP = 1_000
CATCH_UP_ALL = 10_000
LEAST_CATCH_UP = 20
"""Events read at once for a reader that catches up; about so many for all of them, as each holds its own copies. A reader
that does not read holds on to them, and a thousand such readers must fit in memory."""
RETRY_S = 0.2
WATCH_S = 5.0
"""How soon readers learn that Redis has lost what they were given."""
START = "0-0"


class Tail:
    """The last events of one run, shared by everyone who watches it."""

    def __init__(self, run_id: str, floor_id: str) -> None:
        self.run_id = run_id
        self.floor = id_tuple(floor_id)
        """The ring holds every event after this id."""
        self.subscribers = 0
        self.lost = False
        """Redis has lost events that are in this tail: it was wiped, or set back to an older state."""
        self._ring: list[Frame] = []
        self._bytes = 0
        self._base = 0
        """Position of the ring's first event; positions only grow."""
        self._pulse: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Take new entries in and wake everyone."""
        for entry_id, fields in entries:
            try:
                one = events.frame(entry_id, fields)
            except (KeyError, ValueError):
                log.warning("tail.foreign_entry", run_id=self.run_id, entry_id=entry_id.decode(errors="replace"))
                continue
            self._ring.append(one)
            self._bytes += len(one.sse)
        if len(self._ring) > RING_FRAMES or self._bytes > RING_BYTES:
            self._shorten()
        self._wake()

    @property
    def newest(self) -> tuple[int, int]:
        """The id of the last event that was read."""
        return id_tuple(self._ring[-1].id) if self._ring else self.floor

    def lose(self) -> None:
        """Nothing contiguous can come any more: tell everyone."""
        self.lost = True
        self._wake()

    def _wake(self) -> None:
        pulse, self._pulse = self._pulse, asyncio.get_running_loop().create_future()
        pulse.set_result(None)

    def _shorten(self) -> None:
        """Let the older half go: seldom, so that the cost of moving the rest does not count."""
        count = max(1, len(self._ring) // 2)
        self.floor = id_tuple(self._ring[count - 1].id)
        self._bytes -= sum(len(one.sse) for one in self._ring[:count])
        self._base += count
        del self._ring[:count]

    async def changed(self) -> None:
        """Wait for the next delivery."""
        await asyncio.shield(self._pulse)

    def place_after(self, cursor_id: str) -> int:
        """The position of the first event after this id, which must not be older than `floor`."""
        return self._base + bisect_right(self._ring, id_tuple(cursor_id), key=lambda one: id_tuple(one.id))

    def since(self, position: int) -> list[Frame] | None:
        """The events from this position on; None when the ring does not reach back so far any more."""
        return self._ring[position - self._base :] if position >= self._base else None


@dataclass(slots=True)
class Cursor:
    """Where a subscriber is. `seq` None: not known yet, any event may come next."""

    id: str
    seq: int | None
    ended: bool
    """The run had ended when the subscriber came: when nothing more is kept, nothing more comes."""
    position: int | None = None
    """Where in the tail it is; None while it catches up from Redis."""
    catches_up: bool = False
    """It asked for, or holds, events that no other reader shares."""


class TailHub:
    """All tails of a process."""

    def __init__(self, url: str, redis: Redis) -> None:
        self._redis = redis
        self._reader = StreamReader(url, redis, str(uuid.uuid4()))
        self._tails: dict[str, Tail] = {}
        self._opening = asyncio.Lock()
        self._catching_up = 0
        """Readers that hold events of their own."""

    async def run(self) -> None:
        """Read for all tails until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reader.run())
            tasks.create_task(self._watch())

    async def _watch(self) -> None:
        """A blocking read says nothing when its stream is deleted: look, for all tails at once, whether they still are."""
        while True:
            await asyncio.sleep(WATCH_S)
            read = [(tail, tail.newest) for tail in self._tails.values()]
            try:
                kept = await events.newest_ids(self._redis, [tail.run_id for tail, _ in read])
            except (RedisError, OSError, TimeoutError):
                continue
            for (tail, newest), newest_kept in zip(read, kept, strict=True):
                if newest > id_tuple(newest_kept or START):
                    log.error("tail.events_lost", run_id=tail.run_id, readers=tail.subscribers)
                    self._drop(tail)
                    tail.lose()

    def _drop(self, tail: Tail) -> None:
        if self._tails.get(tail.run_id) is tail:
            del self._tails[tail.run_id]
            self._reader.unfollow(keys.events(tail.run_id))

    async def open(self, run_id: str, start: str) -> Cursor:
        """Where to begin: '0' = the oldest kept, '$' = only new events, else after that id.

        Raises NotFound, InvalidRequest (not an id), StreamTrimmed (events after that id are gone already).
        """
        ended = (await runs.fields(self._redis, run_id)).get("status") in TERMINAL
        if start == "$":
            newest = await events.last(self._redis, run_id)
            return Cursor(newest.id, newest.seq, ended) if newest else Cursor(START, None, ended)
        if start == "0":
            return Cursor(START, None, ended)
        wanted = id_tuple(start)
        earliest = await events.first(self._redis, run_id)
        if earliest and wanted < id_tuple(earliest.id) and earliest.seq > 1:
            raise self._trimmed(run_id, earliest)
        at = await events.at(self._redis, run_id, f"{wanted[0]}-{wanted[1]}")
        return Cursor(f"{wanted[0]}-{wanted[1]}", at.seq if at else None, ended)

    def _trimmed(self, run_id: str, earliest: Frame) -> StreamTrimmed:
        return StreamTrimmed(
            f"events of run {run_id} between your cursor and {earliest.id} are no longer kept: start again with from=0",
            earliest_event_id=earliest.id,
        )

    async def _join(self, run_id: str) -> Tail:
        async with self._opening:
            tail = self._tails.get(run_id)
            if tail is None:
                newest = await events.last(self._redis, run_id)
                floor = newest.id if newest else START
                tail = self._tails[run_id] = Tail(run_id, floor)
                await self._reader.follow(keys.events(run_id), floor, tail.deliver)
            tail.subscribers += 1
            return tail

    def _leave(self, tail: Tail) -> None:
        tail.subscribers -= 1
        if tail.subscribers == 0:
            self._drop(tail)

    async def follow(self, run_id: str, cursor: Cursor) -> AsyncIterator[list[Frame]]:
        """Batches of events after the cursor, each event once and in order, until the terminal one.

        Raises StreamTrimmed when events were trimmed before this reader got to them. While Redis is away nothing comes and
        nothing is lost.
        """
        tail: Tail | None = None
        try:
            while True:
                try:
                    tail = tail or await self._join(run_id)
                    batch = await self._next(tail, cursor)
                except (RedisError, OSError, TimeoutError):
                    await asyncio.sleep(RETRY_S)
                    continue
                if not batch:
                    return
                cursor.id, cursor.seq = batch[-1].id, batch[-1].seq
                yield batch
                self._release(cursor)
                if batch[-1].terminal:
                    return
        finally:
            self._release(cursor)
            if tail is not None:
                self._leave(tail)

    def _release(self, cursor: Cursor) -> None:
        """The reader has no events of its own any more."""
        self._catching_up -= cursor.catches_up
        cursor.catches_up = False

    async def _next(self, tail: Tail, cursor: Cursor) -> list[Frame]:
        """The next events, waiting for them; nothing when none can come."""
        while True:
            if cursor.position is None:
                found = await self._catch_up(tail, cursor)
                if found or cursor.ended:
                    return await self._contiguous(tail.run_id, cursor, found)
                cursor.position = tail.place_after(cursor.id)
            live = tail.since(cursor.position)
            if live:
                cursor.position += len(live)
                # A reader that caught up past a tail that lags has had these from Redis. Told by the id, not by the number:
                # a store that was set back gives old numbers to new events, and that must not go unnoticed.
                live = live[bisect_right(live, id_tuple(cursor.id), key=lambda one: id_tuple(one.id)) :]
                if live:
                    return await self._contiguous(tail.run_id, cursor, live)
            if live is None:
                cursor.position = None
            elif tail.lost:
                raise StreamTrimmed(
                    f"Redis has lost events of run {tail.run_id} that you were given (wiped, or set back to an older "
                    "state): start again with from=0",
                    earliest_event_id="0",
                )
            else:
                await tail.changed()

    async def _catch_up(self, tail: Tail, cursor: Cursor) -> list[Frame]:
        """Events from Redis up to where the tail begins."""
        if id_tuple(cursor.id) >= tail.floor and not cursor.ended:
            return []
        # Counted before it is asked for: a thousand that ask at the same moment are a thousand.
        self._catching_up += not cursor.catches_up
        cursor.catches_up = True
        count = max(LEAST_CATCH_UP, min(CATCH_UP, CATCH_UP_ALL // self._catching_up))
        found = await events.after(self._redis, tail.run_id, cursor.id, count=count)
        if not found and id_tuple(cursor.id) < tail.floor:
            raise StreamTrimmed(f"the events of run {tail.run_id} are no longer kept", earliest_event_id="0")
        return found

    async def _contiguous(self, run_id: str, cursor: Cursor, found: list[Frame]) -> list[Frame]:
        if not found:
            return found
        follows = cursor.seq is None or found[0].seq == cursor.seq + 1
        if follows and found[-1].seq - found[0].seq == len(found) - 1:
            return found
        raise self._trimmed(run_id, await events.first(self._redis, run_id) or found[0])
