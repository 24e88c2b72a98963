"""Failing: a backend that goes away, loses answers or lies; workers that die, freeze or meet."""

from __future__ import annotations

from dataclasses import replace

from cody.sync.conformance.faults import Distortion, Step
from cody.sync.conformance.kit import ContractBroken, Kit, Record
from cody.sync.conformance.scenario import Scenario, with_bench
from cody.sync.contracts import TERMINAL, JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.storage import JobRow
from cody.sync.worker import Bench, Worker

BACK_OFF_S = 3600.0
"""Long enough that no job comes back from a back-off unless the clock is stepped."""


def _slow_back_off(kit: Kit, max_failures: int) -> None:
    update = {"retry_base_s": BACK_OFF_S, "retry_cap_s": BACK_OFF_S, "max_failures": max_failures}
    kit.bench.policy = kit.bench.policy.model_copy(update=update)
    kit.bench.jitter = lambda: 0.5


async def _stepped_to_its_end(kit: Kit, job_id: str) -> JobSnapshot:
    """The job, taken through all its back-offs to its end."""
    while (job := await kit.in_state(job_id, "retrying", *TERMINAL)).state == "retrying":
        code = job.last_error.code if job.last_error else None
        kit.same(code, "backend_unavailable", "last_error of a job that backs off")
        kit.bench.clock.step(BACK_OFF_S)
        await kit.left(job)
    return await kit.ended(job_id)


@with_bench
async def a_lost_backend_is_tried_again(kit: Kit) -> None:
    """A backend that goes away while chunks are applied, before or after, costs retries and no chunk."""
    for after in (False, True):
        record = Record("retry", chunks=3)
        raw = kit.bench.storage
        _slow_back_off(kit, max_failures=3)
        kit.inject().fail("apply", times=3, after=after)
        job = await kit.sealed(record)
        end = await _stepped_to_its_end(kit, job.job_id)
        kit.same((end.state, end.retry_count), ("succeeded", 3), "end of a job with three faults")
        kit.same(end.processed_message_count, record.manifest.message_count, "processed_message_count")
        await kit.record_is(job.conversation_id, record)
        kit.bench.storage = raw


@with_bench
async def progress_renews_the_budget(kit: Kit) -> None:
    """Failures count in a row: a long record gets through a backend that is away now and then."""
    record = Record("now-and-then", chunks=6)
    _slow_back_off(kit, max_failures=1)
    kit.inject().fail("apply", times=5, spaced=True)
    job = await kit.sealed(record)
    end = await _stepped_to_its_end(kit, job.job_id)
    kit.same((end.state, end.retry_count), ("succeeded", 5), "end of a job with five faults, one at a time")
    await kit.record_is(job.conversation_id, record)


@with_bench
async def a_back_off_is_kept(kit: Kit) -> None:
    """A job that backs off is left alone until its time has come, and then goes on."""
    _slow_back_off(kit, max_failures=3)
    kit.inject().fail("apply", times=1)
    job = await kit.sealed(Record("back-off"))
    waiting = await kit.in_state(job.job_id, "retrying")
    kit.bench.clock.step(BACK_OFF_S * 0.4)
    barrier = await kit.sealed(Record("barrier"))
    await kit.succeeded(barrier.job_id)
    kit.same(await kit.get(job.job_id), waiting, "the job before its back-off of half the time is over")
    kit.bench.clock.step(BACK_OFF_S * 0.2)
    await kit.succeeded(job.job_id)


@with_bench
async def retries_have_a_budget(kit: Kit) -> None:
    """A backend that stays away fails the job, which says why; the record before it stays."""
    kept = Record("before")
    first = await kit.sealed(kept)
    await kit.succeeded(first.job_id)
    _slow_back_off(kit, max_failures=2)
    raw = kit.bench.storage
    kit.inject().fail("apply", times=1000)
    job = await kit.sealed(Record("hopeless"), first.conversation_id)
    end = await _stepped_to_its_end(kit, job.job_id)
    kit.same((end.state, end.retry_count), ("failed", 3), "end of a job whose backend stays away")
    kit.same(end.last_error and end.last_error.code, "backend_unavailable", "last_error of the failed job")
    kit.same(await kit.cancel(job.job_id), end, "what cancel answers for a job that failed")
    kit.bench.storage = raw
    await kit.record_is(first.conversation_id, kept)


