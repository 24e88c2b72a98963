"""The fenced commit: ok, duplicate, gap, fenced, conflict, gone; and nothing in between."""

from __future__ import annotations

import json
import uuid

from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.store import events, keys, leases, runs
from cody.store.archive_news import ArchiveNews
from cody.store.archive_source import ArchiveSource
from cody.store.events import Answer, PendingEvent, commit
from cody.store.leases import Claim

TS = "2026-01-01T00:00:00.000Z"


async def owned_run(redis: Redis) -> tuple[str, int]:
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1_000)
    claim = await leases.acquire(redis, run_id, worker_id=str(uuid.uuid4()), host="h", ttl_ms=60_000)
    assert isinstance(claim, Claim)
    return run_id, claim.fence


def some(count: int, kind: str = "warning") -> list[PendingEvent]:
    return [PendingEvent(kind, TS, b'{"code":"c","message":"%d"}' % number) for number in range(count)]


async def seqs(redis: Redis, run_id: str) -> list[int]:
    return [frame.seq for frame in await events.after(redis, run_id, "0-0")]


async def test_events_meta_and_turn_are_written_together(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    answer = await commit(
        redis,
        run_id,
        fence=fence,
        first_seq=2,
        events=some(3),
        meta={"pid": 7},
        turn=(1, b"{}"),
        expected_status="queued",
    )
    assert (answer.answer, answer.last_seq) == (Answer.OK, 4)
    assert await seqs(redis, run_id) == [1, 2, 3, 4]
    assert (await runs.fields(redis, run_id))["pid"] == "7"
    assert await redis.hget(keys.turns(run_id), "1") == b"{}"


async def test_a_repeated_call_adds_nothing_twice(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    for expected in (Answer.OK, Answer.DUPLICATE, Answer.DUPLICATE):
        answer = await commit(redis, run_id, fence=fence, first_seq=2, events=some(2))
        assert answer.answer is expected
    assert await seqs(redis, run_id) == [1, 2, 3]


async def test_a_repeated_call_with_more_adds_the_rest(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    await commit(redis, run_id, fence=fence, first_seq=2, events=some(2))
    assert (await commit(redis, run_id, fence=fence, first_seq=2, events=some(4))).answer is Answer.OK
    assert await seqs(redis, run_id) == [1, 2, 3, 4, 5]


async def test_a_repeated_transition_is_a_duplicate_not_a_conflict(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    for expected in (Answer.OK, Answer.DUPLICATE):
        answer = await commit(
            redis,
            run_id,
            fence=fence,
            first_seq=2,
            events=some(1),
            meta={"status": "running"},
            expected_status="queued",
        )
        assert answer.answer is expected


async def test_a_gap_is_refused(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    assert (await commit(redis, run_id, fence=fence, first_seq=3, events=some(1))).answer is Answer.GAP
    assert await seqs(redis, run_id) == [1]


async def test_an_old_fence_writes_nothing(redis: Redis) -> None:
    run_id, old = await owned_run(redis)
    await redis.delete(keys.lock(run_id))
    claim = await leases.acquire(redis, run_id, worker_id=str(uuid.uuid4()), host="h2", ttl_ms=60_000)
    assert isinstance(claim, Claim)
    assert claim.fence == old + 1
    answer = await commit(redis, run_id, fence=old, first_seq=2, events=some(1), meta={"pid": 9}, turn=(1, b"{}"))
    assert answer.answer is Answer.FENCED
    assert await seqs(redis, run_id) == [1]
    assert "pid" not in await runs.fields(redis, run_id)
    assert not await redis.exists(keys.turns(run_id))


async def test_a_status_that_changed_meanwhile_is_a_conflict_and_writes_nothing(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    answer = await commit(
        redis, run_id, fence=fence, first_seq=2, events=some(1), meta={"status": "paused"}, expected_status="pausing"
    )
    assert (answer.answer, answer.status) == (Answer.CONFLICT, "queued")
    assert await seqs(redis, run_id) == [1]


async def test_a_wiped_run_is_gone_and_not_made_again(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    await redis.flushdb()
    assert (await commit(redis, run_id, fence=fence, first_seq=2, events=some(1))).answer is Answer.GONE
    assert await redis.keys("*") == []


async def test_the_end_gives_every_key_of_the_run_its_ttl(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    await redis.xadd(keys.control(run_id), {"action": "pause"})
    await commit(redis, run_id, fence=fence, first_seq=2, events=some(1), turn=(1, b"{}"))
    assert await redis.ttl(keys.meta(run_id)) == -1
    await commit(redis, run_id, fence=fence, first_seq=3, events=some(1), meta={"status": "completed"}, end_ttl_s=1_000)
    for key in (keys.meta(run_id), keys.events(run_id), keys.turns(run_id), keys.control(run_id)):
        assert 0 < await redis.ttl(key) <= 1_000


async def test_an_empty_meta_value_removes_its_field(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    await commit(redis, run_id, fence=fence, first_seq=2, meta={"pid": 7})
    await commit(redis, run_id, fence=fence, first_seq=2, meta={"pid": ""})
    assert "pid" not in await runs.fields(redis, run_id)


async def test_the_stream_is_bounded(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    first = 2
    for _ in range(56):
        await commit(redis, run_id, fence=fence, first_seq=first, events=some(1_000))
        first += 1_000
    length = await redis.xlen(keys.events(run_id))
    assert keys.EVENTS_MAXLEN <= length < keys.EVENTS_MAXLEN + 1_000


async def test_what_the_archive_does_not_have_is_kept_up_to_a_bound(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    source, first = ArchiveSource(redis), 2

    async def add(count: int) -> int:
        nonlocal first
        for _ in range(count // 500):
            answer = await commit(
                redis, run_id, fence=fence, first_seq=first, events=some(500), keep_events=1_000, keep_unarchived=3_000
            )
            first += 500
        assert answer.archived_seq == archived
        return int(await redis.xlen(keys.events(run_id)))

    archived: int | None = None
    assert await add(2_000) < 1_200  # nobody archives
    await source.tell_archived(run_id, archived := first - 1)
    assert 2_000 <= await add(2_000) < 3_000
    assert 3_000 <= await add(5_000) < 3_200
    await source.tell_archived(run_id, archived := first - 1)
    assert 1_000 <= await add(500) < 1_200
    await source.tell_archived(run_id, archived := None)
    assert await add(3_000) < 1_200


async def test_the_newest_turns_are_kept_and_those_that_the_archive_lacks(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    source, first = ArchiveSource(redis), 2

    async def make(turns: range) -> list[int]:
        nonlocal first
        for turn in turns:
            await commit(redis, run_id, fence=fence, first_seq=first, events=some(2), turn=(turn, b"{}"), keep_turns=10)
            first += 2
        names = await redis.hkeys(keys.turns(run_id))
        return sorted(int(name) for name in names)

    assert await make(range(1, 31)) == list(range(21, 31))  # nobody archives
    await source.tell_archived(run_id, first - 1)
    assert await make(range(31, 34)) == list(range(24, 34))
    assert await make(range(34, 61)) == list(range(25, 61))  # the archive stands still
    await source.tell_archived(run_id, first - 1)
    assert await make(range(61, 62)) == list(range(52, 62))


async def test_a_run_that_is_gone_is_not_made_again_by_its_archive(redis: Redis) -> None:
    run_id, _ = await owned_run(redis)
    await redis.delete(keys.meta(run_id))
    await ArchiveSource(redis).tell_archived(run_id, 1)
    assert not await redis.exists(keys.meta(run_id))


async def test_an_archive_that_was_heard_of_is_waited_for_from_the_start(redis: Redis, valkey_url: str) -> None:
    run_id, fence = await owned_run(redis)
    assert (await commit(redis, run_id, fence=fence, first_seq=2, events=some(1))).archived_seq is None
    news = ArchiveNews(valkey_url, redis)
    try:
        await news.read("projector", count=10, block_ms=1)
    finally:
        await news.aclose()
    run_id, fence = await owned_run(redis)
    assert (await commit(redis, run_id, fence=fence, first_seq=2, events=some(1))).archived_seq == 0


async def test_a_frame_is_the_flat_event_and_its_sse_form(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    await commit(redis, run_id, fence=fence, first_seq=2, events=[PendingEvent("run_completed", TS, b"{}")])
    frame = (await events.after(redis, run_id, "0-0"))[-1]
    assert json.loads(frame.data) == {"type": "run_completed", "ts": TS, "runId": run_id, "seq": 2}
    assert frame.terminal
    assert frame.sse == b"id: %b\ndata: %b\n\n" % (frame.id.encode(), frame.data)


async def test_the_scripts_survive_a_server_that_forgot_them(redis: Redis) -> None:
    run_id, fence = await owned_run(redis)
    await redis.script_flush()
    assert (await commit(redis, run_id, fence=fence, first_seq=2, events=some(1))).answer is Answer.OK
