"""A backend that is away, refuses everything, or has lost what it kept."""

from __future__ import annotations

import asyncio

import pytest

from cody.sync.adapters.memory import MemoryAdapter, MemoryStorage
from cody.sync.clock import ManualClock
from cody.sync.conformance.faults import FaultyStorage
from cody.sync.conformance.kit import Record
from cody.sync.contracts import JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.storage import JobRow, Write
from cody.sync.worker import Worker

RECORD = Record("engine", chunks=6)
DEADLINE_S = 60.0


async def sealed(adapter: MemoryAdapter, conversation_id: str = "c", record: Record = RECORD) -> JobSnapshot:
    source = await adapter.start(conversation_id)
    for chunk in record.chunks:
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    return await adapter.seal(source.source_id, record.manifest, record.checksum)


async def read(adapter: MemoryAdapter, conversation_id: str = "c") -> bytes:
    return b"".join([payload async for payload in adapter.read(conversation_id)])


async def row_of(storage: MemoryStorage, job_id: str) -> JobRow:
    row = await storage.job(job_id)
    assert row is not None
    return row


async def test_an_outage_of_the_whole_backend_is_waited_out() -> None:
    clock, storage = ManualClock(), MemoryStorage()

    class Away(FaultyStorage):
        away = True

        async def next_job(self) -> JobRow | None:
            if self.away:
                raise ConnectionError("no route")
            return await super().next_job()

    adapter = MemoryAdapter(storage, clock=clock, jitter=lambda: 0.99)
    away = Away(storage)
    adapter.bench.storage = away
    job = await sealed(adapter)
    for _ in range(5):
        clock.step(60)
        await asyncio.sleep(0)
    assert (await adapter.get(job.job_id)).state == "queued"
    away.away = False
    waiting = asyncio.create_task(adapter.wait_for_terminal(job.job_id))
    await asyncio.sleep(0)
    clock.step(60)
    assert (await asyncio.wait_for(waiting, DEADLINE_S)).state == "succeeded"


async def test_a_callers_own_outage_is_backend_unavailable() -> None:
    class Away(MemoryStorage):
        async def job(self, job_id: str) -> JobRow | None:
            raise OSError("disk is gone")

    adapter = MemoryAdapter(Away())
    with pytest.raises(SyncError, match=r"backend_unavailable.*disk is gone") as caught:
        await adapter.get("j")
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_backend_that_refuses_every_write_is_not_asked_for_ever() -> None:
    class Refusing(MemoryStorage):
        refuse = False

        async def commit(self, write: Write) -> bool:
            return False if self.refuse else await super().commit(write)

    storage = Refusing()
    adapter = MemoryAdapter(storage, workers=0)
    job = await sealed(adapter)
    worker = Worker(adapter.bench, "w")
    taken = await worker.take(await row_of(storage, job.job_id))
    assert taken is not None
    storage.refuse = True
    with pytest.raises(SyncError, match="backend_unavailable"):
        await worker.advance(taken)
    with pytest.raises(SyncError, match="backend_unavailable"):
        await worker.take(await row_of(storage, job.job_id))
    storage.refuse = False
    while taken.state != "verifying":
        taken = await worker.advance(taken)
    storage.refuse = True
    with pytest.raises(SyncError, match="backend_unavailable"):
        await worker.advance(taken)
    with pytest.raises(SyncError, match="backend_unavailable"):
        await adapter.start("c")
    with pytest.raises(SyncError, match="backend_unavailable"):
        await adapter.cancel(job.job_id)


async def test_a_sealed_chunk_that_is_gone_fails_job_and_source() -> None:
    storage = MemoryStorage()
    adapter = MemoryAdapter(storage, workers=0)
    job = await sealed(adapter)
    row = await row_of(storage, job.job_id)
    source = await storage.source(row.source_id)
    assert source is not None
    await storage.commit(Write(forget_sources=(row.source_id,)))
    async with MemoryAdapter(storage) as worker:
        end = await worker.wait_for_terminal(job.job_id)
        assert (end.state, end.source_state) == ("failed", "failed")
        assert end.last_error is not None
        assert end.last_error.code == "source_invalid"
        again = await worker.seal(row.source_id, RECORD.manifest, RECORD.checksum)
        assert again == end
    failed = await storage.source(row.source_id)
    assert failed is not None
    assert failed.state == "failed"
