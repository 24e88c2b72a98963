"""The worker: claims a job, applies its chunks one by one, backs off, verifies what arrived, ends it.

Every step reads the job's row and commits the next one over exactly that revision. A worker that was frozen, cut off or
replaced meanwhile commits nothing; a step whose answer was lost is found done when the row is read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cody.sync import state
from cody.sync.clock import Clock
from cody.sync.contracts import TERMINAL, Chunk
from cody.sync.errors import SyncError, normalise
from cody.sync.policy import ManifestBuilder, Policy, record_fault, retry_delay_s
from cody.sync.storage import JobRow, Storage, Write

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Bench:
    """What workers work with. An adapter that shows its own as `bench` lets the conformance kit inject faults: the kit
    puts another storage in front of this one, and steps the clock."""

    storage: Storage
    clock: Clock
    policy: Policy
    jitter: Callable[[], float]
    """A number in [0, 1): random.random."""
    poll_s: float | None = None
    """How often to look for what other processes wrote; None when there are none: a worker then stops when all is
    done."""


class Worker:
    """One worker under its own name; it has at most one job at a time."""

    def __init__(self, bench: Bench, worker_id: str) -> None:
        self._bench = bench
        self.worker_id = worker_id

    async def run(self) -> None:
        """Work off jobs as they come due, until cancelled; without a poll interval, until every job has ended."""
        bench, outages = self._bench, 0
        while True:
            seen = bench.clock.rings
            try:
                job = await bench.storage.next_job()
                outages = 0
                if job is None or job.due_at is None:
                    if bench.poll_s is None and bench.clock.rings == seen:
                        return
                    until = None
                elif job.due_at <= bench.clock.now():
                    taken = await self.take(job)
                    if taken is not None:
                        await self.work(taken)
                    continue
                else:
                    until = job.due_at
                if bench.poll_s is not None:
                    poll = bench.clock.now() + timedelta(seconds=bench.poll_s)
                    until = poll if until is None else min(until, poll)
            except Exception as failure:
                # The backend is away, and with it the row to write that down in: the lease runs out, the job is
                # claimed anew.
                outages += 1
                log.warning("sync.backend_failed worker_id=%s error=%s", self.worker_id, normalise(failure))
                delay_s = retry_delay_s(outages, bench.policy, bench.jitter)
                until = bench.clock.now() + timedelta(seconds=delay_s)
            await bench.clock.wait(seen, until)

    async def take(self, job: JobRow) -> JobRow | None:
        """Claim a job that is due: the row as ours, or None when another was faster or the job is beyond help."""
        policy = self._bench.policy
        claimed = state.claimed(job, self.worker_id, self._bench.clock.now(), policy.lease_s, policy.max_failures)
        if not await self._bench.storage.commit(state.ended(claimed)):
            if await self._bench.storage.job(job.job_id) == job:
                raise _refused(job)
            return None
        if claimed.state in TERMINAL:
            log.warning("sync.job_given_up job_id=%s retry_count=%d", claimed.job_id, claimed.retry_count)
            self._bench.clock.ring()
            return None
        return claimed

    async def work(self, job: JobRow) -> None:
        """Take a claimed job as far as it goes: to its end, to a back-off, or until it is not ours any more."""
        try:
            while job.state not in TERMINAL:
                try:
                    await asyncio.sleep(0)  # a storage that never waits would keep the loop to itself
                    job = await self.advance(job)
                except asyncio.CancelledError:
                    await self._release(job)
                    raise
                except Exception as failure:
                    error = normalise(failure)
                    if error.code == "lease_lost":
                        raise error from None
                    await self._give_up(job, error)
                    return
        except SyncError as error:
            if error.code != "lease_lost":
                raise
            log.info("sync.job_left job_id=%s worker_id=%s why=%s", job.job_id, self.worker_id, error.message)

    async def advance(self, job: JobRow) -> JobRow:
        """One step of a claimed job: a chunk applied, or the whole verified; the row after it.

        Raises lease_lost when the job is not ours any more, source_invalid when a sealed chunk is gone,
        verification_failed when the target is not what was sealed.
        """
        if job.state == "verifying":
            return await self._verify(job)
        if job.applied_chunks == job.total_chunks:
            return await self._commit(job, state.all_applied(job, self._now(), self._lease_s))
        chunk = await self._bench.storage.chunk(job.source_id, job.applied_chunks)
        if chunk is None:
            await self.still_ours(job)  # a cancelled job's chunks are dropped
            lost = f"chunk {job.applied_chunks} of source {job.source_id} is gone from the backend"
            raise SyncError("source_invalid", lost)
        return await self._commit(job, state.applied(job, chunk, self._now(), self._lease_s), applied=chunk)

    async def still_ours(self, job: JobRow) -> JobRow:
        """The row as it is stored now; raises lease_lost when somebody else has the job or it has ended."""
        fresh = await self._bench.storage.job(job.job_id)
        if fresh is None:
            raise SyncError("lease_lost", f"job {job.job_id} is gone from the backend")
        if fresh.state in TERMINAL:
            raise SyncError("lease_lost", f"job {job.job_id} has ended meanwhile ({fresh.state})")
        if fresh.lease_version != job.lease_version or fresh.worker_id != self.worker_id:
            lost = f"worker {self.worker_id} lost job {job.job_id}: its lease {job.lease_version} is over"
            raise SyncError("lease_lost", lost)
        return fresh

    async def _commit(self, job: JobRow, after: JobRow, applied: Chunk | None = None) -> JobRow:
        if await self._bench.storage.commit(Write(jobs=(after,), applied=applied)):
            return after
        fresh = await self.still_ours(job)
        if fresh.revision <= job.revision:
            raise _refused(job)
        return fresh

    async def _verify(self, job: JobRow) -> JobRow:
        found = ManifestBuilder()
        async for chunk in self._bench.storage.record(job.job_id):
            if chunk.index != found.total_chunks:
                await self.still_ours(job)
                lost = f"job {job.job_id}: chunk {chunk.index} arrived where chunk {found.total_chunks} was due"
                raise SyncError("verification_failed", lost)
            found.add(chunk)
            await asyncio.sleep(0)
            job = await self._renew_in_time(job)
        fault = record_fault(job.job_id, state.manifest_of(job), job.checksum, found)
        if fault is not None:
            await self.still_ours(job)  # what arrived of a cancelled job is dropped
            raise fault
        return await self._publish(job)

    async def _publish(self, job: JobRow) -> JobRow:
        seen = None
        while True:
            conversation = await self._bench.storage.conversation(job.conversation_id)
            if conversation is None or conversation == seen:
                raise _refused(job)
            record, done = state.verified(job, conversation, self._now())
            stale = conversation.record_job_id
            write = Write(
                conversation=record,
                jobs=(done,),
                forget_sources=(job.source_id,),
                forget_records=() if stale is None else (stale,),
            )
            if await self._bench.storage.commit(write):
                self._bench.clock.ring()
                return done
            job, seen = await self.still_ours(job), conversation  # a source was started meanwhile, or the job is lost

    async def _renew_in_time(self, job: JobRow) -> JobRow:
        if job.due_at is not None and job.due_at - self._now() > timedelta(seconds=self._lease_s / 2):
            return job
        return await self._commit(job, state.renewed(job, self._now(), self._lease_s))

    async def _give_up(self, job: JobRow, error: SyncError) -> None:
        policy, storage = self._bench.policy, self._bench.storage
        fresh = await self.still_ours(job)  # the attempt may have been stored, and only its answer lost
        delay_s = retry_delay_s(fresh.failures + 1, policy, self._bench.jitter)
        after = state.given_up(fresh, error, delay_s, policy.max_failures, self._now())
        write = state.ended(after)
        if after.source_state != fresh.source_state:
            source = await storage.source(fresh.source_id)
            write = replace(write, source=state.source_failed(source, error, self._now()) if source else None)
        # Refused: somebody took or cancelled the job just now. If not, the lease runs out and it is claimed anew.
        if await storage.commit(write):
            log.info("sync.job_%s job_id=%s retry_count=%d error=%s", after.state, job.job_id, after.retry_count, error)
            self._bench.clock.ring()

    async def _release(self, job: JobRow) -> None:
        try:
            fresh = await self.still_ours(job)
            await self._bench.storage.commit(Write(jobs=(state.released(fresh, self._now()),)))
        except Exception as failure:
            log.info("sync.job_not_released job_id=%s error=%s", job.job_id, normalise(failure))

    def _now(self) -> datetime:
        return self._bench.clock.now()

    @property
    def _lease_s(self) -> float:
        return self._bench.policy.lease_s


def _refused(job: JobRow) -> SyncError:
    # Without this a backend that refuses for no reason, or forgot what it had stored, would be asked for ever.
    return SyncError("backend_unavailable", f"the backend refused a write of job {job.job_id} that nothing contradicts")
