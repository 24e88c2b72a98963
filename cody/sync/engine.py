"""The seven methods of an adapter over any storage, and the workers behind them.

An adapter is this class with a storage: `class MyAdapter(Engine): def __init__(self): super().__init__(MyStorage())`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Self
from uuid import uuid4

from cody.sync import retention, state, views
from cody.sync.clock import Clock
from cody.sync.contracts import TERMINAL, Chunk, JobSnapshot, Manifest, SourceSnapshot
from cody.sync.crew import Crew
from cody.sync.errors import SyncError, normalise
from cody.sync.policy import (
    ManifestBuilder,
    Policy,
    checksum_fault,
    chunk_fault,
    counts_fault,
    id_fault,
    parse_manifest,
)
from cody.sync.storage import JobRow, SourceRow, Storage, Write
from cody.sync.worker import Bench

CONTENTION_TRIES = 1000
"""Writes that lose to another caller's are made again; so many losses in a row are a backend that refuses
everything."""


@contextmanager
def canonical() -> Iterator[None]:
    """Whatever the backend raises comes out as a canonical error."""
    try:
        yield
    except Exception as failure:
        error = normalise(failure)
        if error is failure:
            raise
        raise error from failure


def contended(what: str) -> SyncError:
    """The backend refused every write of a caller."""
    return SyncError("backend_unavailable", f"{what} changed under every one of {CONTENTION_TRIES} writes; try again")


class Engine:
    """An adapter over `storage`. `async with` it, or `aclose()` it; its workers start with the first job."""

    def __init__(
        self,
        storage: Storage,
        *,
        policy: Policy | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        new_id: Callable[[], str] = lambda: uuid4().hex,
        poll_s: float | None = None,
        workers: int = 1,
    ) -> None:
        """`poll_s`: how often to look for what other processes wrote to the same storage; None when there are none.

        `workers`: jobs worked on at a time; 0 leaves them to other processes.
        """
        self.bench = Bench(storage, clock or Clock(), policy or Policy(), jitter, poll_s)
        self._new_id = new_id
        self._crew = Crew(self.bench, workers, new_id)

    async def __aenter__(self) -> Self:
        self._crew.open()
        self._crew.keep_working()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop the workers; a job they had is given back for the next one."""
        await self._crew.stop()

    async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
        """See Adapter.start; raises source_invalid for ids that cannot be."""
        thread_id = conversation_id if thread_id is None else thread_id
        fault = id_fault("conversation_id", conversation_id) or id_fault("thread_id", thread_id)
        if fault is not None:
            raise fault
        with canonical():
            for _ in range(CONTENTION_TRIES):
                known = await self.bench.storage.conversation(conversation_id)
                conversation = state.counted(known, conversation_id)
                source = state.new_source(
                    self._new_id(), conversation, thread_id, self.bench.policy.version, self.bench.clock.now()
                )
                if await self.bench.storage.commit(Write(conversation=conversation, source=source)):
                    return views.source_snapshot(source)
            raise contended(f"conversation {conversation_id}")

    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        """See Adapter.append."""
        chunk = Chunk(index=index, payload=payload, message_count=message_count, byte_size=byte_size)
        with canonical():
            for _ in range(CONTENTION_TRIES):
                source = await self._source(source_id)
                if source.state != "collecting":
                    raise SyncError("source_not_collecting", f"source {source_id} is {source.state}; start a new one")
                fault = chunk_fault(chunk, self.bench.policy)
                if fault is not None:
                    raise fault
                existing = await self.bench.storage.chunk(source_id, index)
                if existing == chunk:
                    return False
                if existing is not None:
                    kept = f"chunk {index} of source {source_id} is there with other bytes or counts; it stays as it is"
                    raise SyncError("chunk_conflict", kept)
                after = state.source_with(source, chunk, self.bench.clock.now())
                if await self.bench.storage.commit(Write(source=after, added=chunk)):
                    return True
            raise contended(f"source {source_id}")

    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        """See Adapter.seal; the manifest may be its JSON object."""
        with canonical():
            proven: SourceRow | None = None
            for _ in range(CONTENTION_TRIES):
                source = await self._source(source_id)
                if source.job_id is not None:
                    return views.job_snapshot(await self._job(source.job_id))
                if source.error_code is not None:
                    raise SyncError(source.error_code, source.error_message or "")
                if source != proven:
                    fault = await self._fault(source, expected_manifest, expected_checksum, expected_message_count)
                    if fault is not None:
                        failed = state.source_failed(source, fault, self.bench.clock.now())
                        if await self.bench.storage.commit(Write(source=failed, forget_sources=(source_id,))):
                            raise fault
                        continue
                    proven = source
                job = await self._admit(source, expected_checksum, expected_message_count)
                if job is not None:
                    return views.job_snapshot(job)
            raise contended(f"source {source_id}")

    async def get(self, job_id: str) -> JobSnapshot:
        """See Adapter.get."""
        with canonical():
            job = await self._job(job_id)
            if job.state not in TERMINAL:
                self._crew.keep_working()  # its worker may have ended with the event loop of an earlier call
            return views.job_snapshot(job)

    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        """See Adapter.list."""
        with canonical():
            return [views.job_snapshot(job) for job in await self.bench.storage.jobs(conversation_id)]

    async def cancel(self, job_id: str) -> JobSnapshot:
        """See Adapter.cancel. It holds at once: whatever the worker does next is refused."""
        with canonical():
            for _ in range(CONTENTION_TRIES):
                job = await self._job(job_id)
                if job.state in TERMINAL:
                    return views.job_snapshot(job)
                error = SyncError("job_cancelled", f"job {job_id} was cancelled on request")
                after = state.cancelled(job, error, self.bench.clock.now())
                if await self.bench.storage.commit(state.ended(after)):
                    self.bench.clock.ring()
                    return views.job_snapshot(after)
            raise contended(f"job {job_id}")

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        """See Adapter.wait_for_terminal."""
        clock = self.bench.clock
        deadline = None if timeout is None else clock.now() + timedelta(seconds=timeout)
        with canonical():
            while True:
                seen = clock.rings
                job = await self._job(job_id)
                if job.state in TERMINAL:
                    return views.job_snapshot(job)
                if deadline is not None and deadline <= clock.now():
                    done = f"{job.applied_chunks} of {job.total_chunks} chunks"
                    raise SyncError("timeout", f"job {job_id} is still {job.state} after {timeout} s ({done})")
                self._crew.keep_working()
                until = deadline
                if self.bench.poll_s is not None:
                    poll = clock.now() + timedelta(seconds=self.bench.poll_s)
                    until = poll if until is None else min(until, poll)
                await clock.wait(seen, until)

    async def prune(self) -> int:
        """Drop what is older than the policy keeps: sources that nobody sealed, and jobs that have ended, but no record.

        The number of sources. Who still sends to one of them is told source_not_found, and begins anew.
        """
        with canonical():
            return await retention.prune(self.bench)

    async def read(self, conversation_id: str) -> AsyncIterator[bytes]:
        """The verified record, chunk by chunk.

        Raises source_not_found when the conversation has none, backend_unavailable when it was replaced while being
        read.
        """
        with canonical():
            conversation = await self.bench.storage.conversation(conversation_id)
            if conversation is None or conversation.record_job_id is None:
                raise SyncError("source_not_found", f"conversation {conversation_id} has no verified record")
            job = await self._job(conversation.record_job_id)
            index = 0
            async for chunk in self.bench.storage.record(job.job_id):
                if chunk.index != index:
                    break
                index += 1
                yield chunk.payload
            if index != job.total_chunks:
                replaced = f"the record of conversation {conversation_id} was replaced while it was read; read it again"
                raise SyncError("backend_unavailable", replaced)

    async def _fault(
        self,
        source: SourceRow,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None,
    ) -> SyncError | None:
        """What is wrong with the source, or None; payloads are read one at a time, and only when the counts are
        right."""
        try:
            expected = parse_manifest(expected_manifest)
        except SyncError as refusal:
            return refusal
        collected = state.manifest_of(source)
        fault = counts_fault(source.source_id, collected, source.highest_index, expected, expected_message_count)
        if fault is not None:
            return fault
        found = ManifestBuilder()
        for index in range(source.total_chunks):
            chunk = await self.bench.storage.chunk(source.source_id, index)
            if chunk is None:
                return SyncError(
                    "source_invalid", f"chunk {index} of source {source.source_id} is gone from the backend"
                )
            found.add(chunk)
            await asyncio.sleep(0)  # a storage that never waits would keep the loop to itself
        return checksum_fault(source.source_id, expected_checksum, found.checksum)

    async def _admit(self, source: SourceRow, checksum: str, expected_message_count: int | None) -> JobRow | None:
        """The job of a source that is proved to be right, or None when something changed meanwhile."""
        bench = self.bench
        conversation = await bench.storage.conversation(source.conversation_id)
        if conversation is None:
            raise SyncError("source_not_found", f"conversation {source.conversation_id} is gone from the backend")
        current = await bench.storage.job(conversation.current_job_id) if conversation.current_job_id else None
        now = bench.clock.now()
        sealed, job = state.new_job(self._new_id(), source, checksum, expected_message_count, bench.policy.version, now)
        conversation, jobs = state.admitted(job, conversation, current, now)
        over = [job for job in jobs if job.state in TERMINAL]
        write = Write(
            conversation=conversation,
            source=sealed,
            jobs=jobs,
            forget_sources=tuple(job.source_id for job in over),
            forget_records=tuple(job.job_id for job in over),
        )
        if not await bench.storage.commit(write):
            return None
        bench.clock.ring()
        self._crew.keep_working()
        return jobs[0]

    async def _source(self, source_id: str) -> SourceRow:
        source = await self.bench.storage.source(source_id)
        if source is None:
            raise SyncError("source_not_found", f"no source {source_id}")
        return source

    async def _job(self, job_id: str) -> JobRow:
        job = await self.bench.storage.job(job_id)
        if job is None:
            raise SyncError("job_not_found", f"no job {job_id}")
        return job
