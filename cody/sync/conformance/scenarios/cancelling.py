"""Cancelling: holds at once, in every state, and never undoes an end."""

from __future__ import annotations

from cody.sync.conformance.faults import Gate, Step
from cody.sync.conformance.kit import Kit, Record
from cody.sync.conformance.scenario import public, with_bench
from cody.sync.contracts import TERMINAL, JobSnapshot, JobState


async def _cancelled_for_good(kit: Kit, job: JobSnapshot, gate: Gate | None = None) -> None:
    """Cancel the job: it has ended when the call answers, and nothing that its worker does later counts."""
    answered = await kit.cancel(job.job_id)
    kit.same(answered.state, "cancelled", "state that cancel answers")
    code = answered.last_error.code if answered.last_error else None
    kit.same(code, "job_cancelled", "last_error of a cancelled job")
    kit.check(answered.completed_at is not None, "a cancelled job has no completed_at")
    if gate is not None:
        gate.open()
    # By the time another job has come and gone, the worker has dealt with this one.
    other = await kit.sealed(Record("barrier"))
    await kit.succeeded(other.job_id)
    kit.same(await kit.get(job.job_id), answered, "the cancelled job, later")
    kit.same(await kit.cancel(job.job_id), answered, "what a second cancel answers")
    kit.same(await kit.ended(job.job_id), answered, "what waiting for a cancelled job answers")
    await kit.record_is(job.conversation_id, None)


async def _while_held_at(kit: Kit, step: Step, state: JobState, *, skip: int = 0) -> None:
    gate = kit.inject().hold(step, skip)
    job = await kit.sealed(Record("cancel", chunks=5))
    await kit.reached(gate.reached, f"the worker comes to {step}")
    kit.same((await kit.get(job.job_id)).state, state, f"state of a job at {step}")
    await _cancelled_for_good(kit, job, gate)


@public
async def cancel_ends_a_job(kit: Kit) -> None:
    """When cancel answers, the job has ended and stays so: cancelled, unless it was over before."""
    record = Record("cancel-now", chunks=40)
    job = await kit.sealed(record)
    answered = await kit.cancel(job.job_id)
    kit.check(answered.state in TERMINAL, f"cancel answered a job that is {answered.state}")
    kit.same(answered.job_id, job.job_id, "the job that cancel answers")
    kit.same(await kit.get(job.job_id), answered, "what get says after cancel")
    kit.same(await kit.cancel(job.job_id), answered, "what a second cancel answers")
    kit.same(await kit.ended(job.job_id), answered, "what waiting for a cancelled job answers")
    kit.same(list(await kit.list(job.conversation_id)), [answered], "what list says after cancel")
    await kit.record_is(job.conversation_id, record if answered.state == "succeeded" else None)


@public
async def cancel_after_the_end_changes_nothing(kit: Kit) -> None:
    """A job that has succeeded stays so, and its record too."""
    record = Record("over")
    job = await kit.sealed(record)
    ended = await kit.succeeded(job.job_id)
    kit.same(await kit.cancel(job.job_id), ended, "what cancel answers for a job that succeeded")
    kit.same(await kit.get(job.job_id), ended, "the job after a late cancel")
    await kit.record_is(job.conversation_id, record)


@public
async def a_cancelled_conversation_can_be_sent_again(kit: Kit) -> None:
    """After a cancel, a new source of the conversation is transferred as if nothing had been."""
    record = Record("resent")
    first = await kit.sealed(record)
    await kit.cancel(first.job_id)
    second = await kit.sealed(record, first.conversation_id)
    kit.check(second.job_id != first.job_id, "the new source has the cancelled job")
    await kit.succeeded(second.job_id)
    await kit.record_is(first.conversation_id, record)


@with_bench
async def cancel_while_queued(kit: Kit) -> None:
    """A queued job that is cancelled is never worked on."""
    await _while_held_at(kit, "claim", "queued")


@with_bench
async def cancel_while_running(kit: Kit) -> None:
    """A running job that is cancelled ends at once; the chunk being applied does not count."""
    await _while_held_at(kit, "apply", "running", skip=2)


@with_bench
async def cancel_while_verifying(kit: Kit) -> None:
    """A job that is cancelled while it is verified does not become the record."""
    await _while_held_at(kit, "verify", "verifying")


@with_bench
async def cancel_while_publishing(kit: Kit) -> None:
    """A job that is cancelled between its verification and its end does not become the record."""
    await _while_held_at(kit, "publish", "verifying")


@with_bench
async def cancel_while_retrying(kit: Kit) -> None:
    """A job that backs off and is cancelled never comes back."""
    kit.bench.policy = kit.bench.policy.model_copy(update={"retry_base_s": 3600.0, "retry_cap_s": 3600.0})
    kit.bench.jitter = lambda: 0.5
    kit.inject().fail("apply", times=1)
    job = await kit.sealed(Record("cancel-retrying"))
    await kit.in_state(job.job_id, "retrying")
    answered = await kit.cancel(job.job_id)
    kit.bench.clock.step(7200)
    kit.same(answered.retry_count, 1, "retry_count of the cancelled job")
    await _cancelled_for_good(kit, job)


SCENARIOS = (
    cancel_ends_a_job,
    cancel_after_the_end_changes_nothing,
    a_cancelled_conversation_can_be_sent_again,
    cancel_while_queued,
    cancel_while_running,
    cancel_while_verifying,
    cancel_while_publishing,
    cancel_while_retrying,
)
