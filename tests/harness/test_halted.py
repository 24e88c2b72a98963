"""A run whose record in Redis is gone or harmed: its agent ends, its readers and the operator are told, others go on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import RunPausing, WarningRaised
from cody.errors import StoreUnavailable, StreamTrimmed
from cody.settings import Settings
from cody.store import events, keys, runs
from cody.store.clients import connect
from harness.journal import Journal
from harness.journal_failures import JournalBroken, StoreCorrupt
from harness.journal_queue import MEMORY_BYTES
from harness.service import RunService
from harness.spool import Spool
from harness.tail_pages import Batch
from tests.harness.test_journal import journal_of, note, owned
from tests.harness.test_run_control import marked

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Losses are noticed by renewals, and runs taken up again by scans: several in each lease."""
    return settings.model_copy(update={"lock_ttl_ms": 6_000})


async def test_a_wiped_redis_ends_the_agent_and_tells_readers_and_operator(
    workspace: Any, service: RunService, redis: Redis, eventually: Eventually
) -> None:
    run_id = (await service.start(workspace.request("print('x', flush=True); time.sleep(600)"))).run_id
    batches = service.follow(run_id, await service.open_stream(run_id, "0"))
    seen = b""
    while b"subprocess_output" not in seen:
        seen += b"".join([frame.data for frame in await anext(batches)])
    assert marked(run_id)
    await redis.flushdb()

    async def read_on() -> None:
        async for _ in batches:
            pass

    with pytest.raises(StreamTrimmed):
        async with asyncio.timeout(30):
            await read_on()
    await eventually(lambda: not marked(run_id))

    async def is_told() -> bool:
        return any(run_id in reason for reason in (await service.readiness()).degraded)

    await eventually(is_told)
    assert not await redis.exists(keys.meta(run_id), keys.events(run_id))


async def test_one_corrupt_record_does_not_hide_the_runs_that_wait(redis: Redis) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for run_id in ids:
        await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    await redis.hset(keys.meta(ids[0]), "fence", "many")
    await redis.delete(keys.meta(ids[1]))
    await redis.rpush(keys.meta(ids[1]), "not a hash")
    try:
        assert [run.run_id for run in await runs.unowned(redis)] == [ids[2]]
    finally:
        await redis.delete(keys.meta(ids[1]))


async def test_a_run_whose_control_key_was_harmed_is_let_go_of_and_no_other(
    workspace: Any, service: RunService, redis: Redis, eventually: Eventually
) -> None:
    code = "print('x', flush=True); time.sleep(600)"
    harmed, well = [(await service.start(workspace.request(code))).run_id for _ in range(2)]
    await eventually(lambda: marked(harmed) and marked(well))
    key = keys.control(harmed)
    await redis.delete(key)
    await redis.rpush(key, "not a stream")
    try:
        # One read waits for the messages of both runs.
        assert (await service.control(well, "pause", None)).status == "pausing"
        assert (await service.control(well, "cancel", None)).status == "cancelling"

        async def has_ended() -> bool:
            return (await service.records.snapshot(well)).status == "cancelled"

        await eventually(has_ended)
        await eventually(lambda: not marked(harmed))

        async def is_told() -> bool:
            return any(key in reason for reason in (await service.readiness()).degraded)

        await eventually(is_told)
        with pytest.raises(StoreUnavailable):
            await service.control(harmed, "cancel", None)
        # A refused message changes nothing.
        assert await redis.hget(keys.meta(harmed), "status") == b"running"
    finally:
        await redis.delete(key)
    # Later and later, the more often it was tried in vain.
    await eventually(lambda: marked(harmed), "the run is taken up again", deadline_s=90)
    await service.control(harmed, "cancel", None)

    async def is_cancelled() -> bool:
        return (await service.records.snapshot(harmed)).status == "cancelled"

    await eventually(is_cancelled)


