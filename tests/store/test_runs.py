"""Runs are recorded once, read whole, and listed page by page in a fixed number of round trips."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.contracts.run import RunStatus
from cody.contracts.run_config import RunConfig
from cody.errors import Conflict, InvalidRequest, NotFound
from cody.store import events, keys, leases, runs
from cody.store.meta import MetaCorrupt


async def record(redis: Redis, at_ms: int, *, epic_id: str = "e", status: RunStatus = "queued") -> str:
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id=epic_id, config=RunConfig(working_dir="/r", max_turns=4), now_ms=at_ms)
    if status != "queued":
        await redis.hset(keys.meta(run_id), "status", status)
    return run_id


async def all_pages(redis: Redis, limit: int, **wanted: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = await runs.page(redis, limit=limit, now_ms=0, cursor=cursor, **wanted)
        assert len(page.runs) <= limit
        found += [run.run_id for run in page.runs]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def calls(redis: Redis) -> int:
    info = await redis.info("stats")
    return int(info["total_reads_processed"])


async def test_a_new_run_is_queued_with_its_first_event(redis: Redis) -> None:
    run_id = await record(redis, 1_767_225_600_123)
    snapshot = await runs.snapshot(redis, run_id, now_ms=0)
    assert (snapshot.status, snapshot.created_at, snapshot.fence) == ("queued", "2026-01-01T00:00:00.123Z", 0)
    assert snapshot.config.max_turns == 4
    assert snapshot.stream_key == f"codi:api:run:{run_id}:events"
    first = await events.first(redis, run_id)
    assert first is not None
    assert (first.seq, b'"run_queued"' in first.data) == (1, True)


async def test_recording_it_again_changes_nothing(redis: Redis) -> None:
    run_id = await record(redis, 1_000, status="running")
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=2_000)
    assert (await runs.snapshot(redis, run_id, now_ms=0)).status == "running"
    assert await redis.xlen(keys.events(run_id)) == 1


async def test_an_unknown_run_is_not_found(redis: Redis) -> None:
    with pytest.raises(NotFound, match="cody runs"):
        await runs.snapshot(redis, str(uuid.uuid4()), now_ms=0)


async def test_pages_hold_every_run_once_newest_first_also_of_one_millisecond(redis: Redis) -> None:
    made = [await record(redis, 1_000 + number // 7) for number in range(30)]
    found = await all_pages(redis, 4)
    assert sorted(found) == sorted(made)
    assert [made.index(run_id) // 7 for run_id in found] == sorted((n // 7 for n in range(30)), reverse=True)


async def test_pages_by_status_and_epic(redis: Redis) -> None:
    wanted = [await record(redis, 1_000 + n, epic_id="a", status="running") for n in range(5)]
    for n in range(20):
        await record(redis, 1_001 + n, epic_id="b", status="running")
        await record(redis, 1_001 + n, epic_id="a")
    assert await all_pages(redis, 2, status="running", epic_id="a") == wanted[::-1]
    assert await all_pages(redis, 2, status="paused") == []


async def test_the_last_page_has_no_cursor(redis: Redis) -> None:
    for number in range(4):
        await record(redis, 1_000 + number)
    first = await runs.page(redis, limit=2, now_ms=0)
    assert first.next_cursor is not None
    assert (await runs.page(redis, limit=2, now_ms=0, cursor=first.next_cursor)).next_cursor is None
    assert (await runs.page(redis, limit=4, now_ms=0)).next_cursor is None


async def test_a_page_is_one_round_trip_however_many_runs_there_are(redis: Redis) -> None:
    costs = []
    for count in (3, 300):
        for number in range(count):
            await record(redis, 1_000 + number)
        await runs.page(redis, limit=20, now_ms=0)
        before = await calls(redis)
        await runs.page(redis, limit=20, now_ms=0)
        costs.append(await calls(redis) - before)
    assert costs[0] == costs[1] == 2  # one for the page, one for the INFO that counts


async def test_expired_runs_leave_the_listing(redis: Redis) -> None:
    gone, kept = await record(redis, 2_000), await record(redis, 1_000)
    await redis.delete(keys.meta(gone), keys.events(gone))
    assert await all_pages(redis, 10) == [kept]
    assert await redis.zcard(keys.INDEX) == 1


async def test_a_run_with_corrupt_meta_is_left_out_and_named_when_asked_for(redis: Redis) -> None:
    bad, good = await record(redis, 2_000), await record(redis, 1_000)
    await redis.hset(keys.meta(bad), "stats.turns", "many")
    assert await all_pages(redis, 10) == [good]
    with pytest.raises(MetaCorrupt, match=bad):
        await runs.snapshot(redis, bad, now_ms=0)


async def test_keys_of_another_type_leave_out_their_run_and_no_other(redis: Redis) -> None:
    made = [await record(redis, 1_000 + number) for number in range(5)]
    for key in (keys.meta(made[1]), keys.meta(made[4]), keys.subscribers(made[2])):
        await redis.delete(key)
        await redis.rpush(key, "not Cody's")
    try:
        assert await all_pages(redis, 2) == [made[3], made[2], made[0]]
        assert await all_pages(redis, 2, status="queued", epic_id="e") == [made[3], made[2], made[0]]
    finally:
        await redis.delete(keys.meta(made[1]), keys.meta(made[4]), keys.subscribers(made[2]))


@pytest.mark.parametrize("cursor", ["x", "!!!!", "AAAA", "MTp4eA==x", "é"])
async def test_a_cursor_that_no_listing_gave_is_refused(redis: Redis, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await runs.page(redis, limit=2, now_ms=0, cursor=cursor)


async def test_only_live_subscribers_are_counted(redis: Redis) -> None:
    run_id = await record(redis, 1_000)
    await redis.zadd(keys.subscribers(run_id), {"gone": 5_000, "here": 9_000})
    await redis.expire(keys.subscribers(run_id), 60)
    assert (await runs.snapshot(redis, run_id, now_ms=7_000)).subscribers == 1
    assert (await runs.page(redis, limit=5, now_ms=7_000)).runs[0].subscribers == 1


async def test_active_runs_without_an_owner_are_found(redis: Redis) -> None:
    made = [await record(redis, 2_000 + n) for n in range(4)]
    worker_id = str(uuid.uuid4())
    for run_id in made[:2]:
        await leases.acquire(redis, run_id, worker_id=worker_id, host="h", ttl_ms=60_000)
    await leases.release(redis, made[1], worker_id=worker_id)
    ended = await events.commit(redis, made[2], fence=0, first_seq=2, meta={"status": "failed"}, end_ttl_s=60)
    assert ended.answer is events.Answer.OK
    assert await runs.unowned(redis) == [runs.Unowned(made[1], 1), runs.Unowned(made[3], 0)]


async def test_a_queued_run_knows_its_place(redis: Redis) -> None:
    made = [await record(redis, 2_000 + n) for n in range(3)]
    assert [(await runs.snapshot(redis, run_id, now_ms=0)).queue_place for run_id in made] == [1, 2, 3]
    await events.commit(redis, made[0], fence=0, first_seq=2, meta={"status": "running"})
    assert [(await runs.snapshot(redis, run_id, now_ms=0)).queue_place for run_id in made] == [None, 1, 2]


async def test_a_repeated_request_with_the_same_key_is_the_same_run(redis: Redis) -> None:
    config = RunConfig(working_dir="/r")

    async def post(key: str, wanted: RunConfig = config) -> str:
        return await runs.create(
            redis, str(uuid.uuid4()), epic_id="e", config=wanted, now_ms=1_000, idempotency_key=key
        )

    answers = await asyncio.gather(*(post("k") for _ in range(100)))
    assert len(set(answers)) == 1
    assert await redis.zcard(keys.INDEX) == 1
    assert await post("other key") != answers[0]
    with pytest.raises(Conflict, match=answers[0]):
        await post("k", RunConfig(working_dir="/elsewhere"))


async def test_the_key_of_a_run_that_nobody_knows_any_more_is_free(redis: Redis) -> None:
    archived: set[str] = set()

    async def is_archived(run_id: str) -> bool:
        return run_id in archived

    async def post(folder: str = "/r") -> str:
        return await runs.create(
            redis,
            str(uuid.uuid4()),
            epic_id="e",
            config=RunConfig(working_dir=folder),
            now_ms=1_000,
            idempotency_key="k",
            is_archived=is_archived,
        )

    first = await post()
    assert await post() == first
    await redis.delete(*keys.of_run(first))
    archived.add(first)
    assert await post() == first
    with pytest.raises(Conflict, match=first):
        await post("/elsewhere")
    archived.clear()
    answers = await asyncio.gather(*(post() for _ in range(20)))
    assert len(set(answers)) == 1
    assert answers[0] != first
    assert (await runs.snapshot(redis, answers[0], now_ms=0)).status == "queued"
    with pytest.raises(Conflict, match=answers[0]):
        await post("/elsewhere")
