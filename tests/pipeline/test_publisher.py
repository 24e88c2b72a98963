"""Events of Responses on their way into Redis: in order, once, while Redis comes and goes, and ended by someone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from cody.contracts.stream_events import Heartbeat, StreamEvent, read_stream_event
from cody.pipeline import publisher as publishing
from cody.pipeline.publisher import MAX_WAITING_BYTES, PUBLISHER_LOST, Publication, Publisher, Reaper
from cody.redaction import Redactor, Secret
from cody.store import keys
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.response_events import GROUP, Ending, Letter, Published, ResponseEvents, Taken
from cody.store.server_binary import find_server_binary
from tests.conftest import Wait
from tests.pipeline.publishing import done, message, opening

LEASE_MS = 60_000


async def events(redis: Redis, response_id: str) -> list[StreamEvent]:
    found = await ResponseEvents(redis).read(response_id, count=100_000)
    assert [int(one.id.split("-")[0]) for one in found] == list(range(1, len(found) + 1))
    return [read_stream_event(one.event) for one in found]


async def publish(store: ResponseEvents, response_id: str, first: int, count: int, *, ends: bool = False) -> Published:
    return await store.publish(
        response_id,
        [b"{}"] * count,
        publisher="me",
        lease_ms=LEASE_MS,
        first=first,
        ends=ends,
        thread_id="thread-1" if first == 1 else None,
    )


async def test_what_is_said_is_written_in_order(redis: Redis) -> None:
    publisher = Publisher(ResponseEvents(redis))
    publication = publisher.begin(opening())
    for number in range(1_200):
        publication.say(*message(f"text {number}", id=f"m{number}"))
        if number % 100 == 0:
            await asyncio.sleep(0)
    publication.say(done(publication.response_id), Heartbeat())
    await publication.written()
    found = await events(redis, publication.response_id)
    assert [event.type for event in found] == [
        "response_start",
        *["item_start", "item_delta", "item_delta", "item_delta", "item_done"] * 1_200,
        "response_done",
    ]
    assert len({event.event_id for event in found}) == len(found)
    assert len({event.trace_context.traceparent for event in found}) == 1
    assert publisher.count == 0
    assert await redis.exists(keys.response_publisher(publication.response_id)) == 0


async def test_the_group_is_there_before_the_first_reader_and_nothing_is_missed(redis: Redis) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    await publication.written()
    groups = await redis.xinfo_groups(keys.response_events(publication.response_id))
    assert [(one["name"], one["last-delivered-id"], one["lag"]) for one in groups] == [(GROUP.encode(), b"0-0", 1)]


async def test_a_repeated_write_adds_nothing(redis: Redis) -> None:
    store, response_id = ResponseEvents(redis), opening().response_id
    assert await publish(store, response_id, 1, 3) is Published.OK
    assert await publish(store, response_id, 1, 3) is Published.DUPLICATE
    assert await publish(store, response_id, 2, 3) is Published.OK
    assert len(await store.read(response_id, count=10)) == 4
    assert await publish(store, response_id, 5, 1, ends=True) is Published.OK
    assert await publish(store, response_id, 5, 1, ends=True) is Published.DUPLICATE
    assert await publish(store, response_id, 6, 1) is Published.ENDED


async def test_nothing_is_trimmed_that_was_not_acknowledged(redis: Redis) -> None:
    store, response_id = ResponseEvents(redis), opening().response_id

    async def take(count: int) -> list[str]:
        taken = await store.take(response_id, projector="p", lease_ms=LEASE_MS, count=count)
        assert isinstance(taken, Taken)
        return [entry.id for entry in taken.entries]

    async def oldest() -> int:
        return int((await store.read(response_id, count=1))[0].id.split("-")[0])

    for first in range(1, 5_001, 500):
        await publish(store, response_id, first, 500)
    assert await redis.xlen(keys.response_events(response_id)) == 5_000
    ids = await take(300)
    await store.ack(response_id, ids[:200], projector="p", release=False, ended=False, kept=100)
    assert await oldest() <= 201, "201 to 300 are given out and not acknowledged"
    await store.ack(response_id, ids[200:], projector="p", release=False, ended=False, kept=100)
    assert 1 < await oldest() <= 301, "301 and later were given to nobody"
    ids = await take(10_000)
    assert ids[0] == "301-0"
    await store.ack(response_id, ids, projector="p", release=True, ended=False, kept=1_000)
    assert 1_000 <= await redis.xlen(keys.response_events(response_id)) <= 1_200
    assert (await store.read(response_id, count=5_000))[-1].id == "5000-0"
    assert await redis.ttl(keys.response_events(response_id)) == -1
    await store.ack(response_id, [], projector="p", release=True, ended=True)
    assert await redis.ttl(keys.response_events(response_id)) > 0


async def test_events_are_given_to_one_projector_and_those_of_a_dead_one_first(redis: Redis) -> None:
    store, response_id = ResponseEvents(redis), opening().response_id
    await publish(store, response_id, 1, 10)
    first = await store.take(response_id, projector="dies", lease_ms=LEASE_MS, count=4)
    assert isinstance(first, Taken)
    assert not isinstance(await store.take(response_id, projector="heir", lease_ms=LEASE_MS, count=4), Taken)
    await redis.delete(keys.response_projector(response_id))  # as when the lease of a dead one runs out
    heir = await store.take(response_id, projector="heir", lease_ms=LEASE_MS, count=100)
    assert isinstance(heir, Taken)
    assert [entry.id for entry in heir.entries] == [f"{number}-0" for number in range(1, 11)]


async def test_a_refused_event_is_parked_once(redis: Redis) -> None:
    store, response_id = ResponseEvents(redis), opening().response_id
    await publish(store, response_id, 1, 2)
    taken = await store.take(response_id, projector="p", lease_ms=LEASE_MS, count=10)
    assert isinstance(taken, Taken)
    letters = [Letter(taken.entries[1], "unknown_item", "why")]
    for _ in range(2):
        ids = [entry.id for entry in taken.entries]
        await store.ack(response_id, ids, projector="p", letters=letters, release=True, ended=False)
    assert await redis.xlen(keys.DEAD_LETTERS) == 1


async def test_events_wait_while_redis_is_away(tmp_path: Path, eventually: Wait) -> None:
    server = EmbeddedServer(find_server_binary(None), tmp_path, appendfsync="always")
    await server.start()
    redis = connect(server.url)
    try:
        publisher = Publisher(ResponseEvents(redis))
        publication = publisher.begin(opening())
        await publication.written()
        await server.stop()
        publication.say(*message("said while Redis is away"))
        publication.say(done(publication.response_id))
        assert not publication.taken_away.is_set()
        await server.start()
        await publication.written()
        assert [event.type for event in await events(redis, publication.response_id)][-1] == "response_done"
    finally:
        await redis.aclose()
        await server.stop()


async def test_an_answer_that_says_more_than_can_wait_ends_as_an_error(tmp_path: Path) -> None:
    server = EmbeddedServer(find_server_binary(None), tmp_path, appendfsync="always")
    await server.start()
    redis = connect(server.url)
    try:
        publication = Publisher(ResponseEvents(redis)).begin(opening())
        await publication.written()
        await server.stop()
        size = 1 << 20
        for number in range(MAX_WAITING_BYTES // size + 2):
            publication.say(*message("x" * size, id=f"m{number}", pieces=1))
        assert publication.ended
        await server.start()
        await publication.written()
        last = (await events(redis, publication.response_id))[-1]
        assert last.type == "response_error"
        assert last.payload.error.code == publishing.EVENTS_LOST
    finally:
        await redis.aclose()
        await server.stop()


async def test_an_answer_without_a_publisher_is_ended(redis: Redis) -> None:
    store = ResponseEvents(redis)
    lives, died = Publisher(store), Publisher(store)
    alive, orphan = lives.begin(opening()), died.begin(opening())
    await asyncio.gather(alive.written(), orphan.written())
    reaper = Reaper(store)
    assert await reaper.look() == []
    await redis.delete(keys.response_publisher(orphan.response_id))  # as when the lease of a dead one runs out
    assert await reaper.look() == [], "its owner may need a moment after an outage"
    assert await reaper.look() == [orphan.response_id]
    assert await reaper.look() == []
    last = (await events(redis, orphan.response_id))[-1]
    assert last.type == "response_error"
    assert last.payload.error.code == PUBLISHER_LOST
    orphan.say(*message("a thawed publisher goes on"))
    await orphan.written()
    assert orphan.taken_away.is_set()
    assert (await events(redis, orphan.response_id))[-1] == last


class AbortedMeanwhile(ResponseEvents):
    """The store of a publication that is taken away while its events are on their way."""

    publication: Publication | None = None

    async def publish(self, *args: Any, **options: Any) -> Published:
        answer = await super().publish(*args, **options)
        if self.publication is not None:
            self.publication.take_away("aborted by the user")
        return answer


async def test_an_answer_may_be_taken_away_while_it_is_written(redis: Redis) -> None:
    store = AbortedMeanwhile(redis)
    publisher = Publisher(store)
    publication = publisher.begin(opening())
    await publication.written()
    store.publication = publication
    publication.say(*message("on its way"))
    await publication.written()
    assert publication.taken_away.is_set()
    assert publisher.count == 0
    publication.say(*message("too late"))
    await publication.written()
    assert len(await events(redis, publication.response_id)) == 6
    await store.end(publication.response_id, b"{}", only_if_abandoned=False)


async def test_a_lease_that_ran_out_while_redis_was_away_is_taken_again(redis: Redis) -> None:
    store = ResponseEvents(redis)
    publisher = Publisher(store)
    publication = publisher.begin(opening())
    await publication.written()
    lease = keys.response_publisher(publication.response_id)
    await redis.delete(lease)
    assert await store.renew([publication.response_id], publisher=publisher.id, lease_ms=LEASE_MS) == []
    assert await redis.get(lease) == publisher.id.encode()
    assert await store.end(publication.response_id, b"{}", only_if_abandoned=True) is Ending.HELD
    await redis.set(lease, "another", px=LEASE_MS)
    assert await store.renew([publication.response_id], publisher=publisher.id, lease_ms=LEASE_MS) == [
        publication.response_id
    ]
    publication.say(Heartbeat())
    await publication.written()
    assert publication.taken_away.is_set()


async def test_a_publisher_that_lives_keeps_its_lease(redis: Redis, eventually: Wait) -> None:
    publisher = Publisher(ResponseEvents(redis), lease_ms=300)
    publication = publisher.begin(opening())
    await publication.written()
    renewing = asyncio.create_task(publisher.run())
    lease = keys.response_publisher(publication.response_id)
    try:
        await redis.pexpire(lease, 150)

        async def is_renewed() -> bool:
            return int(await redis.pttl(lease)) > 200

        await eventually(is_renewed, "the lease is renewed")
        await redis.set(lease, "another", px=LEASE_MS)
        await eventually(publication.taken_away.is_set, "the publisher learns that it was taken away")
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def test_secrets_of_the_process_are_in_no_event(redis: Redis) -> None:
    publisher = Publisher(ResponseEvents(redis), redactor=Redactor([Secret("API_KEY", "sk-very-secret")]))
    publication = publisher.begin(opening())
    publication.say(*message("the key is sk-very-secret, keep it", pieces=1))
    await publication.written()
    found = await ResponseEvents(redis).read(publication.response_id, count=10)
    assert not any(b"very-secret" in one.event for one in found)
    assert sum(b"[redacted:API_KEY]" in one.event for one in found) == 2
