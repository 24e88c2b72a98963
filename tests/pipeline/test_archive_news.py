"""The archive's news: each goes to one reader, none is lost with a reader, and the stream stays short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from cody.store import keys
from cody.store.archive_news import GROUP, ArchiveNews
from cody.store.archive_source import expire_run
from cody.store.scripts import Argument, script
from tests.pipeline.live_runs import live_run, warning


@pytest.fixture
async def news(valkey_url: str, redis: Redis) -> AsyncIterator[ArchiveNews]:
    opened = ArchiveNews(valkey_url, redis)
    yield opened
    await opened.aclose()


async def test_every_commit_leaves_a_notification(redis: Redis, news: ArchiveNews) -> None:
    run = await live_run(redis)
    await run.emit(warning(1), warning(2))
    await run.emit(meta={"pid": 7})
    found = await news.read("one", count=10, block_ms=50)
    assert [(one.run_id, one.seq) for one in found] == [(run.run_id, 1), (run.run_id, 3), (run.run_id, 3)]


async def test_readers_that_come_first_at_once_share_one_group(
    valkey_url: str, redis: Redis, news: ArchiveNews
) -> None:
    others = [ArchiveNews(valkey_url, redis) for _ in range(5)]
    run = await live_run(redis)
    found = await asyncio.gather(*(one.read(f"r{n}", count=1, block_ms=50) for n, one in enumerate([news, *others])))
    assert sorted(len(one) for one in found) == [0, 0, 0, 0, 0, 1]
    await run.emit(warning(1))
    again = await asyncio.gather(*(one.read(f"r{n}", count=9, block_ms=50) for n, one in enumerate([news, *others])))
    assert sum(len(one) for one in again) == 1
    for one in others:
        await one.aclose()


async def test_a_group_made_before_the_first_commit_gets_it(redis: Redis, news: ArchiveNews) -> None:
    assert await news.read("one", count=1, block_ms=1) == []
    run = await live_run(redis)
    assert [one.run_id for one in await news.read("one", count=1, block_ms=50)] == [run.run_id]


async def test_a_read_that_waits_is_woken_by_a_commit(redis: Redis, news: ArchiveNews) -> None:
    reading = asyncio.create_task(news.read("one", count=1, block_ms=20_000))
    run = await live_run(redis)
    assert [one.run_id for one in await reading] == [run.run_id]


async def test_what_was_not_acknowledged_is_claimed_and_what_was_is_gone(redis: Redis, news: ArchiveNews) -> None:
    run = await live_run(redis)
    await run.emit(warning(1))
    first, second = await news.read("dead", count=10, block_ms=50)
    await news.ack([first.id])
    assert await news.claim_stale("living", min_idle_ms=60_000) == []
    assert await news.claim_stale("living", min_idle_ms=0) == [second]
    await news.ack([second.id])
    assert await news.claim_stale("other", min_idle_ms=0) == []
    assert await redis.xlen(keys.ARCHIVE_NEWS) == 0


async def test_a_cancelled_read_loses_nothing(redis: Redis, news: ArchiveNews) -> None:
    reading = asyncio.create_task(news.read("one", count=1, block_ms=20_000))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    run = await live_run(redis)
    found = await news.read("one", count=1, block_ms=50) + await news.claim_stale("one", min_idle_ms=0)
    assert {one.run_id for one in found} == {run.run_id}


async def test_consumers_that_went_are_forgotten_unless_they_hold_something(redis: Redis, news: ArchiveNews) -> None:
    await live_run(redis)
    await news.read("holds", count=10, block_ms=50)
    await news.read("went", count=10, block_ms=1)
    await news.claim_stale("living", min_idle_ms=60_000, forget_after_ms=-1)
    names = {one["name"] for one in await redis.xinfo_consumers(keys.ARCHIVE_NEWS, GROUP)}
    assert b"holds" in names
    assert b"went" not in names


async def test_the_stream_is_bounded(redis: Redis) -> None:
    run = await live_run(redis)
    own = [keys.meta(run.run_id), keys.events(run.run_id), keys.turns(run.run_id), keys.ACTIVE, keys.QUEUED]
    for _ in range(500):
        arguments: list[Argument] = [run.fence, 2, 0, 0, "", "", "", 100, run.run_id, "", 10]
        answer = await script("commit")(redis, [*own, keys.ARCHIVE_NEWS], arguments)
        assert answer[0] == b"ok"
    assert await redis.xlen(keys.ARCHIVE_NEWS) <= 200


async def test_a_stream_that_can_not_be_written_stops_no_run(redis: Redis) -> None:
    run = await live_run(redis)
    await redis.delete(keys.ARCHIVE_NEWS)
    await redis.set(keys.ARCHIVE_NEWS, "in the way")
    await run.emit(warning(1))
    await live_run(redis)
    await redis.delete(keys.ARCHIVE_NEWS)


async def test_only_an_ended_run_that_is_archived_whole_expires(redis: Redis) -> None:
    run = await live_run(redis)
    assert not await expire_run(redis, run.run_id, ttl_s=60, last_seq=1)
    await run.complete()
    assert not await expire_run(redis, run.run_id, ttl_s=60, last_seq=1)
    assert await redis.ttl(keys.meta(run.run_id)) == -1
    assert await expire_run(redis, run.run_id, ttl_s=60, last_seq=2)
    assert await expire_run(redis, run.run_id, ttl_s=9_000, last_seq=2)
    for key in (keys.meta(run.run_id), keys.events(run.run_id)):
        assert 0 < await redis.ttl(key) <= 60
    assert not await expire_run(redis, "gone", ttl_s=60, last_seq=2)


async def test_a_longer_ttl_that_was_set_at_the_end_is_shortened(redis: Redis) -> None:
    run = await live_run(redis)
    await run.complete(end_ttl_s=9_000)
    assert await redis.ttl(keys.meta(run.run_id)) > 60
    assert await expire_run(redis, run.run_id, ttl_s=60, last_seq=2)
    assert await redis.ttl(keys.meta(run.run_id)) <= 60
