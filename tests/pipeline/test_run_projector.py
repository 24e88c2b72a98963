"""The archive equals Redis: under doubled, late and lost notifications, restarts, and two projectors at once."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

from redis.asyncio import Redis

from cody.contracts.run_events import Custom, RunCompleted
from cody.pipeline.archive import Archive, EventRow, RunBatch
from cody.pipeline.projecting import Pace
from cody.pipeline.run_projector import BATCH_BYTES, RunProjector
from cody.store import control, keys, runs
from cody.store.archive_news import GROUP, ArchiveNews, Lag
from cody.wall_clock import now_text
from harness.journal import Journal
from harness.spool import Spool
from harness.stream_bound import StreamBound
from tests.conftest import Wait
from tests.pipeline.live_runs import (
    all_frames,
    assert_equal,
    is_archived,
    live_run,
    printed,
    projector,
    running,
    until_still,
    warning,
)


async def test_a_run_is_archived_whole_while_it_goes_on(
    redis: Redis, archive: Archive, projecting: RunProjector, eventually: Wait
) -> None:
    run = await live_run(redis)
    async with running(projecting):
        await run.emit(warning(1), meta={"status": "running", "startedAt": now_text(), "pid": 77})
        await run.turn(1)
        await eventually(lambda: is_archived(redis, archive, run.run_id))

        async def turn_is_archived() -> bool:
            return [turn.status for turn in await archive.turn_records(run.run_id)] == ["running"]

        # Of the same millisecond as the event before it, it does not show in the run's own row.
        await eventually(turn_is_archived)
        await run.turn(1, "completed", exit_code=0, last_message="done\0 ü")
        await run.turn(2, "failed")
        await run.emit_many(2_500)
        await run.emit(meta={"stats.turns": 2, "stats.tokens": 12, "pid": ""})
        await run.complete()
        await eventually(lambda: is_archived(redis, archive, run.run_id))
        await assert_equal(redis, archive, run.run_id)
    assert (await archive.snapshot(run.run_id)).status == "completed"
    assert [turn.status for turn in await archive.turn_records(run.run_id)] == ["completed", "failed"]


async def test_a_commit_without_events_is_archived_too(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await until_still(projecting)
    await run.emit(meta={"stats.tokens": 5})
    await until_still(projecting)
    assert (await archive.snapshot(run.run_id)).stats.tokens == 5


async def test_doubled_and_late_news_change_nothing(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await run.emit_many(20)
    await until_still(projecting)
    for seq in (21, 3, 3, 1, 15, 99):
        await redis.xadd(keys.ARCHIVE_NEWS, {"runId": run.run_id, "seq": seq})
    await until_still(projecting)
    await assert_equal(redis, archive, run.run_id)
    assert await projecting.halted() == []


async def test_two_projectors_write_every_event_once(
    valkey_url: str, redis: Redis, archive: Archive, projecting: RunProjector, eventually: Wait
) -> None:
    made = [await live_run(redis) for _ in range(3)]
    async with projector(valkey_url, redis, archive) as other, running(projecting, other):
        for _ in range(40):
            for run in made:
                await run.emit(warning(1), warning(2))
        for run in made:
            # Both are sent to the same run at once, again and again.
            await asyncio.gather(*(one.project(run.run_id) for one in (projecting, other) for _ in range(5)))
            run_id = run.run_id
            await eventually(lambda run_id=run_id: is_archived(redis, archive, run_id))
            await assert_equal(redis, archive, run_id)
    assert await projecting.halted() == []


async def test_a_batch_decided_on_an_old_cursor_is_refused(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    first = await archive.cursor(run.run_id)
    await until_still(projecting)
    second = await archive.cursor(run.run_id)
    await run.emit(warning(1))
    await until_still(projecting)
    forged = EventRow(second.last_seq + 1, "1-1", "warning", "now", None, "{}")
    for old in (first, second):
        assert not await archive.record(run.run_id, old, RunBatch(run=None, known_seq=9, events=[forged]))
    await assert_equal(redis, archive, run.run_id)


async def test_lost_news_are_found_by_the_sweep(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    silent, ended = await live_run(redis), await live_run(redis)
    await silent.emit_many(5)
    await ended.complete()
    await redis.delete(keys.ARCHIVE_NEWS)
    assert await projecting.sweep() == 2
    assert await projecting.sweep() == 0
    await silent.emit(warning(1))
    await redis.delete(keys.ARCHIVE_NEWS)
    assert await projecting.sweep() == 1
    for run in (silent, ended):
        await assert_equal(redis, archive, run.run_id)


async def test_the_sweep_takes_runs_that_redis_let_go_of_out_of_the_index(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    gone, kept = await live_run(redis), await live_run(redis)
    await gone.complete()
    await until_still(projecting)
    await redis.delete(*keys.of_run(gone.run_id))
    assert await projecting.sweep() == 0
    assert await redis.zrange(keys.INDEX, 0, -1) == [kept.run_id.encode()]
    assert (await archive.snapshot(gone.run_id)).status == "completed"


async def test_a_projector_sweeps_when_it_starts(
    redis: Redis, archive: Archive, projecting: RunProjector, eventually: Wait
) -> None:
    run = await live_run(redis)
    await redis.delete(keys.ARCHIVE_NEWS)
    async with running(projecting):
        await eventually(lambda: is_archived(redis, archive, run.run_id))


async def test_news_that_a_dead_projector_had_taken_are_claimed(
    valkey_url: str, redis: Redis, archive: Archive, eventually: Wait
) -> None:
    run = await live_run(redis)
    dead = ArchiveNews(valkey_url, redis)
    assert [news.run_id for news in await dead.read("dead", count=10, block_ms=50)] == [run.run_id]
    await dead.aclose()
    pace = Pace(gather_s=0.0, block_ms=20, claim_every_s=0.0, claim_idle_ms=0)
    async with projector(valkey_url, redis, archive, pace=pace) as living, running(living):

        async def all_acknowledged() -> bool:
            return (await living.lag()).pending == 0

        await eventually(all_acknowledged)
    await assert_equal(redis, archive, run.run_id)


async def test_a_wiped_redis_does_not_stop_the_projector(
    redis: Redis, archive: Archive, projecting: RunProjector, eventually: Wait
) -> None:
    before = await live_run(redis)
    async with running(projecting):
        await eventually(lambda: is_archived(redis, archive, before.run_id))
        await redis.flushdb()
        after = await live_run(redis)
        await eventually(lambda: is_archived(redis, archive, after.run_id))
    assert (await archive.snapshot(before.run_id)).run_id == before.run_id


async def test_the_ttl_of_an_ended_run_starts_when_the_archive_has_it(redis: Redis, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await run.turn(1, "completed")
    await control.request(redis, run.run_id, "cancel", reason=None, now=now_text())
    await run.complete(end_ttl_s=0)
    ended = [keys.meta(run.run_id), keys.events(run.run_id), keys.turns(run.run_id), keys.control(run.run_id)]
    assert [await redis.ttl(key) for key in ended] == [-1] * 4
    await until_still(projecting)
    assert all([0 < await redis.ttl(key) <= 1_000 for key in ended])


async def test_a_run_that_goes_on_gets_no_ttl(redis: Redis, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await until_still(projecting)
    assert await redis.ttl(keys.meta(run.run_id)) == -1


async def test_the_ttl_is_set_by_the_sweep_when_its_news_was_lost(redis: Redis, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await run.complete()
    await until_still(projecting)
    for key in (keys.meta(run.run_id), keys.events(run.run_id)):
        await redis.persist(key)
    assert await projecting.sweep() == 1
    assert await redis.ttl(keys.meta(run.run_id)) > 0


async def test_a_run_that_redis_let_go_of_is_read_from_the_archive(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit_many(3)
    await run.complete()
    await until_still(projecting)
    kept = await runs.snapshot(redis, run.run_id, now_ms=0)
    await redis.delete(*keys.of_run(run.run_id), keys.lock(run.run_id))
    await redis.xadd(keys.ARCHIVE_NEWS, {"runId": run.run_id, "seq": 5})
    await until_still(projecting)
    assert await archive.snapshot(run.run_id) == kept
    assert [frame.seq for frame in await all_frames(archive, run.run_id)] == [1, 2, 3, 4, 5]
    assert await projecting.halted() == []


async def test_a_long_backlog_does_not_hold_up_the_others(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    long = await live_run(redis)
    await long.emit_many(5_000)
    short = await live_run(redis)
    assert not await projecting.project(long.run_id)
    assert await projecting.project(short.run_id)
    assert (await archive.cursor(long.run_id)).last_seq < 5_001
    while not await projecting.project(long.run_id):
        pass
    await assert_equal(redis, archive, long.run_id)


async def test_a_flood_is_archived_whole_but_for_what_was_left_out_and_counted(
    redis: Redis, archive: Archive, projecting: RunProjector, tmp_path: Path
) -> None:
    await projecting.sweep()  # it is known that somebody archives
    async with running(projecting):
        run = await live_run(redis)
        spool = Spool(tmp_path / "spool")
        bound = StreamBound(stream_bytes=1)  # 1,000 events: a projector reads no more than 500 of them at once
        journal = Journal(redis, run.run_id, fence=run.fence, last_seq=run.last_seq, spool=spool, bound=bound)
        try:
            for number in range(20_000):
                journal.emit(Custom(name="x.y", data={"number": number}))
                if number % 500 == 0:
                    await asyncio.sleep(0)
            await journal.flush()
            assert await journal.transition("queued", "completed", [RunCompleted(source="stop_file")], end_ttl_s=0)
        finally:
            await journal.close()
    await until_still(projecting)
    assert await projecting.halted() == []
    assert (await archive.snapshot(run.run_id)).status == "completed"
    found = [json.loads(frame.data) for frame in await all_frames(archive, run.run_id)]
    assert [one["seq"] for one in found] == list(range(1, len(found) + 1))
    kept = [one["number"] for one in (event["data"] for event in found if event["type"] == "custom")]
    told = [int(one["message"].split()[0]) for one in found if one["type"] == "warning"]
    assert kept == sorted(set(kept))
    assert len(kept) + sum(told) == 20_000
    assert await redis.ttl(keys.meta(run.run_id)) > 0


async def test_batches_of_large_events_are_small(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis)
    for _ in range(15):
        await run.emit(*(printed("x" * 50_000) for _ in range(20)))
    reached = [(await archive.cursor(run.run_id)).last_seq]
    while not await projecting.project(run.run_id):
        reached.append((await archive.cursor(run.run_id)).last_seq)
    await assert_equal(redis, archive, run.run_id)
    # The first one can't know how large they are.
    sizes = [(after - before) * 50_000 for before, after in itertools.pairwise(reached[1:])]
    assert len(sizes) > 5
    assert max(sizes) <= BATCH_BYTES * 1.1


async def test_more_turns_than_fit_into_one_transaction(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    for number in range(1, 1_205):
        await run.turn(number, "completed")
    while not await projecting.project(run.run_id):
        pass
    await assert_equal(redis, archive, run.run_id)


async def test_the_lag_counts_what_is_not_archived(redis: Redis, projecting: RunProjector) -> None:
    assert await projecting.lag() == Lag(pending=0, oldest_ms=0)
    run = await live_run(redis)
    await run.emit(warning(1))
    assert (await projecting.lag()).pending == 2
    await until_still(projecting)
    assert await projecting.lag() == Lag(pending=0, oldest_ms=0)


async def test_news_that_no_cody_wrote_are_dropped(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await redis.xadd(keys.ARCHIVE_NEWS, {"x": "y"})
    await redis.xadd(keys.ARCHIVE_NEWS, {"runId": "a\0b", "seq": "1"})
    await redis.xadd(keys.ARCHIVE_NEWS, {"runId": run.run_id, "seq": "many"})
    await until_still(projecting)
    assert (await redis.xpending(keys.ARCHIVE_NEWS, GROUP))["pending"] == 0
    await assert_equal(redis, archive, run.run_id)
