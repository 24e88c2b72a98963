"""What the archive gives back: listings that go on where those of Redis end, fences, Responses with their cursor."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from cody.contracts.run import RunSnapshot
from cody.contracts.run_config import RunConfig
from cody.errors import InvalidRequest, NotFound
from cody.pipeline.archive import (
    Archive,
    ArchiveRefused,
    Cursor,
    Document,
    FenceRaised,
    FenceRegressed,
    ResponseRow,
    RunBatch,
)
from cody.pipeline.archive.engine import archive_url, make_engine
from cody.pipeline.run_projector import RunProjector
from cody.store import keys, runs
from cody.store.meta import MetaCorrupt
from tests.pipeline.live_runs import live_run, said, until_still, warning

RESPONSE = ResponseRow(
    response_id="resp-1",
    run_id=None,
    turn_id="turn-1",
    thread_id="thread-1",
    agent_id=None,
    model_id="m",
    provider_id="p",
    status="in_progress",
    created_at=1_000,
    updated_at=1_000,
    response='{"id":"resp-1"}',
    reducer_state="{}",
    last_event_id="1-1",
)


async def test_pages_are_those_that_redis_gives(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    for number in range(25):
        # Several of one millisecond: then the id decides.
        await live_run(redis, epic_id="ab"[number % 2], created_ms=1_767_225_600_000 + number // 6)
    await until_still(projecting)
    for epic_id in (None, "a"):
        cursor, pages = None, 0
        while True:
            page = await runs.page(redis, limit=4, now_ms=0, epic_id=epic_id, cursor=cursor)
            archived = await archive.page(limit=4, epic_id=epic_id, cursor=cursor)
            assert [run.run_id for run in archived.runs] == [run.run_id for run in page.runs]
            assert (archived.next_cursor is None) == (page.next_cursor is None)
            pages += 1
            # Each goes on where the other one stopped.
            cursor = archived.next_cursor if pages % 2 else page.next_cursor
            if cursor is None:
                break
        assert pages >= 3


async def test_pages_by_status(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    made = [await live_run(redis, created_ms=1_767_225_600_000 + number) for number in range(5)]
    await made[1].complete(end_ttl_s=60)
    await made[3].complete(end_ttl_s=60)
    await until_still(projecting)
    found = await archive.page(limit=10, status="completed")
    assert [run.run_id for run in found.runs] == [made[3].run_id, made[1].run_id]
    assert (await archive.page(limit=10, status="failed")).runs == []


@pytest.mark.parametrize(
    "cursor", ["x", "", "MTp4eA==x", "é", "LTk5OTk5OTk5OTk5OTk5OTk5OTk6eA", "OTk5OTk5OTk5OTk5OTk5OTk6eA"]
)
async def test_a_cursor_that_no_listing_gave_is_refused(archive: Archive, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await archive.page(limit=2, cursor=cursor)


async def test_what_is_not_there_is_not_found(archive: Archive) -> None:
    unknown = str(uuid.uuid4())
    for call in (archive.snapshot(unknown), archive.turn_records(unknown), archive.turn_record(unknown, 1)):
        with pytest.raises(NotFound, match=unknown):
            await call
    assert await archive.events_after(unknown, 0) == []
    assert await archive.response(unknown) is None


async def test_events_of_a_turn_and_from_an_id(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await run.emit(*(warning(number) for number in range(1, 10)))
    await run.turn(1, "completed", last_message="x")
    await until_still(projecting)
    of_turn = await archive.events_after(run.run_id, 3, turn=2)
    assert [frame.seq for frame in of_turn] == [6, 9]
    third = (await archive.events_after(run.run_id, 2, count=1))[0]
    assert await archive.seq_at(run.run_id, third.id) == 3
    assert await archive.seq_at(run.run_id, "1-1") is None
    assert (await archive.turn_record(run.run_id, 1)).last_message == "x"
    with pytest.raises(NotFound, match="no turn 2"):
        await archive.turn_record(run.run_id, 2)


async def test_a_row_that_can_not_be_read_is_left_out_and_named_when_asked_for(
    redis: Redis, archive: Archive, projecting: RunProjector, database_url: str, tmp_path: Path
) -> None:
    bad, good = await live_run(redis), await live_run(redis)
    await until_still(projecting)
    async with make_engine(archive_url(database_url, tmp_path), pooled=False).begin() as connection:
        spoil = text("UPDATE runs SET status = 'asleep', config = '{}' WHERE run_id = :id")
        await connection.execute(spoil, {"id": bad.run_id})
    assert [run.run_id for run in (await archive.page(limit=5)).runs] == [good.run_id]
    with pytest.raises(MetaCorrupt, match=bad.run_id):
        await archive.snapshot(bad.run_id)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "%", "'", "é" * 5_000])
async def test_whatever_is_asked_for_is_only_not_found(archive: Archive, text: str) -> None:
    for call in (archive.snapshot(text), archive.turn_records(text), archive.turn_record(text, 10**30)):
        with pytest.raises(NotFound):
            await call
    assert (await archive.page(limit=1, epic_id=text)).runs == []
    assert await archive.events_after(text, 10**30, turn=-(10**30)) == []
    assert await archive.seq_at(text, text) is None
    assert await archive.response(text) is None
    assert await archive.responses_of_thread(text) == await archive.responses_of_run(text) == []
    assert (await archive.search("word", run_id=text)).hits == []


async def test_nul_in_what_people_and_agents_wrote_does_not_stop_a_run(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit(said("a\0b needle"), meta={"reason": "be\0cause"})
    await run.turn(1, "completed", thread_id="th\0read", last_message="me\0ssage", files=["a\0b"])
    await until_still(projecting)
    assert await projecting.halted() == []
    assert (await archive.snapshot(run.run_id)).reason == "be\ufffdcause"
    assert await archive.turn_records(run.run_id) == await runs.turn_records(redis, run.run_id)
    assert len((await archive.search("needle")).hits) == 1


async def test_a_fence_only_rises(archive: Archive) -> None:
    assert await archive.raise_fence("r", 1, claim_id="a") == FenceRaised()
    assert await archive.raise_fence("r", 5, claim_id="b") == FenceRaised()
    for fence in (5, 4, 1):
        verdict = await archive.raise_fence("r", fence, claim_id="c")
        assert verdict == FenceRegressed(stored_fence=5, stored_seq=0)
    assert await archive.raise_fence("r", 6, claim_id="c") == FenceRaised()
    assert await archive.raise_fence("other", 1, claim_id="a") == FenceRaised()


async def test_a_call_repeated_after_a_lost_reply_is_no_regression(archive: Archive) -> None:
    for _ in range(2):
        assert await archive.raise_fence("r", 5, claim_id="a") == FenceRaised()


async def test_of_many_who_claim_the_same_fence_one_is_right(archive: Archive) -> None:
    verdicts = await asyncio.gather(*(archive.raise_fence("r", 2, claim_id=str(number)) for number in range(12)))
    assert verdicts.count(FenceRaised()) == 1


async def test_events_beyond_what_redis_has_are_a_regression(
    redis: Redis, archive: Archive, projecting: RunProjector
) -> None:
    run = await live_run(redis)
    await run.emit_many(9)
    await until_still(projecting)
    assert await archive.raise_fence(run.run_id, 2, claim_id="a", last_seq=10) == FenceRaised()
    verdict = await archive.raise_fence(run.run_id, 3, claim_id="b", last_seq=9)
    assert verdict == FenceRegressed(stored_fence=3, stored_seq=10)


async def test_a_wiped_redis_shows_in_the_fence(redis: Redis, archive: Archive) -> None:
    run = await live_run(redis)
    assert await archive.raise_fence(run.run_id, run.fence, claim_id="a") == FenceRaised()
    await redis.delete(keys.lock(run.run_id))
    await redis.hset(keys.meta(run.run_id), "fence", "0")
    assert isinstance(await archive.raise_fence(run.run_id, run.fence, claim_id="b"), FenceRegressed)


async def test_a_response_and_its_cursor_move_together(archive: Archive) -> None:
    assert await archive.put_response(RESPONSE, after_event_id=None)
    assert await archive.response("resp-1") == RESPONSE
    done = replace(RESPONSE, status="complete", updated_at=2_000, last_event_id="2-1", response='{"id":"ü\\u0000"}')
    # Another projector that has read nothing yet, and one that has read something else.
    assert not await archive.put_response(done, after_event_id=None)
    assert not await archive.put_response(done, after_event_id="1-0")
    assert await archive.response("resp-1") == RESPONSE
    assert await archive.put_response(done, after_event_id="1-1")
    assert await archive.response("resp-1") == done


async def test_responses_by_thread_and_run_in_order(archive: Archive) -> None:
    for number in range(5):
        row = replace(RESPONSE, response_id=f"resp-{number}", created_at=number, run_id="run" if number > 2 else None)
        assert await archive.put_response(row, after_event_id=None)
    newest = await archive.responses_of_thread("thread-1", limit=3)
    assert [row.response_id for row in newest] == ["resp-2", "resp-3", "resp-4"]
    assert [row.response_id for row in await archive.responses_of_run("run")] == ["resp-3", "resp-4"]
    assert await archive.responses_of_thread("none") == []


async def test_the_texts_of_a_response_are_replaced_with_it(archive: Archive) -> None:
    def texts(*found: str) -> list[Document]:
        return [Document("message", text, response_id="resp-1") for text in found]

    assert await archive.put_response(RESPONSE, after_event_id=None, documents=texts("first draft", "kept"))
    moved = replace(RESPONSE, last_event_id="2-1")
    assert await archive.put_response(moved, after_event_id="1-1", documents=texts("second draft"))
    assert [hit.snippet for hit in (await archive.search("draft")).hits] == ["second draft"]
    assert (await archive.search("kept")).hits == []
    # A write that came second changes no text either.
    assert not await archive.put_response(moved, after_event_id="1-1", documents=texts("third draft"))
    assert [hit.snippet for hit in (await archive.search("draft")).hits] == ["second draft"]
    without = replace(RESPONSE, last_event_id="3-1")
    assert await archive.put_response(without, after_event_id="2-1")
    assert len((await archive.search("draft")).hits) == 1


async def test_a_transaction_that_fails_at_its_end_leaves_nothing(archive: Archive) -> None:
    run = RunSnapshot(
        run_id="r",
        status="queued",
        created_at="2026-01-01T00:00:00.000Z",
        updated_at="2026-01-01T00:00:00.000Z",
        epic_id="e",
        stream_key="k",
        working_dir="/r",
        agent="codex",
        config=RunConfig(working_dir="/r"),
    )
    # Larger than any integer of SQL, in what is written last.
    batch = RunBatch(run=run, known_seq=0, documents=[Document("log", "word", turn=2**70)])
    with pytest.raises(ArchiveRefused, match="can't archive run r"):
        await archive.record("r", Cursor(), batch)
    assert await archive.cursor("r") == Cursor()
    with pytest.raises(NotFound):
        await archive.snapshot("r")
