"""The journal: order, batches, each event once; through lost replies, a Redis that is away, and fences."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from cody.contracts.run import TurnRecord
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import Custom, RunStarted, SubprocessOutput, WarningRaised
from cody.errors import Fenced, SequenceGap
from cody.store import events, keys, leases, runs
from cody.store.archive_source import ArchiveSource
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.leases import Claim
from cody.store.server_binary import find_server_binary
from harness.journal import Journal
from harness.journal_failures import StoreLost
from harness.journal_queue import MEMORY_BYTES
from harness.spool import Spool
from harness.stream_bound import KEPT_EVENTS, STREAM_BYTES, StreamBound
from tests.proxy import Proxy

Eventually = Callable[..., Awaitable[None]]


async def owned(redis: Redis) -> tuple[str, int]:
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    claim = await leases.acquire(redis, run_id, worker_id=str(uuid.uuid4()), host="h", ttl_ms=60_000)
    assert isinstance(claim, Claim)
    return run_id, claim.fence


@asynccontextmanager
async def journal_of(
    redis: Redis, run_id: str, fence: int, folder: Path, last_seq: int = 1, stream_bytes: int = STREAM_BYTES
) -> AsyncIterator[Journal]:
    bound, spool = StreamBound(stream_bytes), Spool(folder / "spool")
    journal = Journal(redis, run_id, fence=fence, last_seq=last_seq, spool=spool, bound=bound)
    try:
        yield journal
    finally:
        await journal.close()
        assert not (folder / "spool").exists()


def note(number: int) -> WarningRaised:
    return WarningRaised(code="n", message=str(number))


async def numbers(redis: Redis, run_id: str) -> list[int]:
    found: list[int] = []
    cursor = "0-0"
    while batch := await events.after(redis, run_id, cursor):
        cursor = batch[-1].id
        for event in map(json.loads, (frame.data for frame in batch)):
            if event["type"] == "warning" and event["code"] != "events_dropped":
                found.append(int(event["message"]))
    return found


async def seqs(redis: Redis, run_id: str) -> list[int]:
    found: list[int] = []
    cursor = "0-0"
    while batch := await events.after(redis, run_id, cursor):
        cursor = batch[-1].id
        found += [frame.seq for frame in batch]
    return found


async def test_events_keep_their_order_in_few_commits(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    before = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        for number in range(5_000):
            journal.emit(note(number))
        await journal.flush()
    assert await numbers(redis, run_id) == list(range(5_000))
    calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
    assert calls < 30


async def test_meta_and_turn_records_come_with_the_events_around_them(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        for turn in (1, 2):
            journal.emit(note(turn))
            journal.set({"currentTurn": turn})
            journal.record_turn(TurnRecord(run_id=run_id, turn=turn, status="running", started_at="t", response_id="r"))
        await journal.flush()
    assert (await runs.fields(redis, run_id))["currentTurn"] == "2"
    assert [record.turn for record in await runs.turn_records(redis, run_id)] == [1, 2]


async def test_a_transition_waits_for_what_was_emitted_before_it(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        journal.emit(note(1))
        started = RunStarted(worker_id="w", host="h", fence=fence)
        assert await journal.transition("queued", "running", [started])
        journal.emit(note(2))
        await journal.flush()
    kinds = [json.loads(frame.data)["type"] for frame in await events.after(redis, run_id, "0-0")]
    assert kinds == ["run_queued", "warning", "run_started", "warning"]


async def test_a_conflict_uses_no_sequence_number(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        assert not await journal.transition("paused", "running", [note(0)])
        journal.emit(note(1))
        await journal.flush()
    assert await numbers(redis, run_id) == [1]
    assert await seqs(redis, run_id) == [1, 2]


async def test_a_fenced_journal_says_so_once_and_writes_nothing_more(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        await redis.delete(keys.lock(run_id))
        await leases.acquire(redis, run_id, worker_id=str(uuid.uuid4()), host="h", ttl_ms=60_000)
        journal.emit(note(1))
        assert isinstance(await journal.failed(), Fenced)
        journal.emit(note(2))
        with pytest.raises(Fenced):
            await journal.flush()
    assert await numbers(redis, run_id) == []


async def test_a_wiped_redis_and_one_set_back_are_told_apart(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with journal_of(redis, run_id, fence, tmp_path, last_seq=40) as journal:
        journal.emit(note(1))
        assert isinstance(await journal.failed(), SequenceGap)
    async with journal_of(redis, run_id, fence, tmp_path) as journal:
        await redis.flushdb()
        journal.emit(note(1))
        assert isinstance(await journal.failed(), StoreLost)


async def test_a_lost_reply_adds_nothing_twice(redis: Redis, valkey_url: str, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    async with Proxy(valkey_url) as proxy:
        through = connect(proxy.url, command_deadline_s=30)
        async with journal_of(through, run_id, fence, tmp_path) as journal:
            for number in range(40):
                # The script runs, its answer is thrown away with the connection.
                proxy.drop_replies = 1 if number % 4 == 0 else 0
                journal.emit(note(number))
                await journal.flush()
            assert proxy.dropped >= 10
        await through.aclose()
    assert await numbers(redis, run_id) == list(range(40))
    assert await seqs(redis, run_id) == list(range(1, 42))


async def test_what_is_said_while_redis_is_away_waits_on_disk_and_arrives_in_order(
    tmp_path: Path, eventually: Eventually
) -> None:
    server = EmbeddedServer(find_server_binary(None), tmp_path, appendfsync="always")
    await server.start()
    redis = connect(server.url, command_deadline_s=30)
    try:
        run_id, fence = await owned(redis)
        async with journal_of(redis, run_id, fence, tmp_path) as journal:
            journal.emit(note(0))
            await journal.flush()
            await server.stop()
            filler = "x" * 2_000
            for number in range(1, 12_000):
                journal.emit(WarningRaised(code=filler, message=str(number)))
            assert journal.buffered_bytes < MEMORY_BYTES + (2 << 20)
            assert (tmp_path / "spool").stat().st_size > 10 << 20
            await server.start()
            async with asyncio.timeout(100):
                await journal.flush()
            await eventually(lambda: (tmp_path / "spool").stat().st_size == 0)
        assert await numbers(redis, run_id) == list(range(12_000))
        assert await seqs(redis, run_id) == list(range(1, 12_002))
    finally:
        await redis.aclose()
        await server.stop()


async def test_when_disk_and_memory_are_full_plain_output_goes_first_and_is_counted(
    redis: Redis, tmp_path: Path
) -> None:
    run_id, fence = await owned(redis)
    # A spool without room: as on a full disk.
    journal = Journal(
        redis, run_id, fence=fence, last_seq=1, spool=Spool(tmp_path / "spool", max_bytes=0), buffer_bytes=1 << 20
    )
    try:
        text = "y" * 2_000
        for number in range(2_000):
            journal.emit(SubprocessOutput(stream="stdout", text=text))
            if number % 10 == 0:
                journal.emit(note(number))
        assert journal.dropped_bytes > 1 << 20
        await journal.flush()
        await journal.flush()
    finally:
        await journal.close()
    assert await numbers(redis, run_id) == list(range(0, 2_000, 10))
    said = [json.loads(frame.data) for frame in await events.after(redis, run_id, "0-0", count=10_000)]
    (warning,) = [event for event in said if event.get("code") == "events_dropped"]
    assert str(journal.dropped_bytes) in warning["message"]


async def test_large_events_are_fewer_in_redis(redis: Redis, tmp_path: Path) -> None:
    """50,000 events of 16 KiB would be 800 MB for one run."""
    run_id, fence = await owned(redis)
    text = "x" * 16_000
    async with journal_of(redis, run_id, fence, tmp_path, stream_bytes=4 << 20) as journal:
        for _ in range(4_000):
            journal.emit(WarningRaised(code="n", message=text))
        await journal.flush()
    kept = await redis.xlen(keys.events(run_id))
    assert KEPT_EVENTS <= kept < KEPT_EVENTS + 400
    ((_, last),) = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrevrange(keys.events(run_id), count=1))
    assert last[b"seq"] == b"4001"


async def left_out(redis: Redis, run_id: str) -> int:
    """How many events the run's warnings say were left out for the archive's sake."""
    counts = [0]
    cursor = "0-0"
    while batch := await events.after(redis, run_id, cursor):
        cursor = batch[-1].id
        said = [json.loads(frame.data) for frame in batch]
        counts += [int(one["message"].split()[0]) for one in said if one.get("code") == "events_dropped"]
    return sum(counts)


async def test_what_an_archive_far_behind_can_do_without_is_left_out_and_counted(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    source = ArchiveSource(redis)
    await source.tell_archived(run_id, 1)
    async with journal_of(redis, run_id, fence, tmp_path, stream_bytes=1) as journal:  # 1,000 events
        for number in range(10_000):
            journal.emit(Custom(name="x.y", data={}))
            if number % 50 == 0:
                journal.emit(note(number))
        await journal.flush()
        # Nothing that the archive lacks was trimmed.
        assert await seqs(redis, run_id) == list(range(1, journal.last_seq + 1))
        assert await numbers(redis, run_id) == list(range(0, 10_000, 50))
        told = await left_out(redis, run_id)
        assert 10_000 - told == journal.last_seq - 200 - 2  # the first event of the run and the warning
        assert 0 < told < 8_000
        # It comes closer: nothing is left out any more, and nothing is told twice.
        await source.tell_archived(run_id, journal.last_seq)
        await journal.flush()
        for _ in range(100):
            journal.emit(Custom(name="x.y", data={}))
        before = journal.last_seq
        await journal.flush()
        assert journal.last_seq == before + 100


async def test_what_was_left_out_is_told_before_the_end(redis: Redis, tmp_path: Path) -> None:
    run_id, fence = await owned(redis)
    await ArchiveSource(redis).tell_archived(run_id, 1)
    async with journal_of(redis, run_id, fence, tmp_path, stream_bytes=1) as journal:
        for _ in range(5_000):
            journal.emit(Custom(name="x.y", data={}))
        assert not await journal.transition("paused", "running", [note(0)])
        assert await left_out(redis, run_id) == 0  # refused, and the warning with it
        assert await journal.transition("queued", "running", [note(1)])
        told = await left_out(redis, run_id)
        assert 5_000 - told == journal.last_seq - 3
        assert told > 2_000


async def test_memory_is_bounded_whatever_waits(tmp_path: Path, valkey_url: str, redis: Redis) -> None:
    """Redis away, the spool full: what may be dropped is, and more of the rest than can be held ends the run here."""
    run_id, fence = await owned(redis)
    async with Proxy(valkey_url) as proxy:
        client = connect(proxy.url)
        journal = Journal(
            client, run_id, fence=fence, last_seq=1, spool=Spool(tmp_path / "spool", max_bytes=0), buffer_bytes=1 << 20
        )
        try:
            proxy.stall()
            for _ in range(40_000):
                journal.emit(Custom(name="x.y", data={"text": "c" * 1_000}))
            assert (journal.failure, journal.buffered_bytes < 2 << 20) == (None, True)
            assert journal.dropped_bytes > 30 << 20
            for _ in range(10_000):
                journal.emit(WarningRaised(code="n", message="w" * 1_000))
            assert journal.failure is not None
            assert journal.failure.code == "journal_broken"
            assert journal.buffered_bytes < 6 << 20
        finally:
            await journal.close()
            await client.aclose()
