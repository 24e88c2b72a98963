"""Readers of a run's events: one tail per run and process, any number of readers, each with nothing but a place in it.

A reader catches up from Redis, by pages that all readers share, until it is where the tail begins; then it reads the tail, and
once it has all of it each new event is handed to it. One that falls behind the tail's ring catches up from Redis again.
Sequence numbers are contiguous, so an event that was trimmed before a reader got to it cannot go unnoticed.
"""

from __future__ import annotations

import asyncio
import uuid

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog import get_logger

from cody.contracts.run import TERMINAL
from cody.store import events, keys, runs
from cody.store.events import id_tuple
from cody.store.reader import StreamReader
from harness.tail_pages import Pages
from harness.tail_reading import Cursor, Reading, ahead, trimmed
from harness.tail_ring import Tail

__all__ = ["Cursor", "Reading", "TailHub"]

log = get_logger()

WATCH_S = 5.0
"""How soon readers learn that Redis has lost what they were given."""
START = "0-0"


class TailHub:
    """All tails of a process."""

    def __init__(self, url: str, redis: Redis) -> None:
        self.redis = redis
        self.pages = Pages(redis)
        self._reader = StreamReader(url, redis, str(uuid.uuid4()))
        self._tails: dict[str, Tail] = {}
        self._opening = asyncio.Lock()

    @property
    def watched(self) -> int:
        """How many runs have readers."""
        return len(self._tails)

    async def run(self) -> None:
        """Read for all tails until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reader.run())
            tasks.create_task(self._watch())

    async def _watch(self) -> None:
        """A blocking read says nothing when its stream is deleted: look, for all tails at once, whether they still are."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.pages.forget_old()
            read = [(tail, tail.newest) for tail in self._tails.values()]
            try:
                kept = await events.newest_ids(self.redis, [tail.run_id for tail, _ in read])
            except (RedisError, OSError, TimeoutError):
                continue
            for (tail, newest), newest_kept in zip(read, kept, strict=True):
                if newest > id_tuple(newest_kept or START):
                    log.error("tail.events_lost", run_id=tail.run_id, readers=tail.readers)
                    self._drop(tail)
                    self.pages.forget(tail.run_id)
                    tail.lose()

    def _drop(self, tail: Tail) -> None:
        if self._tails.get(tail.run_id) is tail:
            del self._tails[tail.run_id]
            self._reader.unfollow(keys.events(tail.run_id))

    async def open(self, run_id: str, start: str) -> Cursor:
        """Where to begin: '0' = the oldest kept, '$' = only new events, else after that id.

        Raises NotFound, InvalidRequest (not an id), StreamTrimmed (events after that id are gone already, or it is none of
        this run's: beyond its newest).
        """
        ended = (await runs.fields(self.redis, run_id)).get("status") in TERMINAL
        if start == "$":
            newest = await events.last(self.redis, run_id)
            # It may have ended since its status was read: nothing comes after a terminal event.
            return Cursor(newest.id, newest.seq, ended or newest.terminal) if newest else Cursor(START, None, ended)
        if start == "0":
            return Cursor(START, None, ended)
        wanted = id_tuple(start)
        earliest = await events.first(self.redis, run_id)
        if earliest and wanted < id_tuple(earliest.id) and earliest.seq > 1:
            raise trimmed(run_id, earliest)
        newest = await events.last(self.redis, run_id)
        if earliest and newest and wanted > id_tuple(newest.id):
            # Redis went back to an older state, or the id was made up: what comes next would not go on from there.
            raise ahead(run_id, newest, earliest)
        at = await events.at(self.redis, run_id, f"{wanted[0]}-{wanted[1]}")
        ended = ended or (at is not None and at.terminal)
        return Cursor(f"{wanted[0]}-{wanted[1]}", at.seq if at else None, ended)

    async def join(self, run_id: str) -> Tail:
        """The tail of this run, which stays until each reader has left; raises what Redis raises."""
        async with self._opening:
            tail = self._tails.get(run_id)
            if tail is None:
                newest = await events.last(self.redis, run_id)
                tail = self._tails[run_id] = Tail(run_id, newest)
                await self._reader.follow(keys.events(run_id), newest.id if newest else START, tail.deliver)
            tail.readers += 1
            return tail

    def leave(self, tail: Tail) -> None:
        """A reader went."""
        tail.readers -= 1
        if tail.readers == 0:
            self._drop(tail)

    def follow(self, run_id: str, cursor: Cursor) -> Reading:
        """The events after the cursor."""
        return Reading(self, run_id, cursor)
