"""A run has one owner: SET NX PX, renewed and released by its owner only, under a fence that only grows."""

from __future__ import annotations

import uuid

import pytest
from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.errors import NotFound
from cody.store import keys, leases, runs
from cody.store.leases import Claim, Ended, Held


async def new_run(redis: Redis) -> str:
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1_000)
    return run_id


async def take(redis: Redis, run_id: str, worker_id: str, ttl_ms: int = 60_000) -> Claim | Held | Ended:
    return await leases.acquire(redis, run_id, worker_id=worker_id, host="h", ttl_ms=ttl_ms)


async def test_the_second_is_told_who_holds_it(redis: Redis) -> None:
    run_id, first, second = await new_run(redis), str(uuid.uuid4()), str(uuid.uuid4())
    assert await take(redis, run_id, first) == Claim(1, None)
    assert await take(redis, run_id, second) == Held(first)
    assert await take(redis, run_id, first) == Held(first)
    assert (await runs.fields(redis, run_id))["fence"] == "1"


async def test_each_acquisition_has_a_higher_fence_and_knows_the_owner_before(redis: Redis) -> None:
    run_id, before = await new_run(redis), None
    for fence in (1, 2, 3):
        worker_id = str(uuid.uuid4())
        assert await take(redis, run_id, worker_id) == Claim(fence, before)
        assert await leases.release(redis, run_id, worker_id=worker_id)
        before = worker_id


async def test_it_expires_unless_it_is_renewed(redis: Redis, eventually) -> None:  # type: ignore[no-untyped-def]
    kept, left, worker_id = await new_run(redis), await new_run(redis), str(uuid.uuid4())
    await take(redis, kept, worker_id)
    await take(redis, left, worker_id, ttl_ms=400)
    assert await leases.renew(redis, [kept], worker_id=worker_id, ttl_ms=600_000) == []

    async def is_left() -> bool:
        return not await redis.exists(keys.lock(left))

    await eventually(is_left)
    assert await redis.pttl(keys.lock(kept)) > 60_000, "it would have been over with the first lease"


async def test_only_the_owner_renews_and_releases(redis: Redis) -> None:
    mine, other = await new_run(redis), await new_run(redis)
    me, you = str(uuid.uuid4()), str(uuid.uuid4())
    await take(redis, mine, me)
    await take(redis, other, you)
    assert await leases.renew(redis, [mine, other], worker_id=me, ttl_ms=600_000) == [other]
    assert await redis.pttl(keys.lock(mine)) > 60_000
    assert await redis.pttl(keys.lock(other)) <= 60_000
    assert not await leases.release(redis, other, worker_id=me)
    assert await take(redis, other, me) == Held(you)


async def test_a_run_that_has_ended_is_not_taken(redis: Redis) -> None:
    run_id = await new_run(redis)
    await redis.hset(keys.meta(run_id), "status", "failed")
    assert await take(redis, run_id, str(uuid.uuid4())) == Ended("failed")
    assert not await redis.exists(keys.lock(run_id))
    for key in keys.of_run(run_id):
        await redis.expire(key, 60)


async def test_there_is_nothing_to_take_where_there_is_no_run(redis: Redis) -> None:
    with pytest.raises(NotFound):
        await take(redis, str(uuid.uuid4()), str(uuid.uuid4()))


async def test_who_works_on_what_is_known(redis: Redis) -> None:
    me, you = sorted(str(uuid.uuid4()) for _ in range(2))
    mine, other, nobodys = [await new_run(redis) for _ in range(3)]
    await take(redis, mine, me, ttl_ms=60_000)
    await take(redis, other, you, ttl_ms=60_000)
    found = await leases.owners(redis, ttl_ms=60_000)
    assert [(one.worker_id, one.host, one.run_ids) for one in found] == [(me, "h", (mine,)), (you, "h", (other,))]
    assert all(0 <= one.lease_age_ms < 30_000 for one in found)
    assert nobodys not in {run_id for one in found for run_id in one.run_ids}
