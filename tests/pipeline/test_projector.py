"""The row of a Response equals what its stream says: in order, with refused events parked, over deaths and outages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cody.contracts.responses import Message
from cody.contracts.stream_events import (
    Heartbeat,
    ItemDelta,
    ItemStart,
    Payload,
    read_stream_event,
    stream_event_json,
)
from cody.errors import Conflict, NotFound
from cody.pipeline.archive import Archive
from cody.pipeline.publisher import Publication, Publisher
from cody.pipeline.reducer import fold
from cody.pipeline.response_projector import ResponsePace, ResponseProjector
from cody.store import keys
from cody.store.dead_letters import drop_letter, list_letters, retry_letter
from cody.store.response_events import GROUP, ResponseEvents
from tests.conftest import Wait
from tests.pipeline.events import event_of
from tests.pipeline.postgres_server import PostgresServer, patient
from tests.pipeline.publishing import (
    FAST,
    done,
    is_done,
    is_terminal,
    message,
    opening,
    persisted,
    projecting,
    response_projector,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SLOW_CLAIM = ResponsePace(gather_s=0.0, block_ms=20, lease_ms=300, claim_every_s=0.1, claim_idle_ms=100)


@pytest.fixture
async def projector(valkey_url: str, redis: Redis, archive: Archive) -> AsyncIterator[ResponseProjector]:
    async with response_projector(valkey_url, redis, archive) as one:
        yield one


def answer(redis: Redis, text: str = "Hello, all of it") -> Publication:
    """A whole answer, said."""
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(*message(text, pieces=len(text)), done(publication.response_id))
    return publication


async def assert_equal(redis: Redis, archive: Archive, response_id: str) -> None:
    """The row is what the stream makes, and all of it is acknowledged."""
    kept = await ResponseEvents(redis).read(response_id, count=100_000)
    folded = fold(None, [read_stream_event(one.event) for one in kept])
    assert folded.state is not None
    row = await archive.response(response_id)
    assert row is not None
    assert row.reducer_state == folded.state.model_dump_json(exclude_none=True)
    assert row.last_event_id == kept[-1].id
    groups = await redis.xinfo_groups(keys.response_events(response_id))
    assert [(one["name"], one["pending"], one["lag"]) for one in groups] == [(GROUP.encode(), 0, 0)]


async def test_a_response_is_projected_while_it_is_made(
    redis: Redis, archive: Archive, projector: ResponseProjector, eventually: Wait
) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    async with projecting(projector):
        publication.say(ItemStart(item_id="m", item_type="message"), ItemDelta(item_id="m", delta_content="Hel"))

        async def is_half() -> bool:
            found = await persisted(archive, publication.response_id)
            return found is not None and [getattr(item, "content", "") for item in found.output_items] == ["Hel"]

        await eventually(is_half, "the first half is in SQL")
        assert await redis.ttl(keys.response_events(publication.response_id)) == -1
        publication.say(ItemDelta(item_id="m", delta_content="lo"), done(publication.response_id))
        await eventually(lambda: is_terminal(archive, publication.response_id))

        async def nothing_waits() -> bool:
            return (await projector.lag()).pending == 0

        await eventually(nothing_waits)
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert found.output_items == (Message(id="m", content="Hello"),)
    await assert_equal(redis, archive, publication.response_id)
    assert await redis.ttl(keys.response_events(publication.response_id)) > 0
    assert [hit.response_id for hit in (await archive.search("Hello")).hits] == [publication.response_id]


async def test_lag_is_told(redis: Redis, projector: ResponseProjector, eventually: Wait) -> None:
    assert (await projector.lag()).pending == 0
    await answer(redis).written()

    async def is_old() -> bool:
        lag = await projector.lag()
        return lag.pending >= 1 and lag.oldest_ms > 0

    await eventually(is_old)


async def test_two_projectors_make_one_row(
    valkey_url: str, redis: Redis, archive: Archive, projector: ResponseProjector, eventually: Wait
) -> None:
    async with response_projector(valkey_url, redis, archive) as other, projecting(projector, other):
        publications = [Publisher(ResponseEvents(redis)).begin(opening()) for _ in range(5)]
        for number in range(30):
            for one in publications:
                one.say(*message(f"text {number}", id=f"m{number}"))
            await asyncio.gather(*(one.written() for one in publications))
        for one in publications:
            one.say(done(one.response_id))
        for one in publications:
            await eventually(lambda id=one.response_id: is_done(redis, archive, id))
    for one in publications:
        await assert_equal(redis, archive, one.response_id)
    assert await list_letters(redis) == []


async def test_what_another_projector_was_given_and_did_not_do_is_claimed(
    valkey_url: str, redis: Redis, archive: Archive, eventually: Wait
) -> None:
    publication = answer(redis)
    await publication.written()
    store = ResponseEvents(redis)
    await store.take(publication.response_id, projector="dead", lease_ms=200, count=5)
    await redis.xgroup_create(keys.RESPONSE_NEWS, GROUP, id="0")
    await redis.xreadgroup(GROUP, "dead", {keys.RESPONSE_NEWS: ">"})
    async with response_projector(valkey_url, redis, archive, pace=SLOW_CLAIM) as heir, projecting(heir):
        await eventually(lambda: is_done(redis, archive, publication.response_id))
    await assert_equal(redis, archive, publication.response_id)


async def test_events_of_an_unknown_publisher_are_found_without_news(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    start = opening()
    key = keys.response_events(start.response_id)
    for number, payload in enumerate([start, *message("by hand"), done(start.response_id)]):
        await redis.xadd(key, {"event": stream_event_json(event_of(payload, number, start.response_id))})
    assert await projector.sweep() == 1
    await assert_equal(redis, archive, start.response_id)
    assert await projector.sweep() == 0


async def test_refused_events_are_parked_with_the_reason_and_the_rest_goes_on(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(ItemDelta(item_id="nobody", delta_content="x"), *message("fine"))
    await publication.written()
    key = keys.response_events(publication.response_id)
    await redis.xadd(key, {"event": b"no JSON"})
    foreign = event_of(Heartbeat(), 99, "another-response")
    await redis.xadd(key, {"event": stream_event_json(foreign)})
    assert await projector.project(publication.response_id)
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert [item.type for item in found.output_items] == ["message"]
    letters = await list_letters(redis)
    assert {(one.response_id, one.code) for one in letters} == {
        (publication.response_id, "unknown_item"),
        (publication.response_id, "malformed_event"),
        (publication.response_id, "wrong_response"),
    }
    assert all(one.reason for one in letters)
    groups = await redis.xinfo_groups(key)
    assert (groups[0]["pending"], groups[0]["lag"]) == (0, 0)


async def test_a_response_that_never_began_is_parked_and_forgotten(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    response_id = opening().response_id
    key = keys.response_events(response_id)
    await redis.xadd(key, {"event": stream_event_json(event_of(Heartbeat(), 1, response_id))})
    assert await projector.project(response_id)
    assert [one.code for one in await list_letters(redis, response_id=response_id)] == ["event_before_start"]
    assert await archive.response(response_id) is None
    assert await redis.ttl(key) > 0


async def test_a_dead_letter_is_retried_or_dropped(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    start = opening()
    response_id = start.response_id
    key = keys.response_events(response_id)
    early = (ItemDelta(item_id="m", delta_content="late"), ItemDelta(item_id="n", delta_content="never"))
    payloads: list[Payload] = [start, *early]
    for number, payload in enumerate(payloads):
        await redis.xadd(key, {"event": stream_event_json(event_of(payload, number, response_id))})
    assert await projector.project(response_id)
    never, late = await list_letters(redis)
    begun = event_of(ItemStart(item_id="m", item_type="message"), 3, response_id)
    await redis.xadd(key, {"event": stream_event_json(begun)})
    await retry_letter(redis, late.id)
    await drop_letter(redis, never.id)
    assert await projector.project(response_id)
    assert await list_letters(redis) == []
    found = await persisted(archive, response_id)
    assert found is not None
    assert found.output_items == (Message(id="m", content="late"),)
    with pytest.raises(NotFound):
        await retry_letter(redis, late.id)
    with pytest.raises(NotFound):
        await drop_letter(redis, never.id)


async def test_no_letter_is_retried_while_its_response_goes_on(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(ItemDelta(item_id="m", delta_content="too early"))
    await publication.written()
    assert await projector.project(publication.response_id)
    [letter] = await list_letters(redis)
    with pytest.raises(Conflict, match="goes on"):
        await retry_letter(redis, letter.id)
    assert await list_letters(redis) == [letter]
    # Its number would have been taken: the publisher's own next event would be a repeated one.
    publication.say(ItemStart(item_id="m", item_type="message"))
    await publication.written()
    publication.say(ItemDelta(item_id="m", delta_content="in time"), done(publication.response_id))
    await publication.written()
    assert await projector.project(publication.response_id)
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert (found.status, found.output_items) == ("complete", (Message(id="m", content="in time"),))
    await retry_letter(redis, letter.id)


async def test_no_letter_is_retried_into_a_stream_that_is_gone(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(ItemDelta(item_id="m", delta_content="too early"), done(publication.response_id))
    await publication.written()
    assert await projector.project(publication.response_id)
    [letter] = await list_letters(redis)
    key = keys.response_events(publication.response_id)
    await redis.delete(key)
    with pytest.raises(Conflict, match="no more"):
        await retry_letter(redis, letter.id)
    assert await list_letters(redis) == [letter]
    assert await redis.exists(key) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_projector_killed_between_commit_and_ack_changes_nothing_twice_and_loses_no_letter(
    valkey_url: str, redis: Redis, archive: Archive, database_url: str, tmp_path: Path, eventually: Wait
) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(ItemStart(item_id="m", item_type="message"), ItemDelta(item_id="m", delta_content="once"))
    publication.say(ItemDelta(item_id="nobody", delta_content="x"))
    await publication.written()
    program = [sys.executable, "-m", "tests.pipeline.response_projector_process"]
    command = [*program, valkey_url, database_url, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "committed\n" in process.stdout, "it ended before it wrote the row"
        process.kill()
    groups = await redis.xinfo_groups(keys.response_events(publication.response_id))
    assert groups[0]["pending"] == 4, "nothing was acknowledged"
    assert await list_letters(redis) == []
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert found.output_items == (Message(id="m", content="once"),)
    publication.say(done(publication.response_id))
    await publication.written()
    async with response_projector(valkey_url, redis, archive, pace=SLOW_CLAIM) as heir, projecting(heir):
        await eventually(lambda: list_letters(redis))
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert (found.status, found.output_items) == ("complete", (Message(id="m", content="once"),))
    assert [(one.entry_id, one.code) for one in await list_letters(redis)] == [("4-0", "unknown_item")]


async def test_a_frozen_projector_that_comes_back_writes_nothing(
    valkey_url: str, redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    publication.say(*message("before"))
    await publication.written()
    assert await projector.project(publication.response_id)
    async with response_projector(valkey_url, redis, archive) as other:
        publication.say(*message("meanwhile", id="m2"))
        await publication.written()
        assert await other.project(publication.response_id)
    publication.say(*message("after", id="m3"))
    await publication.written()
    assert not await projector.project(publication.response_id), "what it remembers is old, so it writes nothing"
    assert await projector.project(publication.response_id)
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert [getattr(item, "content", "") for item in found.output_items] == ["before", "meanwhile", "after"]
    assert await list_letters(redis) == []


async def test_while_sql_is_away_nothing_is_acknowledged(
    valkey_url: str, redis: Redis, own_postgres: PostgresServer, tmp_path: Path, eventually: Wait
) -> None:
    archive = Archive(patient(own_postgres.url), tmp_path)
    await archive.open()
    publication = Publisher(ResponseEvents(redis)).begin(opening())
    await publication.written()
    await own_postgres.stop()
    try:
        async with response_projector(valkey_url, redis, archive, pace=FAST) as one, projecting(one):
            publication.say(*message("while SQL is away"), done(publication.response_id))
            key = keys.response_events(publication.response_id)

            async def was_given_out() -> bool:
                groups = await redis.xinfo_groups(key)
                return bool(groups[0]["pending"])

            await eventually(was_given_out)
            assert (await one.lag()).pending > 0
            await own_postgres.start()
            await eventually(lambda: is_done(redis, archive, publication.response_id), deadline_s=60)
        await assert_equal(redis, archive, publication.response_id)
    finally:
        await archive.aclose()


async def test_a_row_whose_stream_redis_has_lost_is_ended(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    lost, lives = (Publisher(ResponseEvents(redis)).begin(opening()) for _ in range(2))
    for one in (lost, lives):
        one.say(*message("half"))
        await one.written()
        assert await projector.project(one.response_id)
    await redis.delete(keys.response_events(lost.response_id))
    await projector.sweep()
    assert not await is_terminal(archive, lost.response_id), "a publisher that lives may begin it anew"
    await projector.sweep()
    found = await persisted(archive, lost.response_id)
    assert found is not None
    assert (found.status, found.error and found.error.code) == ("error", "events_lost")
    assert [item.type for item in found.output_items] == ["message"]
    assert not await is_terminal(archive, lives.response_id)
