"""What is wrong with one Response, or one of its events, stops no other, ends where it can, and is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from cody.contracts.responses import LAST_MS, Message
from cody.contracts.stream_events import Heartbeat, ItemDelta, stream_event_json
from cody.errors import StoreUnavailable
from cody.pipeline.archive import Archive
from cody.pipeline.archive.engine import archive_url, make_engine
from cody.pipeline.projecting import Desk
from cody.pipeline.publisher import Publication, Publisher
from cody.pipeline.response_projector import ResponsePace, ResponseProjector
from cody.pipeline.response_steps import Known, known_of, next_step, row_of
from cody.store import keys
from cody.store.dead_letters import list_letters
from cody.store.response_events import Entry, ResponseEvents
from cody.store.response_news import ResponseNewsReader
from tests.conftest import Wait
from tests.pipeline.events import START, event_of
from tests.pipeline.publishing import done, is_terminal, message, opening, persisted, projecting, response_projector

FEW_AT_ONCE = ResponsePace(gather_s=0.0, block_ms=20, batch=2)


@pytest.fixture
async def projector(valkey_url: str, redis: Redis, archive: Archive) -> AsyncIterator[ResponseProjector]:
    async with response_projector(valkey_url, redis, archive) as one:
        yield one


async def half(redis: Redis, projector: ResponseProjector, response_id: str | None = None) -> Publication:
    """A Response in progress, archived as far as it has come."""
    publication = Publisher(ResponseEvents(redis)).begin(opening(response_id))
    publication.say(*message("half"))
    await publication.written()
    assert await projector.project(publication.response_id)
    return publication


async def execute(database_url: str, folder: Path, statement: str, **values: str) -> None:
    async with make_engine(archive_url(database_url, folder), pooled=False).begin() as connection:
        await connection.execute(text(statement), values)


async def spoil(database_url: str, folder: Path, response_id: str) -> None:
    """Make the row one that no projector can go on with."""
    statement = "UPDATE responses SET reducer_state = '{}' WHERE response_id = :id"
    await execute(database_url, folder, statement, id=response_id)


async def refuse(database_url: str, folder: Path, condition: str) -> None:
    """Have the database refuse rows of Responses for which this holds of NEW."""
    if database_url.startswith("sqlite"):
        raised = "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        statement = f"CREATE TRIGGER refused BEFORE UPDATE ON responses WHEN {condition} {raised}"
    else:
        statement = f"ALTER TABLE responses ADD CONSTRAINT refused CHECK (NOT ({condition.replace('NEW.', '')}))"
    await execute(database_url, folder, statement)


async def test_a_row_that_can_not_be_read_stops_no_other(
    valkey_url: str,
    redis: Redis,
    archive: Archive,
    projector: ResponseProjector,
    database_url: str,
    tmp_path: Path,
    eventually: Wait,
) -> None:
    bad = await half(redis, projector)
    await spoil(database_url, tmp_path, bad.response_id)
    bad.say(*message("more", id="m2"))
    await bad.written()
    async with response_projector(valkey_url, redis, archive) as other, projecting(other):
        for _ in range(3):
            good = Publisher(ResponseEvents(redis)).begin(opening())
            good.say(*message("fine"), done(good.response_id))
            await eventually(lambda id=good.response_id: is_terminal(archive, id))
            bad.say(Heartbeat())
            await bad.written()

        async def nothing_waits() -> bool:
            return (await other.lag()).pending == 0

        await eventually(nothing_waits, "the news of the bad one is not held")
    assert await redis.ttl(keys.response_events(bad.response_id)) == -1, (
        "what it said is kept for whoever mends the row"
    )
    assert not await is_terminal(archive, bad.response_id)


async def test_a_row_that_can_not_be_read_keeps_no_lost_one_in_progress(
    redis: Redis, archive: Archive, projector: ResponseProjector, database_url: str, tmp_path: Path
) -> None:
    for response_id in ("a-bad", "b-lost"):
        await half(redis, projector, response_id)
        await redis.delete(keys.response_events(response_id))
    await spoil(database_url, tmp_path, "a-bad")
    await projector.sweep()
    await projector.sweep()
    assert await is_terminal(archive, "b-lost")
    assert not await is_terminal(archive, "a-bad")


async def test_rows_in_progress_are_looked_at_however_many_there_are(
    valkey_url: str, redis: Redis, archive: Archive
) -> None:
    async with response_projector(valkey_url, redis, archive, pace=FEW_AT_ONCE) as projector:
        for number in range(5):
            await half(redis, projector, f"live-{number}")
        await half(redis, projector, "lost")
        ended = await half(redis, projector, "ended")
        ended.say(done("ended"))
        await ended.written()
        assert await projector.project("ended")
        assert await archive.unfinished_responses(limit=2) == ["live-0", "live-1"]
        assert await archive.unfinished_responses(after="live-3", limit=9) == ["live-4", "lost"]
        await redis.delete(keys.response_events("lost"))
        await projector.sweep()
        await projector.sweep()
    assert await is_terminal(archive, "lost")
    assert await archive.unfinished_responses() == [f"live-{number}" for number in range(5)]


async def test_a_sweep_that_fails_by_itself_is_not_repeated_before_the_news_is_read(
    valkey_url: str, redis: Redis
) -> None:
    news = ResponseNewsReader(valkey_url, redis)
    desk = Desk(news, "one", ResponsePace(), lambda one: one.response_id)

    async def is_away() -> int:
        raise StoreUnavailable("away")

    async def fails() -> int:
        raise ValueError("a defect")

    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await desk.sweep_if_due(is_away)
    with pytest.raises(ValueError, match="a defect"):
        await desk.sweep_if_due(fails)
    assert await desk.sweep_if_due(fails) == 0
    await news.aclose()


def test_what_was_refused_is_parked_by_whoever_acknowledges_it() -> None:
    payloads = [START, ItemDelta(item_id="nobody", delta_content="x"), *message("fine")]
    events = [stream_event_json(event_of(payload, number)) for number, payload in enumerate(payloads)]
    entries = [Entry(f"{number}-0", event) for number, event in enumerate(events, start=1)]
    first = next_step(START.response_id, Known(None, None), entries[:4])
    assert [letter.entry.id for letter in first.letters] == ["2-0"]
    assert first.state is not None
    assert first.cursor == "4-0"
    # The row was written, and nothing acknowledged: the next projector is given all of it again.
    heir = known_of(row_of(first.state, first.cursor, first.letters))
    assert next_step(START.response_id, heir, entries[:4]).letters == first.letters
    second = next_step(START.response_id, heir, entries)
    assert second.letters == first.letters
    assert second.state is not None
    assert second.cursor == entries[-1].id
    # Acknowledged: it does not come again, and neither does its letter.
    after = known_of(row_of(second.state, second.cursor, second.letters))
    third = next_step(START.response_id, after, [Entry("99-0", stream_event_json(event_of(Heartbeat(), 99)))])
    assert third.letters == []
    assert third.state is not None
    assert "refusals" not in row_of(third.state, "99-0", third.letters).reducer_state


async def test_what_the_database_refuses_is_parked_and_its_response_ends(
    redis: Redis, archive: Archive, projector: ResponseProjector, database_url: str, tmp_path: Path
) -> None:
    publication = await half(redis, projector)
    await refuse(database_url, tmp_path, "NEW.response LIKE '%not for this database%'")
    said = [*message("not for this database", id="m2"), done(publication.response_id)]
    publication.say(*said)
    await publication.written()
    assert await projector.project(publication.response_id)
    found = await persisted(archive, publication.response_id)
    assert found is not None
    assert (found.status, found.error and found.error.code) == ("error", "archive_refused")
    assert found.output_items == (Message(id="msg-1", content="half"),)
    assert [letter.code for letter in await list_letters(redis)] == ["archive_refused"] * len(said)
    assert await redis.ttl(keys.response_events(publication.response_id)) > 0
    assert await projector.sweep() == 0


async def test_the_stream_of_a_response_whose_end_the_database_refuses_is_not_kept_for_ever(
    redis: Redis, archive: Archive, projector: ResponseProjector, database_url: str, tmp_path: Path
) -> None:
    publication = await half(redis, projector)
    await refuse(database_url, tmp_path, "NEW.status IN ('complete', 'error')")
    publication.say(done(publication.response_id))
    await publication.written()
    assert await projector.project(publication.response_id)
    assert [letter.code for letter in await list_letters(redis)] == ["archive_refused"]
    assert await redis.ttl(keys.response_events(publication.response_id)) > 0
    assert not await is_terminal(archive, publication.response_id)


async def test_a_response_whose_last_event_can_not_be_read_ends(
    redis: Redis, archive: Archive, projector: ResponseProjector
) -> None:
    start = opening()
    key = keys.response_events(start.response_id)
    payloads = [start, *message("by another program"), done(start.response_id)]
    events = [stream_event_json(event_of(one, number, start.response_id)) for number, one in enumerate(payloads)]
    events[-1] = json.dumps(json.loads(events[-1]) | {"timestamp": LAST_MS + 1}).encode()
    for event in events:
        await redis.xadd(key, {"event": event})
    assert await projector.project(start.response_id)
    found = await persisted(archive, start.response_id)
    assert found is not None
    assert (found.status, found.error and found.error.code) == ("error", "malformed_event")
    assert [item.type for item in found.output_items] == ["message"]
    assert [letter.code for letter in await list_letters(redis)] == ["malformed_event"]
    assert await redis.ttl(key) > 0
