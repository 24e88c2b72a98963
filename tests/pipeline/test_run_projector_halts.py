"""A gap, a Redis that went back in time, and entries nobody can read halt one run's projection, and only that one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from cody.pipeline.archive import Archive
from cody.pipeline.archive.engine import archive_url, make_engine
from cody.pipeline.run_projector import RunProjector
from cody.store import keys
from tests.pipeline.live_runs import (
    LiveRun,
    all_frames,
    assert_equal,
    live_run,
    redis_frames,
    until_still,
    warning,
)

Harm = Callable[[Redis, str], Awaitable[object]]


async def halted_reasons(projecting: RunProjector) -> dict[str, str]:
    return {one.run_id: one.reason for one in await projecting.halted()}


async def trim_all(redis: Redis, run_id: str) -> None:
    await redis.xtrim(keys.events(run_id), maxlen=0, approximate=False)


async def trim_some(redis: Redis, run_id: str) -> None:
    await redis.xtrim(keys.events(run_id), maxlen=2, approximate=False)


async def lose_a_middle_one(redis: Redis, run_id: str) -> None:
    await redis.xdel(keys.events(run_id), (await redis_frames(redis, run_id))[-3].id)


async def corrupt_an_entry(redis: Redis, run_id: str) -> None:
    await redis.xadd(keys.events(run_id), {"type": "warning"})


async def corrupt_the_meta(redis: Redis, run_id: str) -> None:
    await redis.hset(keys.meta(run_id), "stats.turns", "many")


async def corrupt_the_last_seq(redis: Redis, run_id: str) -> None:
    await redis.hset(keys.meta(run_id), "lastSeq", "x")


async def corrupt_a_turn(redis: Redis, run_id: str) -> None:
    await redis.hset(keys.turns(run_id), "1", '{"turn": 1}')
    await redis.hset(keys.meta(run_id), "currentTurn", "1")


async def put_a_huge_number(redis: Redis, run_id: str) -> None:
    await redis.hset(keys.meta(run_id), "currentTurn", str(10**30))


async def put_another_type(redis: Redis, run_id: str) -> None:
    await redis.delete(keys.events(run_id))
    await redis.set(keys.events(run_id), "text", ex=60)


async def put_another_type_for_the_meta(redis: Redis, run_id: str) -> None:
    await redis.delete(keys.meta(run_id))
    await redis.rpush(keys.meta(run_id), "not a hash")


async def take_the_status(redis: Redis, run_id: str) -> None:
    await redis.hdel(keys.meta(run_id), "status")


async def forget_the_run(redis: Redis, run_id: str) -> None:
    await redis.delete(*keys.of_run(run_id))


HARMS: dict[Harm, str] = {
    trim_all: "a gap: events 3 to 8",
    trim_some: "a gap: event 3 is missing, Redis goes on with 7",
    lose_a_middle_one: "a gap: event 6 is missing",
    corrupt_an_entry: "can't be read: KeyError",
    corrupt_the_meta: "meta in Redis can't be read",
    corrupt_the_last_seq: "meta in Redis can't be read",
    corrupt_a_turn: "a turn record of the run can't be read",
    put_a_huge_number: "the database refuses it",
    put_another_type: "holds something that is not Cody's",
    put_another_type_for_the_meta: "holds something that is not Cody's",
    take_the_status: "meta in Redis can't be read",
    forget_the_run: "Redis lost the run: the archive ends at event 2",
}


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
async def test_what_can_not_be_archived_halts_that_run_and_no_other(
    redis: Redis, archive: Archive, projecting: RunProjector, harm: Harm
) -> None:
    harmed, well = await live_run(redis), await live_run(redis)
    await harmed.emit(warning(1))
    await until_still(projecting)
    await harmed.emit_many(6)
    await harm(redis, harmed.run_id)
    await well.emit_many(3)
    await until_still(projecting)
    reasons = await halted_reasons(projecting)
    assert list(reasons) == [harmed.run_id]
    assert HARMS[harm] in reasons[harmed.run_id]
    await assert_equal(redis, archive, well.run_id)
    frames = await all_frames(archive, harmed.run_id)
    assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
    # It stays halted, and says it once.
    await redis.xadd(keys.ARCHIVE_NEWS, {"runId": harmed.run_id, "seq": 9})
    await until_still(projecting)
    await projecting.sweep()
    assert await halted_reasons(projecting) == reasons
    assert await all_frames(archive, harmed.run_id) == frames
    await redis.delete(*keys.of_run(harmed.run_id))


async def test_meta_of_another_type_does_not_stop_the_sweep(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    harmed, well = await live_run(redis), await live_run(redis)
    await put_another_type_for_the_meta(redis, harmed.run_id)
    await redis.delete(keys.ARCHIVE_NEWS)
    try:
        assert await projecting.sweep() == 2
        assert list(await halted_reasons(projecting)) == [harmed.run_id]
        await assert_equal(redis, archive, well.run_id)
        assert await projecting.sweep() == 0
    finally:
        await redis.delete(*keys.of_run(harmed.run_id))


async def test_a_row_that_can_not_be_gone_on_with_stops_no_other_and_is_tried_again(
    redis: Redis, archive: Archive, projecting: RunProjector, database_url: str, tmp_path: Path
) -> None:
    harmed, well = await live_run(redis), await live_run(redis)
    await harmed.emit(warning(1))
    await until_still(projecting)
    place = (await archive.cursor(harmed.run_id)).last_event_id
    statement = text("UPDATE projections SET last_event_id = :place WHERE run_id = :run_id")
    engine = make_engine(archive_url(database_url, tmp_path), pooled=False)
    async with engine.begin() as connection:
        await connection.execute(statement, {"place": "no stream id", "run_id": harmed.run_id})
    await harmed.emit(warning(2))
    await well.emit_many(3)
    await until_still(projecting)
    await projecting.sweep()
    await assert_equal(redis, archive, well.run_id)
    assert await projecting.halted() == []
    assert [frame.seq for frame in await all_frames(archive, harmed.run_id)] == [1, 2]
    async with engine.begin() as connection:
        await connection.execute(statement, {"place": place, "run_id": harmed.run_id})
    assert await projecting.sweep() == 1
    await assert_equal(redis, archive, harmed.run_id)


async def test_a_run_that_was_never_archived_and_can_not_be_is_shown_as_halted(
    redis: Redis, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await corrupt_the_meta(redis, run.run_id)
    await until_still(projecting)
    assert list(await halted_reasons(projecting)) == [run.run_id]


async def restore(redis: Redis, run: LiveRun, to_seq: int) -> None:
    """What Redis is like after a restore from a backup in which the run ended at `to_seq`."""
    frames = await redis_frames(redis, run.run_id)
    await redis.xdel(keys.events(run.run_id), *(frame.id for frame in frames[to_seq:]))
    await redis.hset(keys.meta(run.run_id), "lastSeq", str(to_seq))
    run.last_seq = to_seq


async def test_a_redis_that_went_back_in_time_halts_the_run(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit_many(9)
    await until_still(projecting)
    before = await all_frames(archive, run.run_id)
    await restore(redis, run, 4)
    await run.emit(warning(50))
    await until_still(projecting)
    reason = (await halted_reasons(projecting))[run.run_id]
    assert "went back in time: it ends at event 5, the archive has 10" in reason
    assert await all_frames(archive, run.run_id) == before


async def test_a_redis_that_went_back_and_caught_up_is_still_found_out(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit_many(9)
    await until_still(projecting)
    before = await all_frames(archive, run.run_id)
    await restore(redis, run, 4)
    await run.emit_many(20)
    await until_still(projecting)
    assert "was rewritten: event 10" in (await halted_reasons(projecting))[run.run_id]
    assert await all_frames(archive, run.run_id) == before


async def test_how_a_halted_run_ended_is_still_told(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await run.emit_many(3)
    await trim_all(redis, run.run_id)
    await until_still(projecting)
    await run.turn(1, "failed")
    await run.complete()
    await until_still(projecting)
    assert (await archive.snapshot(run.run_id)).status == "completed"
    assert [turn.status for turn in await archive.turn_records(run.run_id)] == ["failed"]
    assert list(await halted_reasons(projecting)) == [run.run_id]
    # Redis alone has what the archive could not take, and lets none of it go.
    assert await redis.ttl(keys.meta(run.run_id)) == -1
    await redis.delete(*keys.of_run(run.run_id))


async def test_a_stream_trimmed_only_as_far_as_it_was_archived_is_no_gap(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit_many(5)
    await until_still(projecting)
    await run.emit_many(3)
    await redis.xtrim(keys.events(run.run_id), maxlen=3, approximate=False)
    await until_still(projecting)
    assert [frame.seq for frame in await all_frames(archive, run.run_id)] == list(range(1, 10))
    assert await projecting.halted() == []
