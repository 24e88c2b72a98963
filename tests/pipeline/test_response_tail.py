"""Many readers of one Response: Redis is read once for all of them, and each gets every event once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from cody.contracts.stream_events import ItemDelta, ItemStart, stream_event_json
from cody.errors import NotFound, StreamTrimmed
from cody.pipeline.publisher import Publication, Publisher
from cody.pipeline.response_tail import RING_BYTES, Position, ResponseTail
from cody.store import keys
from cody.store.response_events import ResponseEvents
from tests.conftest import Wait
from tests.pipeline.answering import stamped
from tests.pipeline.events import START
from tests.pipeline.publishing import done, message, opening

READERS = 40
Meanwhile = Callable[[], Awaitable[None]]


@asynccontextmanager
async def tailing(url: str, redis: Redis, *, ring_bytes: int = RING_BYTES) -> AsyncIterator[ResponseTail]:
    tail = ResponseTail.on(url, ResponseEvents(redis), ring_bytes=ring_bytes)
    task = asyncio.create_task(tail.run())
    try:
        yield tail
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def begun(redis: Redis) -> Publication:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(ItemStart(item_id="msg-1", item_type="message"))
    await publication.written()
    return publication


async def ids(
    tail: ResponseTail, response_id: str, position: Position, meanwhile: Meanwhile | None = None
) -> list[str]:
    """The events up to the end; `meanwhile` is done once, while this reader holds the first of them."""
    seen: list[str] = []
    async with asyncio.timeout(60), aclosing(tail.follow(response_id, position)) as batches:
        async for frames in batches:
            if not seen and meanwhile is not None:
                await meanwhile()
            seen += [frame.id for frame in frames]
    return seen


async def say_much(publication: Publication) -> None:
    """More than a small ring holds, and the end."""
    for number in range(60):
        publication.say(ItemDelta(item_id="msg-1", delta_content=f"{number} " * 10))
        await publication.written()
    publication.say(done(publication.response_id))
    await publication.written()


async def calls(redis: Redis, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def test_readers_cost_redis_no_reads_of_their_own(redis: Redis, valkey_url: str, eventually: Wait) -> None:
    publication = await begun(redis)
    response_id = publication.response_id
    async with tailing(valkey_url, redis) as tail:
        positions = [await tail.open(response_id, "0") for _ in range(READERS)]
        before = await calls(redis, "xrange")
        reading = [asyncio.create_task(ids(tail, response_id, position)) for position in positions]
        for number in range(30):
            publication.say(ItemDelta(item_id="msg-1", delta_content=f"{number} "))
            await publication.written()
        publication.say(done(response_id))
        await publication.written()
        seen = await asyncio.gather(*reading)
        assert await calls(redis, "xrange") == before
        await eventually(lambda: tail.count == 0, "nobody reads any more, nor does the tail")
    expected = [f"{number}-0" for number in range(1, 34)]
    assert seen == [expected] * READERS


async def test_a_reader_that_comes_late_gets_what_the_tail_has(redis: Redis, valkey_url: str) -> None:
    publication = await begun(redis)
    async with tailing(valkey_url, redis) as tail:
        first = asyncio.create_task(ids(tail, publication.response_id, await tail.open(publication.response_id, "0")))
        publication.say(*message("hello", id="msg-2"))
        await publication.written()
        late = await tail.open(publication.response_id, "2-0")
        newest = await tail.open(publication.response_id, "$")
        others = [asyncio.create_task(ids(tail, publication.response_id, position)) for position in (late, newest)]
        publication.say(done(publication.response_id))
        assert await first == [f"{number}-0" for number in range(1, 9)]
        assert await others[0] == [f"{number}-0" for number in range(3, 9)]
        assert (await others[1])[-1] == "8-0"
        ended = await tail.open(publication.response_id, "$")
        assert await ids(tail, publication.response_id, ended) == []


async def test_a_slow_reader_falls_back_to_redis_and_misses_nothing(redis: Redis, valkey_url: str) -> None:
    publication = await begun(redis)
    response_id = publication.response_id
    async with tailing(valkey_url, redis, ring_bytes=2_000) as tail:
        fast = asyncio.create_task(ids(tail, response_id, await tail.open(response_id, "0")))

        async def falls_behind() -> None:
            await say_much(publication)
            await fast

        slow = await ids(tail, response_id, await tail.open(response_id, "0"), falls_behind)
        assert slow == [f"{number}-0" for number in range(1, 64)]
        assert await fast == slow


async def test_events_that_are_trimmed_before_a_slow_reader_are_not_skipped(redis: Redis, valkey_url: str) -> None:
    publication = await begun(redis)
    response_id = publication.response_id
    async with tailing(valkey_url, redis, ring_bytes=2_000) as tail:
        fast = asyncio.create_task(ids(tail, response_id, await tail.open(response_id, "0")))

        async def is_overtaken() -> None:
            await say_much(publication)
            await fast
            await redis.xtrim(keys.response_events(response_id), minid="50-0", approximate=False)

        position = await tail.open(response_id, "0")
        with pytest.raises(StreamTrimmed) as trimmed:
            await ids(tail, response_id, position, is_overtaken)
        assert trimmed.value.details["earliestEventId"] == "50-0"
        with pytest.raises(StreamTrimmed):
            await tail.open(response_id, "3-0")


async def test_a_stream_that_redis_loses_ends_its_readers(redis: Redis, valkey_url: str) -> None:
    publication = await begun(redis)
    response_id = publication.response_id
    async with tailing(valkey_url, redis) as tail:

        async def is_wiped() -> None:
            await redis.delete(keys.response_events(response_id))

        position = await tail.open(response_id, "0")
        with pytest.raises(StreamTrimmed):
            await ids(tail, response_id, position, is_wiped)
        assert tail.count == 0
        with pytest.raises(NotFound):
            await tail.open(response_id, "0")


async def test_a_reader_that_leaves_and_one_that_comes_at_once(redis: Redis, valkey_url: str, eventually: Wait) -> None:
    """The answer to the blocking read that was begun for the first must not begin the second in the midst."""
    publication = await begun(redis)
    response_id = publication.response_id
    late = stamped([START, ItemDelta(item_id="msg-1", delta_content="late"), done(response_id)], START)
    async with tailing(valkey_url, redis) as tail:
        first = tail.follow(response_id, Position("0-0"))
        assert [frame.id for frame in await anext(first)] == ["1-0", "2-0"]

        async def is_blocked() -> bool:
            return int((await redis.info("clients"))["blocked_clients"]) == 1

        await eventually(is_blocked)
        with closing(SyncRedis.from_url(valkey_url)) as writer:
            # From here to the second reader the event loop gets no turn: the answer waits in its connection.
            await first.aclose()
            for number, event in enumerate(late[1:], start=3):
                writer.xadd(keys.response_events(response_id), {"event": stream_event_json(event)}, id=f"{number}-0")
        assert await ids(tail, response_id, Position("0-0")) == ["1-0", "2-0", "3-0", "4-0"]


async def test_what_is_no_event_is_passed_over(redis: Redis, valkey_url: str) -> None:
    publication = await begun(redis)
    response_id = publication.response_id
    await redis.xadd(keys.response_events(response_id), {"event": "no JSON"}, id="3-0")
    await redis.xadd(keys.response_events(response_id), {"event": '{"type":\n"response_done"}'}, id="4-0")
    async with tailing(valkey_url, redis) as tail:
        assert await ids(tail, response_id, await tail.open(response_id, "0")) == ["1-0", "2-0", "4-0"]
        [frame] = [frame async for frames in tail.follow(response_id, Position("2-0")) for frame in frames]
    assert frame.sse == b'id: 4-0\ndata: {"type":"response_done"}\n\n'
