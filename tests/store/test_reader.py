"""One blocking read for many streams: each entry once, new streams at once, nothing lost over a lost connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from cody.store.reader import BLOCK_MS, Entry, StreamReader

Eventually = Callable[..., Awaitable[None]]

READ_AT_ONCE_S = BLOCK_MS / 1000 * 0.75
"""Less than the time of one blocking read, with room for a machine that is slow."""


class Seen:
    def __init__(self) -> None:
        self.values: list[int] = []

    def deliver(self, entries: Sequence[Entry]) -> None:
        self.values += [int(fields[1]) for _, fields in entries]


@asynccontextmanager
async def reading(url: str, redis: Redis) -> AsyncIterator[StreamReader]:
    reader = StreamReader(url, redis, str(uuid.uuid4()))
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def key() -> str:
    return f"codi:api:run:{uuid.uuid4()}:ctl"


async def test_entries_of_many_streams_arrive_once_and_in_order(
    valkey_url: str, redis: Redis, eventually: Eventually
) -> None:
    names, seen = [key() for _ in range(5)], [Seen() for _ in range(5)]
    async with reading(valkey_url, redis) as reader:
        for name, one in zip(names, seen, strict=True):
            await reader.follow(name, "0-0", one.deliver)
        for number in range(200):
            await redis.xadd(names[number % 5], {"n": number})
        await eventually(lambda: sum(len(one.values) for one in seen) >= 200)
    assert [one.values for one in seen] == [list(range(start, 200, 5)) for start in range(5)]


async def test_a_stream_that_is_added_while_it_blocks_is_read_at_once(
    valkey_url: str, redis: Redis, eventually: Eventually
) -> None:
    quiet, late, seen = key(), key(), Seen()
    async with reading(valkey_url, redis) as reader:
        await reader.follow(quiet, "0-0", Seen().deliver)
        await eventually(lambda: reader.connected)
        await redis.xadd(late, {"n": 1})
        await reader.follow(late, "0-0", seen.deliver)
        await eventually(lambda: seen.values == [1], deadline_s=READ_AT_ONCE_S)


async def test_a_stream_that_is_no_longer_followed_is_silent(
    valkey_url: str, redis: Redis, eventually: Eventually
) -> None:
    left, kept = key(), key()
    gone, seen = Seen(), Seen()
    async with reading(valkey_url, redis) as reader:
        await reader.follow(left, "0-0", gone.deliver)
        await reader.follow(kept, "0-0", seen.deliver)
        reader.unfollow(left)
        await redis.xadd(left, {"n": 1})
        await redis.xadd(kept, {"n": 2})
        await eventually(lambda: seen.values == [2])
    assert gone.values == []


async def test_a_key_of_another_type_is_left_and_told_and_the_others_are_read(
    valkey_url: str, redis: Redis, eventually: Eventually
) -> None:
    harmed, well, seen, broken = key(), key(), Seen(), list[str]()
    reader = StreamReader(valkey_url, redis, str(uuid.uuid4()), broken.append)
    task = asyncio.create_task(reader.run())
    try:
        await redis.rpush(harmed, "not a stream")
        await reader.follow(harmed, "0-0", Seen().deliver)
        await reader.follow(well, "0-0", seen.deliver)
        for number in range(3):
            await redis.xadd(well, {"n": number})
        await eventually(lambda: seen.values == [0, 1, 2])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await redis.delete(harmed)
    assert broken == [harmed]


async def test_killed_connections_lose_and_repeat_nothing(
    valkey_url: str, redis: Redis, eventually: Eventually
) -> None:
    name, seen = key(), Seen()
    async with reading(valkey_url, redis) as reader:
        await reader.follow(name, "0-0", seen.deliver)
        for number in range(60):
            await redis.xadd(name, {"n": number})
            if number % 10 == 5:
                await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
        await eventually(lambda: len(seen.values) >= 60)
    assert seen.values == list(range(60))


async def test_a_stream_that_comes_after_the_last_one_left_is_read_at_once(
    valkey_url: str, redis: Redis, eventually: Eventually
) -> None:
    # The read that was begun for the first stream is still blocked when the second one comes.
    first, second, seen = key(), key(), Seen()
    async with reading(valkey_url, redis) as reader:
        await reader.follow(first, "0-0", Seen().deliver)
        await eventually(lambda: reader.connected)
        reader.unfollow(first)
        await redis.xadd(second, {"n": 1})
        await reader.follow(second, "0-0", seen.deliver)
        await eventually(lambda: seen.values == [1], deadline_s=READ_AT_ONCE_S)
