"""Leases of a process: renewed in time, lost for good, and never a ground for an agent when it is unsure whose they are."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.store import keys, leases, runs
from cody.store.clients import connect
from harness.guard_clock import boottime_ns
from harness.leases import Lease, LeaseKeeper
from tests.proxy import Proxy

Eventually = Callable[..., Awaitable[None]]
TTL_MS = 6_000
"""A lease that is lost stays lost: longer than a machine stands still."""


@asynccontextmanager
async def kept(redis: Redis, through: Redis) -> AsyncIterator[Lease]:
    run_id, worker_id = str(uuid.uuid4()), str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    before_ns = boottime_ns()
    await leases.acquire(redis, run_id, worker_id=worker_id, host="h", ttl_ms=TTL_MS)
    keeper = LeaseKeeper(through, worker_id=worker_id, ttl_ms=TTL_MS)
    lease = Lease(run_id, TTL_MS, 0.1, before_ns)
    keeper.add(lease)
    keeping = asyncio.create_task(keeper.run())
    try:
        yield lease
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_renewal_that_is_not_answered_is_tried_again_while_the_lease_still_runs(
    redis: Redis, valkey_url: str, eventually: Eventually
) -> None:
    async with Proxy(valkey_url) as proxy:
        # Longer than the lease: waiting for this answer alone would lose it.
        through = connect(proxy.url, command_deadline_s=60)
        async with kept(redis, through) as lease:
            first = lease.renewed_ns
            await eventually(lambda: lease.renewed_ns > first)
            second = lease.renewed_ns
            proxy.drop_replies = 1
            await eventually(lambda: lease.renewed_ns > second and proxy.dropped == 1)
            proxy.stall()
            await eventually(lambda: not lease.is_fresh)
            # Requests still arrive: the lock would be renewed for ever, and nobody else could take the run.
            async with asyncio.timeout(20):
                await lease.settled()
            assert lease.lost

            async def is_free() -> bool:
                return not await redis.exists(keys.lock(lease.run_id))

            await eventually(is_free)
            proxy.flow()
        await through.aclose()


async def test_a_lost_lease_tells_who_waits_for_it(redis: Redis) -> None:
    told: list[bool] = []
    async with kept(redis, redis) as lease:
        lease.on_lost = lambda: told.append(True)
        await redis.delete(keys.lock(lease.run_id))
        lease.renewed_ns -= 10**12  # as after a long time without Redis
        async with asyncio.timeout(20):
            await lease.settled()
        assert (lease.lost, lease.is_fresh, told) == (True, False, [True])
