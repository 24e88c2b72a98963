"""What was abandoned, or ended long ago, does not stay for ever; what was verified does."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cody.pipeline.archive import Archive
from cody.sync.adapters.memory import MemoryAdapter, MemoryStorage
from cody.sync.adapters.sql import SqlAdapter
from cody.sync.clock import ManualClock
from cody.sync.conformance.kit import Record
from cody.sync.contracts import JobSnapshot, SourceSnapshot
from cody.sync.errors import SyncError
from cody.sync.policy import Policy
from cody.sync.storage import SourceRow, Write
from server.sync_host import SyncHost
from tests.conftest import Wait
from tests.pipeline.postgres_server import new_database

POLICY = Policy(keep_s=100.0)
RECORD = Record("kept", chunks=4)
KeepingAdapter = MemoryAdapter | SqlAdapter


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeepingAdapter]:
    clock = ManualClock()
    match request.param:
        case "memory":
            async with MemoryAdapter(policy=POLICY, clock=clock) as memory:
                yield memory
        case "sqlite":
            async with SqlAdapter(f"sqlite:///{tmp_path}/sync.sqlite3", policy=POLICY, clock=clock) as sql:
                yield sql
        case _:
            database = new_database(request.getfixturevalue("postgres_url"))
            async with database as url, SqlAdapter(url, policy=POLICY, clock=clock) as sql:
                yield sql


async def collecting(adapter: KeepingAdapter, conversation_id: str, chunks: int = 3) -> SourceSnapshot:
    source = await adapter.start(conversation_id)
    for chunk in RECORD.chunks[:chunks]:
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    return source


async def sealed(adapter: KeepingAdapter, conversation_id: str) -> JobSnapshot:
    source = await collecting(adapter, conversation_id, 4)
    job = await adapter.seal(source.source_id, RECORD.manifest, RECORD.checksum)
    return await adapter.wait_for_terminal(job.job_id, 60)


async def code_of(adapter: KeepingAdapter, source: SourceSnapshot, index: int = 3) -> str:
    chunk = RECORD.chunks[index]
    try:
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    except SyncError as error:
        return error.code
    return "taken"


async def has_chunk(adapter: KeepingAdapter, source: SourceSnapshot) -> bool:
    return await adapter.bench.storage.chunk(source.source_id, 0) is not None


async def test_a_source_that_nobody_goes_on_with_is_dropped_with_its_chunks(adapter: KeepingAdapter) -> None:
    old, slow = await collecting(adapter, "old"), await collecting(adapter, "slow", 2)
    adapter.bench.clock.step(60)
    assert await code_of(adapter, slow, 2) == "taken"
    adapter.bench.clock.step(60)
    assert await adapter.prune() == 1
    assert not await has_chunk(adapter, old)
    assert await code_of(adapter, old) == "source_not_found"
    assert await has_chunk(adapter, slow)
    assert await code_of(adapter, slow) == "taken"
    assert await adapter.prune() == 0
    assert (await sealed(adapter, "old")).state == "succeeded"


async def test_a_refused_source_and_jobs_that_ended_are_dropped_and_the_record_stays(adapter: KeepingAdapter) -> None:
    refused = await collecting(adapter, "c", 1)
    with pytest.raises(SyncError):
        await adapter.seal(refused.source_id, RECORD.manifest, RECORD.checksum)
    first, second = await sealed(adapter, "c"), await sealed(adapter, "c")
    adapter.bench.clock.step(60)
    assert await adapter.prune() == 0
    adapter.bench.clock.step(60)
    assert await adapter.prune() == 2
    assert [job.job_id for job in await adapter.list("c")] == [second.job_id]
    with pytest.raises(SyncError, match="job_not_found"):
        await adapter.get(first.job_id)
    assert b"".join([piece async for piece in adapter.read("c")]) == RECORD.payload
    third = await sealed(adapter, "c")
    assert third.state == "succeeded"
    adapter.bench.clock.step(120)
    assert await adapter.prune() == 1
    assert [job.job_id for job in await adapter.list("c")] == [third.job_id]


async def test_a_job_that_waits_is_not_dropped_however_old(database_url: str) -> None:
    async with SqlAdapter(database_url, policy=POLICY, clock=ManualClock(), workers=0) as adapter:
        source = await collecting(adapter, "waits", 4)
        job = await adapter.seal(source.source_id, RECORD.manifest, RECORD.checksum)
        adapter.bench.clock.step(1_000)
        assert await adapter.prune() == 0
        assert (await adapter.get(job.job_id)).state == "queued"
        await adapter.cancel(job.job_id)
        assert await adapter.prune() == 0, "it has only just ended"
        adapter.bench.clock.step(1_000)
        assert await adapter.prune() == 1


async def test_a_source_that_is_written_to_just_now_is_not_dropped() -> None:
    class WrittenTo(MemoryStorage):
        """Somebody appends between the look and the drop."""

        async def commit(self, write: Write) -> bool:
            for source in write.dropped:
                chunk = RECORD.chunks[source.total_chunks]
                after = await self.source(source.source_id)
                assert after is not None
                assert await super().commit(Write(source=grown(after), added=chunk))
            return await super().commit(write)

    async with MemoryAdapter(WrittenTo(), policy=POLICY, clock=ManualClock()) as adapter:
        source = await collecting(adapter, "busy", 2)
        adapter.bench.clock.step(200)
        assert await adapter.prune() == 0
        assert await has_chunk(adapter, source)


def grown(source: SourceRow) -> SourceRow:
    return replace(source, total_chunks=source.total_chunks + 1, revision=source.revision + 1)


async def test_nothing_of_a_dropped_source_is_left_in_any_table(tmp_path: Path) -> None:
    path = tmp_path / "sync.sqlite3"
    async with SqlAdapter(f"sqlite:///{path}", policy=POLICY, clock=ManualClock()) as adapter:
        await collecting(adapter, "left")
        replaced = await sealed(adapter, "c")
        await adapter.taken_in(replaced.job_id)
        kept = await sealed(adapter, "c")
        await adapter.taken_in(kept.job_id)
        adapter.bench.clock.step(200)
        assert await adapter.prune() == 2
    with sqlite3.connect(path) as database:
        rows = {
            table: database.execute(f"SELECT count(*) FROM sync_{table}").fetchone()[0]
            for table in ("sources", "jobs", "chunks", "records", "taken_in")
        }
    database.close()
    assert rows == {"sources": 1, "jobs": 1, "chunks": 0, "records": len(RECORD.chunks), "taken_in": 1}


async def test_what_is_dropped_makes_room_and_goes_through_no_journal(tmp_path: Path) -> None:
    path, payload = tmp_path / "sync.sqlite3", b"x" * (1 << 19)

    async def fill(adapter: SqlAdapter) -> int:
        source = await adapter.start("large")
        for index in range(40):
            await adapter.append(source.source_id, index, payload, 1, len(payload))
        return path.stat().st_size

    async with SqlAdapter(f"sqlite:///{path}", policy=POLICY, clock=ManualClock()) as adapter:
        await fill(adapter)
        journal = path.with_name(path.name + "-wal").stat().st_size
        adapter.bench.clock.step(200)
        assert await adapter.prune() == 1
        assert path.with_name(path.name + "-wal").stat().st_size < journal + (1 << 20)
        size = path.stat().st_size
        assert await fill(adapter) < size + (4 << 20)
    path.unlink()


async def test_a_server_drops_them_by_itself(database_url: str, tmp_path: Path, eventually: Wait) -> None:
    archive = Archive(database_url, tmp_path)

    async def opened() -> Archive:
        return archive

    async def is_ours(run_id: str) -> bool:
        return False

    async with SyncHost(database_url, tmp_path, opened, is_ours, keep_s=1_000.0, prune_every_s=0.05) as host:
        engine = await host.engine()
        verified = await sealed(engine, "verified")
        old = await collecting(engine, "old", 0)
        engine.bench.clock.step(2_000)

        async def is_dropped() -> bool:
            return await engine.bench.storage.source(old.source_id) is None

        await eventually(is_dropped, "what was abandoned is dropped")
        assert (await engine.get(verified.job_id)).state == "succeeded"
    await archive.aclose()
