"""Who watches a run right now: a sorted set of clients with the time they expire at."""

from __future__ import annotations

from redis.asyncio import Redis

from cody.store import keys


async def touch(redis: Redis, run_id: str, client_id: str, *, now_ms: int, ttl_ms: int) -> None:
    """The client is there for another `ttl_ms`; those who went without a word are forgotten."""
    key = keys.subscribers(run_id)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zadd(key, {client_id: now_ms + ttl_ms})
        pipe.zremrangebyscore(key, "-inf", now_ms)
        pipe.pexpire(key, ttl_ms * 2)
        await pipe.execute()


async def remove(redis: Redis, run_id: str, client_id: str) -> None:
    """The client went."""
    await redis.zrem(keys.subscribers(run_id), client_id)