@with_bench
async def a_lying_backend_is_found_out(kit: Kit) -> None:
    """A target that is not what was sealed fails the job with verification_failed; the record before it stays."""
    kept = Record("truth")
    first = await kit.sealed(kept)
    await kit.succeeded(first.job_id)
    raw = kit.bench.storage
    lies: tuple[Distortion, ...] = (
        lambda chunk: [replace(chunk, payload=chunk.payload[:-1] + b"?")] if chunk.index == 1 else [chunk],
        lambda chunk: [] if chunk.index == 3 else [chunk],
        lambda chunk: [] if chunk.index == 0 else [chunk],
        lambda chunk: [chunk, chunk] if chunk.index == 0 else [chunk],
        lambda chunk: [chunk, replace(chunk, index=4)] if chunk.index == 3 else [chunk],
        lambda chunk: [replace(chunk, message_count=7)],
    )
    for lie in lies:
        faulty = kit.inject()
        faulty.distortion = lie
        job = await kit.sealed(Record("lie"), first.conversation_id)
        end = await kit.ended(job.job_id)
        code = end.last_error.code if end.last_error else None
        kit.same((end.state, code), ("failed", "verification_failed"), "end of a job whose target is wrong")
        kit.bench.storage = raw
        await kit.record_is(first.conversation_id, kept)


async def _survives(kit: Kit, step: Step, *, after: bool) -> None:
    """Kill the worker at this step: the next one takes the job over, and every chunk is applied once."""
    record = Record("crash", chunks=5)
    faulty = kit.inject()
    faulty.kill(step, after=after)
    job = await kit.sealed(record)
    await kit.reached(faulty.killed, f"the worker is killed at {step}")
    kit.bench.clock.step(kit.bench.policy.lease_s + 1)
    end = await kit.succeeded(job.job_id)
    kit.same(end.processed_chunk_index, len(record.chunks) - 1, "processed_chunk_index after a crash")
    kit.same(end.processed_message_count, record.manifest.message_count, "processed_message_count after a crash")
    kit.same(end.last_cursor, len(record.payload), "last_cursor after a crash")
    kit.same(end.retry_count, 0 if step == "publish" and after else 1, "retry_count after a crash")
    await kit.record_is(job.conversation_id, record)


@with_bench
async def crash_before_a_chunk_is_applied(kit: Kit) -> None:
    """A worker that dies before its chunk is applied loses its job to the next one, which applies it."""
    await _survives(kit, "apply", after=False)


@with_bench
async def crash_after_a_chunk_is_applied(kit: Kit) -> None:
    """A worker that dies once its chunk is applied has moved the cursor: the next one does not apply it again."""
    await _survives(kit, "apply", after=True)


@with_bench
async def crash_while_verifying(kit: Kit) -> None:
    """A worker that dies while it verifies leaves a job that the next one verifies."""
    await _survives(kit, "verify", after=False)


@with_bench
async def crash_before_the_end(kit: Kit) -> None:
    """A worker that dies before it has told the end leaves a job that the next one ends."""
    await _survives(kit, "publish", after=False)


@with_bench
async def crash_after_the_end(kit: Kit) -> None:
    """A worker that dies once it has told the end leaves a job that has ended."""
    await _survives(kit, "publish", after=True)


@with_bench
async def a_frozen_worker_has_lost_its_job(kit: Kit) -> None:
    """Of two workers on one job, the one whose lease is over gets lease_lost and changes nothing."""
    record = Record("two-workers", chunks=4)
    bench = replace(kit.bench)
    gate = kit.inject().hold("claim")  # the adapter's own worker stays out of it
    job = await kit.sealed(record)
    frozen, quick = Worker(bench, "frozen"), Worker(bench, "quick")
    stale = await frozen.advance(await _taken(kit, bench, frozen, job.job_id))
    bench.clock.step(bench.policy.lease_s + 1)
    fresh = await _taken(kit, bench, quick, job.job_id)
    kit.check(fresh.lease_version > stale.lease_version, "the second claim has no newer lease version")
    kit.same(fresh.applied_chunks, 1, "chunks applied when the second worker takes over")
    try:
        after = await frozen.advance(stale)
    except SyncError as lost:
        kit.same(lost.code, "lease_lost", "what the frozen worker is told")
    else:
        raise ContractBroken(f"the frozen worker went on to chunk {after.applied_chunks} with a lease that is over")
    await quick.work(fresh)
    gate.open()
    end = await kit.succeeded(job.job_id)
    kit.same(end.retry_count, 1, "retry_count after a take-over")
    await kit.record_is(job.conversation_id, record)


async def _taken(kit: Kit, bench: Bench, worker: Worker, job_id: str) -> JobRow:
    row = await bench.storage.next_job()
    kit.check(row is not None and row.job_id == job_id, f"next_job answered {row}; job {job_id} is due")
    taken = None if row is None else await worker.take(row)
    if taken is None:
        raise ContractBroken(f"worker {worker.worker_id} could not claim job {job_id}, which is due")
    return taken


SCENARIOS: tuple[Scenario, ...] = (
    a_lost_backend_is_tried_again,
    progress_renews_the_budget,
    a_back_off_is_kept,
    retries_have_a_budget,
    a_lying_backend_is_found_out,
    crash_before_a_chunk_is_applied,
    crash_after_a_chunk_is_applied,
    crash_while_verifying,
    crash_before_the_end,
    crash_after_the_end,
    a_frozen_worker_has_lost_its_job,
)