async def test_a_defect_in_one_reader_does_not_silence_all_others(
    workspace: Any, start: Any, service: RunService, eventually: Eventually
) -> None:
    run = await start(
        workspace.request("print(TURN, flush=True)\nwhile not Path(f'go{TURN}').exists(): time.sleep(0.01)")
    )
    await run.until("subprocess_output")
    parts = service._parts
    assert parts is not None
    broken: list[int] = []

    def take(batch: Batch) -> int:
        broken.append(len(batch.frames))
        if len(broken) == 1:
            raise RuntimeError("a reader's own fault")
        return 0

    faulty = parts.tails.follow(run.run_id, await parts.tails.open(run.run_id, "$"))
    reading = asyncio.create_task(faulty.next(take))
    try:
        await eventually(lambda: any(tail._live for tail in parts.tails._tails.values()))
        (workspace.path / "go1").touch()
        await run.until(lambda seen: any(event.get("text") == "2" for event in seen))
        assert broken
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        faulty.close()
    await service.control(run.run_id, "cancel", None)
    assert (await run.end()).status == "cancelled"


async def test_what_redis_can_not_answer_is_not_lost(redis: Redis, valkey_url: str) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for run_id in ids:
        await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    await redis.delete(keys.events(ids[1]))
    await redis.rpush(keys.events(ids[1]), "not a stream")
    try:
        assert [one is None for one in await events.newest_ids(redis, ids)] == [False, True, False]
    finally:
        await redis.delete(keys.events(ids[1]))
    # A user who may not read one of the keys.
    name = f"reader-{uuid.uuid4()}"
    await cast("Any", redis).execute_command("ACL", "SETUSER", name, "on", "nopass", "+@all", "~" + keys.events(ids[0]))
    limited = connect(valkey_url)
    try:
        pool = limited.connection_pool
        pool.connection_kwargs.update(username=name, password="any")
        with pytest.raises(ResponseError, match="permission"):
            await events.newest_ids(limited, ids)
    finally:
        await limited.aclose()
        await cast("Any", redis).execute_command("ACL", "DELUSER", name)


@pytest.mark.parametrize(("field", "value"), [("workerStatus", "odd"), ("stats.turns", "x"), ("currentTurn", "-")])
async def test_a_run_whose_meta_can_not_be_read_fails_and_says_so(
    field: str, value: str, workspace: Any, service: RunService, redis: Redis, eventually: Eventually
) -> None:
    run_id = str(uuid.uuid4())
    config = workspace.request("print('x')").config
    # Held by nobody that lives: the service must not have it before it is harmed.
    await redis.set(keys.lock(run_id), "someone")
    await runs.create(redis, run_id, epic_id="current-epic", config=config, now_ms=1)
    await redis.hset(keys.meta(run_id), field, value)
    await redis.delete(keys.lock(run_id))

    async def has_failed() -> bool:
        return bool(await redis.hget(keys.meta(run_id), "error.code") == b"meta_corrupt")

    await eventually(has_failed)
    assert await redis.hget(keys.meta(run_id), "status") == b"failed"
    # The archive could not take it, so Redis keeps it without a TTL.
    await redis.delete(*keys.of_run(run_id))


async def test_a_record_that_can_not_be_counted_with_ends_the_journal(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        await redis.hset(keys.meta(run_id), "lastSeq", "x")
        journal.emit(note(1))
        async with asyncio.timeout(20):
            assert isinstance(await journal.failed(), StoreCorrupt)


async def test_a_harmed_spool_ends_the_journal_and_whoever_waits_for_it(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    journal = Journal(redis, run_id, fence=fence, last_seq=1, spool=Spool(tmp_path / "spool"))
    try:
        filler = "x" * 2_000
        count = 3 * MEMORY_BYTES // len(filler)
        for number in range(count):
            journal.emit(WarningRaised(code=filler, message=str(number)))
        (tmp_path / "spool").write_bytes(b"")
        async with asyncio.timeout(20):
            with pytest.raises(JournalBroken):
                await journal.flush()
    finally:
        await journal.close()
    kept = await events.after(redis, run_id, "0-0", count=count + 2)
    # What is there has no hole.
    assert [frame.seq for frame in kept] == list(range(1, len(kept) + 1))
    assert len(kept) < count


async def test_a_control_messages_event_and_its_cursor_are_one_step(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        for number in range(499):
            journal.emit(note(number))
        journal.emit(RunPausing(), {"ctlCursor": "1-1"})
        # The batch is full with that event; what is set afterwards belongs to the next one.
        (batch,) = journal._queue.batches
        assert (len(batch.events), batch.meta) == (500, {"ctlCursor": "1-1"})
        await journal.flush()
    assert (await runs.fields(redis, run_id))["ctlCursor"] == "1-1"
