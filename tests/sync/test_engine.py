"""The engine over memory: restarts, workers of several engines on one storage, closing, reading, outages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from cody.sync.adapters.memory import MemoryAdapter, MemoryStorage
from cody.sync.chunking import chunk_lines
from cody.sync.clock import ManualClock
from cody.sync.conformance.faults import FaultyStorage
from cody.sync.conformance.kit import Record
from cody.sync.contracts import Adapter, JobSnapshot, Readable
from cody.sync.engine import Engine
from cody.sync.errors import SyncError
from cody.sync.policy import ManifestBuilder, Policy
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


def test_the_reference_is_an_adapter_that_can_be_read() -> None:
    assert isinstance(MemoryAdapter(), Adapter)
    assert isinstance(MemoryAdapter(), Readable)


async def test_a_file_goes_over_as_it_is() -> None:
    lines = [f'{{"turn": {number}, "text": "\u00fc\u2028"}}\n'.encode() for number in range(500)]
    adapter, builder = MemoryAdapter(), ManifestBuilder()
    source = await adapter.start("run-1", thread_id="thread-1")
    for chunk in builder.through(chunk_lines(lines, max_bytes=1000)):
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    job = await adapter.seal(source.source_id, builder.manifest.model_dump(), builder.checksum, 500)
    end = await adapter.wait_for_terminal(job.job_id)
    assert (end.state, end.processed_message_count, end.thread_id) == ("succeeded", 500, "thread-1")
    assert await read(adapter, "run-1") == b"".join(lines)


def test_an_adapter_outlives_the_event_loops_that_it_is_called_on() -> None:
    adapter = MemoryAdapter()
    job = asyncio.run(sealed(adapter))
    assert asyncio.run(adapter.wait_for_terminal(job.job_id, DEADLINE_S)).state == "succeeded"
    assert asyncio.run(read(adapter)) == RECORD.payload


def test_a_caller_that_only_polls_sees_the_end_too() -> None:
    adapter = MemoryAdapter()
    job = asyncio.run(sealed(adapter))  # the worker ends with this loop

    async def polled() -> JobSnapshot:
        async with asyncio.timeout(DEADLINE_S):
            while (now := await adapter.get(job.job_id)).state != "succeeded":
                await asyncio.sleep(0)
        return now

    assert asyncio.run(polled()).processed_chunk_index == 5


async def test_a_worker_that_is_stopped_gives_its_job_back_at_once() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    first = MemoryAdapter(storage, clock=clock)
    faulty = FaultyStorage(storage)
    gate = faulty.hold("apply", skip=2)
    first.bench.storage = faulty
    job = await sealed(first)
    await asyncio.wait_for(gate.reached.wait(), DEADLINE_S)
    await first.aclose()
    assert (await row_of(storage, job.job_id)).state == "queued"
    # Time stands still: nothing but the giving back lets the next worker have it.
    async with MemoryAdapter(storage, clock=clock) as second:
        end = await second.wait_for_terminal(job.job_id)
        assert (end.state, end.retry_count) == ("succeeded", 0)
        assert await read(second) == RECORD.payload


async def test_a_closed_adapter_works_on_nothing_until_it_is_opened_again() -> None:
    clock = ManualClock()
    adapter = MemoryAdapter(clock=clock)
    await adapter.aclose()
    job = await sealed(adapter)
    with pytest.raises(SyncError, match="timeout"):
        await adapter.wait_for_terminal(job.job_id, 0)
    async with adapter:
        assert (await adapter.wait_for_terminal(job.job_id)).state == "succeeded"


async def test_many_engines_on_one_storage_apply_every_chunk_once() -> None:
    class Counting(MemoryStorage):
        def __init__(self) -> None:
            super().__init__()
            self.applied: list[tuple[str, int]] = []

        async def commit(self, write: Write) -> bool:
            await asyncio.sleep(0)
            stored = await super().commit(write)
            if stored and write.applied is not None:
                self.applied.append((write.jobs[0].job_id, write.applied.index))
            return stored

    storage, clock = Counting(), ManualClock()
    adapters = [MemoryAdapter(storage, clock=clock, workers=2) for _ in range(3)]
    jobs = await asyncio.gather(*(sealed(adapters[number % 3], f"c{number}") for number in range(12)))
    for number, job in enumerate(jobs):
        end = await adapters[(number + 1) % 3].wait_for_terminal(job.job_id)
        assert (end.state, end.retry_count) == ("succeeded", 0)
        assert await read(adapters[0], f"c{number}") == RECORD.payload
    assert sorted(storage.applied) == sorted((job.job_id, index) for job in jobs for index in range(6))
    for adapter in adapters:
        await adapter.aclose()


async def test_a_lease_is_renewed_while_a_long_record_is_verified() -> None:
    clock, storage = ManualClock(), MemoryStorage()

    class Slow(FaultyStorage):
        """Each chunk that is read back takes a third of a lease."""

    adapter = MemoryAdapter(storage, clock=clock, policy=Policy(lease_s=30))
    slow = Slow(storage)

    def takes_time(chunk: object) -> Sequence[object]:
        clock.step(10)
        return [chunk]

    slow.distortion = takes_time  # type: ignore[assignment]  # hands on what it gets
    adapter.bench.storage = slow
    job = await sealed(adapter)
    renewed: list[timedelta] = []
    while (row := await row_of(storage, job.job_id)).state not in ("succeeded", "failed"):
        if row.state == "verifying" and row.due_at is not None:
            renewed.append(row.due_at - clock.now())
        await asyncio.sleep(0)
    assert row.state == "succeeded"
    assert row.lease_version == 1
    assert renewed
    assert min(renewed) > timedelta()


async def test_a_manifest_that_is_none_fails_the_source() -> None:
    adapter = MemoryAdapter()
    source = await adapter.start("c")
    for _ in range(2):
        with pytest.raises(SyncError, match="manifest_invalid"):
            await adapter.seal(source.source_id, {"total_chunks": "many"}, RECORD.checksum)


@pytest.mark.parametrize(("conversation_id", "thread_id"), [("", None), ("a\nb", None), ("c", ""), ("c" * 513, None)])
async def test_an_id_that_cannot_be_is_refused(conversation_id: str, thread_id: str | None) -> None:
    with pytest.raises(SyncError, match="source_invalid"):
        await MemoryAdapter().start(conversation_id, thread_id)


async def test_a_source_that_is_started_while_a_job_ends_does_not_stop_it() -> None:
    adapter = MemoryAdapter()
    faulty = FaultyStorage(adapter.bench.storage)
    gate = faulty.hold("publish")
    adapter.bench.storage = faulty
    job = await sealed(adapter)
    await asyncio.wait_for(gate.reached.wait(), DEADLINE_S)
    await adapter.start("c")
    gate.open()
    end = await adapter.wait_for_terminal(job.job_id)
    assert (end.state, end.retry_count) == ("succeeded", 0)


@pytest.mark.parametrize("doing", ["running", "verifying"])
async def test_a_worker_whose_job_was_cancelled_under_it_has_lost_it(doing: str) -> None:
    storage = MemoryStorage()
    adapter = MemoryAdapter(storage, workers=0)
    job = await sealed(adapter)
    worker = Worker(adapter.bench, "w")
    taken = await worker.take(await row_of(storage, job.job_id))
    assert taken is not None
    taken = await worker.advance(taken)
    while taken.state != doing:
        taken = await worker.advance(taken)
    assert [chunk.index async for chunk in storage.record(job.job_id)] == list(range(taken.applied_chunks))
    await adapter.cancel(job.job_id)
    assert [chunk async for chunk in storage.record(job.job_id)] == []
    with pytest.raises(SyncError, match=r"lease_lost.*cancelled"):
        await worker.advance(taken)


async def test_of_a_job_that_is_replaced_half_way_nothing_is_kept() -> None:
    storage = MemoryStorage()
    adapter = MemoryAdapter(storage, workers=0)
    older = await sealed(adapter)
    worker = Worker(adapter.bench, "w")
    taken = await worker.take(await row_of(storage, older.job_id))
    assert taken is not None
    await worker.advance(taken)
    newer = await sealed(adapter)
    assert (await adapter.get(older.job_id)).state == "cancelled"
    assert [chunk async for chunk in storage.record(older.job_id)] == []
    assert await storage.chunk(taken.source_id, 0) is None
    assert await storage.chunk((await row_of(storage, newer.job_id)).source_id, 0) is not None


async def test_what_another_process_wrote_is_found_by_polling() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    here = MemoryAdapter(storage, clock=ManualClock(), workers=0)  # its clock's rings are not heard by the other one
    there = Engine(storage, clock=clock, poll_s=5)
    async with there:
        await asyncio.sleep(0)
        job = await sealed(here)
        waiting = asyncio.create_task(there.wait_for_terminal(job.job_id))
        async with asyncio.timeout(DEADLINE_S):
            while not waiting.done():
                clock.step(5)
                await asyncio.sleep(0)
        assert (await waiting).state == "succeeded"


async def test_a_worker_that_is_alone_stops_when_all_is_done() -> None:
    adapter = MemoryAdapter()
    job = await sealed(adapter)
    await adapter.wait_for_terminal(job.job_id)
    workers = {task for task in asyncio.all_tasks() if task.get_name().startswith("sync-worker")}
    if workers:
        done, pending = await asyncio.wait(workers, timeout=DEADLINE_S)
        assert done
        assert not pending


async def test_nothing_is_kept_of_what_is_over_but_the_record() -> None:
    storage = MemoryStorage()
    async with MemoryAdapter(storage) as adapter:
        for number in range(3):
            job = await sealed(adapter)
            await (adapter.cancel if number == 1 else adapter.wait_for_terminal)(job.job_id)
        refused = await adapter.start("c")
        with pytest.raises(SyncError):
            await adapter.seal(refused.source_id, RECORD.manifest, RECORD.checksum)
        ids = [job.job_id for job in await adapter.list("c")]
        sources = {(await row_of(storage, job_id)).source_id for job_id in ids} | {refused.source_id}
        assert [await storage.chunk(source_id, 0) for source_id in sources] == [None] * 4
        kept = [job_id for job_id in ids if [chunk async for chunk in storage.record(job_id)]]
        assert kept == ids[:1]


async def test_a_record_that_is_replaced_under_its_reader_is_not_passed_off_as_whole() -> None:
    class Dropping(MemoryStorage):
        """As SQL does: what is dropped is gone for readers too."""

    storage = Dropping()
    adapter = MemoryAdapter(storage)
    job = await sealed(adapter)
    await adapter.wait_for_terminal(job.job_id)
    faulty = FaultyStorage(storage)
    faulty.distortion = lambda chunk: [chunk] if chunk.index < 3 else []
    adapter.bench.storage = faulty
    with pytest.raises(SyncError, match=r"backend_unavailable.*read it again"):
        await read(adapter)


async def test_waiting_on_a_manual_clock_ends_when_it_is_stepped() -> None:
    clock = ManualClock()
    adapter = MemoryAdapter(clock=clock, workers=0)
    job = await sealed(adapter)
    waiting = asyncio.create_task(adapter.wait_for_terminal(job.job_id, timeout=3600))
    await asyncio.sleep(0)
    clock.step(3599)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    clock.step(1)
    with pytest.raises(SyncError, match=r"timeout.*still queued"):
        await asyncio.wait_for(waiting, DEADLINE_S)
