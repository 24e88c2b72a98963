"""Readers of one run in one process: they share what is read, and each gets every event once, however it takes them."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from cody.errors import StreamTrimmed
from cody.store import keys
from cody.store.events import last
from harness.tail import Reading, TailHub
from harness.tail_pages import FEW, MANY, PAGES_BYTES, Batch, Pages
from tests.server.cody_server import OwnedRun

Eventually = Callable[..., Awaitable[None]]


@asynccontextmanager
async def tails(url: str, redis: Redis) -> AsyncIterator[TailHub]:
    hub = TailHub(url, redis)
    running = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def outside_of_time(url: str, redis: Redis) -> TailHub:
    """Pages are kept, however long the test takes; nobody reads for its tails."""
    hub = TailHub(url, redis)
    hub.pages = Pages(redis, clock=lambda: 0.0)
    return hub


class Picky:
    """A reader that takes as much at a time as it pleases."""

    def __init__(self, reading: Reading, seed: int) -> None:
        self.seqs: list[int] = []
        self._reading = reading
        self._rng = random.Random(seed)

    def take(self, batch: Batch) -> int:
        count = len(batch.frames) if self._rng.random() < 0.7 else self._rng.randint(0, len(batch.frames))
        self.seqs += [frame.seq for frame in batch.frames[:count]]
        return count

    async def read(self) -> None:
        while (found := await self._reading.next(self.take)) is not None:
            batch, place = found
            until = self._rng.randint(place, len(batch.frames))
            self.seqs += [frame.seq for frame in batch.frames[place:until]]
            self._reading.sent(batch, place, until)
            await asyncio.sleep(0)
        await self._reading.aclose()


async def test_each_reader_gets_every_event_once_however_much_it_takes(redis: Redis, valkey_url: str) -> None:
    run = await OwnedRun.create(redis)
    await run.add(3 * MANY)
    async with tails(valkey_url, redis) as hub:
        readers = [Picky(hub.follow(run.run_id, await hub.open(run.run_id, "0")), seed) for seed in range(20)]
        tasks = [asyncio.create_task(one.read()) for one in readers]
        for _ in range(100):
            await run.add(7)
        await run.complete()
        await asyncio.gather(*tasks)
    for one in readers:
        assert one.seqs == list(range(1, run.last_seq + 1))


async def test_readers_that_come_together_are_read_for_once(redis: Redis, valkey_url: str) -> None:
    run = await OwnedRun.create(redis)
    await run.add(4 * MANY)
    await run.complete()
    async with tails(valkey_url, redis) as hub:
        readings = [hub.follow(run.run_id, await hub.open(run.run_id, "0")) for _ in range(50)]

        async def seqs(reading: Reading) -> list[int]:
            return [frame.seq async for batch in reading for frame in batch]

        for found in await asyncio.gather(*map(seqs, readings)):
            assert found == list(range(1, run.last_seq + 1))
        # A few each would be 50 times as many.
        assert hub.pages.reads < 50


async def test_a_reader_whose_place_is_in_the_midst_of_a_page_meets_the_others_in_the_next(
    redis: Redis, valkey_url: str
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(2 * FEW)
    hub = outside_of_time(valkey_url, redis)
    first = hub.follow(run.run_id, await hub.open(run.run_id, "0"))
    batch = await anext(first)
    assert [frame.seq for frame in batch] == list(range(1, FEW + 1))
    later = hub.follow(run.run_id, await hub.open(run.run_id, batch[29].id))
    assert [frame.seq for frame in await anext(later)] == list(range(31, FEW + 1))
    assert hub.pages.reads == 1
    for reading in (first, later):
        await reading.aclose()


async def test_pages_of_large_events_stay_within_their_bound(redis: Redis, valkey_url: str) -> None:
    run = await OwnedRun.create(redis)
    for _ in range(12):
        await run.add(50, text_bytes=40_000)
    hub = TailHub(valkey_url, redis)
    reading = hub.follow(run.run_id, await hub.open(run.run_id, "0"))
    seen = 0
    while seen < run.last_seq:
        batch = await anext(reading)
        assert len(batch) <= FEW
        seen += len(batch)
    assert sum(page.bytes for page in hub.pages._kept.values()) <= PAGES_BYTES
    await reading.aclose()


async def test_a_store_that_was_set_back_is_no_silence_for_those_at_the_tails_end(
    redis: Redis, valkey_url: str, eventually: Eventually
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(10)
    async with tails(valkey_url, redis) as hub:
        reader = Picky(hub.follow(run.run_id, await hub.open(run.run_id, "0")), 0)
        task = asyncio.create_task(reader.read())
        await eventually(lambda: reader.seqs[-1:] == [11])
        await redis.hset(keys.meta(run.run_id), "lastSeq", 5)
        run.last_seq = 5
        await run.add(1)
        with pytest.raises(StreamTrimmed):
            await task
    assert reader.seqs == list(range(1, 12))


async def test_the_last_reader_takes_the_tail_with_it(redis: Redis, valkey_url: str) -> None:
    run = await OwnedRun.create(redis)
    async with tails(valkey_url, redis) as hub:
        cursor = await hub.open(run.run_id, "0")
        first, second = hub.follow(run.run_id, cursor), hub.follow(run.run_id, await hub.open(run.run_id, "0"))
        await anext(first)
        await anext(second)
        await first.aclose()
        assert hub.watched == 1
        del second  # left without a word, as by `break` in `async for`
        assert hub.watched == 0
        with pytest.raises(Exception, match="no run"):
            await hub.open(str(uuid.uuid4()), "0")


async def test_who_asks_for_the_oldest_is_not_given_what_was_trimmed_a_moment_ago(
    redis: Redis, valkey_url: str
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(50)
    hub = outside_of_time(valkey_url, redis)
    for oldest in (1, 42):
        await redis.xtrim(keys.events(run.run_id), maxlen=52 - oldest, approximate=False)
        reading = hub.follow(run.run_id, await hub.open(run.run_id, "0"))
        assert (await anext(reading))[0].seq == oldest
        await reading.aclose()


@pytest.mark.parametrize("start", ["$", "the newest"])
async def test_a_run_that_ends_while_a_reader_comes_is_not_waited_for(
    redis: Redis, valkey_url: str, start: str
) -> None:
    run = await OwnedRun.create(redis)
    await run.complete()
    # As the reader finds it that asked for the status a moment before the end, and for the newest event a moment after.
    await redis.hset(keys.meta(run.run_id), "status", "running")
    async with tails(valkey_url, redis) as hub:
        newest = await last(redis, run.run_id)
        assert newest is not None
        cursor = await hub.open(run.run_id, start if start == "$" else newest.id)
        async with asyncio.timeout(20):
            assert [batch async for batch in hub.follow(run.run_id, cursor)] == []
