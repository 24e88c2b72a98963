"""The life of a job, pure: one transition table, and the moves that the engine and the worker make on rows.

Rules:
1. Whatever changes a job's state is a row of TRANSITIONS. There is no other way.
2. A move that is not in the table raises and changes nothing.
3. A terminal state has no row: nothing leaves it.
4. Every move raises the row's revision by one; a storage takes it only over the revision before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from cody.sync.contracts import TERMINAL, Chunk, JobState, Manifest
from cody.sync.errors import SyncError
from cody.sync.storage import ConversationRow, JobRow, SourceRow, Write

JobEvent = Literal["claimed", "progressed", "applied_all", "backed_off", "released", "verified", "failed", "cancelled"]

TRANSITIONS: dict[JobState, dict[JobEvent, JobState]] = {
    "queued": {"claimed": "running", "cancelled": "cancelled"},
    "running": {
        "claimed": "running",  # the worker before was lost
        "progressed": "running",
        "applied_all": "verifying",
        "backed_off": "retrying",
        "released": "queued",
        "failed": "failed",
        "cancelled": "cancelled",
    },
    "verifying": {
        "claimed": "running",
        "progressed": "verifying",
        "backed_off": "retrying",
        "released": "queued",
        "verified": "succeeded",
        "failed": "failed",
        "cancelled": "cancelled",
    },
    "retrying": {"claimed": "running", "cancelled": "cancelled"},
    "succeeded": {},
    "failed": {},
    "cancelled": {},
}


class IllegalMove(Exception):
    """The table has no such move; a mistake in the engine, never the caller's."""


def next_state(state: JobState, event: JobEvent) -> JobState:
    """The state after `event`; raises IllegalMove."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalMove(f"a job that is {state} cannot be {event}") from None


def _move(job: JobRow, event: JobEvent, now: datetime, **changes: Any) -> JobRow:
    state = next_state(job.state, event)
    now = max(now, job.updated_at)  # a clock that was set back must not turn the record's times around
    if state in TERMINAL:
        changes = {"completed_at": now, "due_at": None, "worker_id": None, **changes}
    return replace(job, state=state, updated_at=now, revision=job.revision + 1, **changes)


def counted(known: ConversationRow | None, conversation_id: str) -> ConversationRow:
    """The conversation, one source later."""
    if known is None:
        return ConversationRow(conversation_id=conversation_id, sources_started=1)
    return replace(known, sources_started=known.sources_started + 1, revision=known.revision + 1)


def new_source(
    source_id: str, conversation: ConversationRow, thread_id: str, policy_version: int, now: datetime
) -> SourceRow:
    """A source as it begins; `conversation` has counted it."""
    return SourceRow(
        source_id=source_id,
        conversation_id=conversation.conversation_id,
        thread_id=thread_id,
        ordinal=conversation.sources_started,
        state="collecting",
        policy_version=policy_version,
        created_at=now,
        updated_at=now,
    )


def source_with(source: SourceRow, chunk: Chunk, now: datetime) -> SourceRow:
    """The source, one new chunk richer."""
    return replace(
        source,
        total_chunks=source.total_chunks + 1,
        highest_index=max(source.highest_index, chunk.index),
        message_count=source.message_count + chunk.message_count,
        byte_size=source.byte_size + chunk.byte_size,
        updated_at=max(now, source.updated_at),
        revision=source.revision + 1,
    )


def source_failed(source: SourceRow, error: SyncError, now: datetime) -> SourceRow:
    """The source, refused for good."""
    return replace(
        source,
        state="failed",
        error_code=error.code,
        error_message=error.message,
        updated_at=max(now, source.updated_at),
        revision=source.revision + 1,
    )


def new_job(
    job_id: str,
    source: SourceRow,
    checksum: str,
    expected_message_count: int | None,
    policy_version: int,
    now: datetime,
) -> tuple[SourceRow, JobRow]:
    """The source sealed, and its job, due now. What was collected has been proved to be what was announced."""
    sealed = replace(
        source,
        state="sealed",
        job_id=job_id,
        updated_at=max(now, source.updated_at),
        revision=source.revision + 1,
    )
    job = JobRow(
        job_id=job_id,
        source_id=source.source_id,
        conversation_id=source.conversation_id,
        thread_id=source.thread_id,
        ordinal=source.ordinal,
        state="queued",
        source_state="sealed",
        policy_version=policy_version,
        started_at=now,
        updated_at=now,
        due_at=now,
        total_chunks=source.total_chunks,
        message_count=source.message_count,
        byte_size=source.byte_size,
        checksum=checksum,
        expected_message_count=expected_message_count,
    )
    return sealed, job


def admitted(
    job: JobRow, conversation: ConversationRow, current: JobRow | None, now: datetime
) -> tuple[ConversationRow, tuple[JobRow, ...]]:
    """Which job of the conversation goes on: the conversation and the jobs to store, the new one first.

    The newer source wins, in whatever order they were sealed: an active older job ends as replaced; a job whose source
    is older than the active one's, or than the record's, is replaced from the start, so that it never overwrites newer
    bytes.
    """
    active = current if current is not None and current.state not in TERMINAL else None
    newest = max(conversation.record_ordinal, active.ordinal if active else 0)
    conversation = replace(conversation, revision=conversation.revision + 1)
    if job.ordinal < newest:
        # Not stored yet, so it is still the row's first revision.
        return conversation, (replace(replaced(job, "a newer source", now), revision=1),)
    conversation = replace(conversation, current_job_id=job.job_id)
    return conversation, (job, replaced(active, job.job_id, now)) if active else (job,)


def replaced(job: JobRow, by: str, now: datetime) -> JobRow:
    """The job, cancelled because a newer source of its conversation was sealed."""
    error = SyncError("job_cancelled_replaced", f"job {job.job_id} was replaced by {by}: a newer source was sealed")
    return cancelled(job, error, now)


def cancelled(job: JobRow, error: SyncError, now: datetime) -> JobRow:
    """The job, cancelled; `error` says by what."""
    return _move(job, "cancelled", now, error_code=error.code, error_message=error.message)


def claimed(job: JobRow, worker_id: str, now: datetime, lease_s: float, max_failures: int) -> JobRow:
    """The job, ours until the lease ends, under a new lease version.

    Taking over a lease that ran out counts as a failure; a job that has cost too many workers ends failed.
    """
    if job.state in ("queued", "retrying"):
        return _claim(job, worker_id, now, lease_s)
    lost = f"worker {job.worker_id} was lost with job {job.job_id} at chunk {job.applied_chunks} of {job.total_chunks}"
    error = SyncError("lease_lost", lost)
    job = replace(job, **_failure(job, error))
    if job.failures > max_failures:
        return _move(job, "failed", now)
    return _claim(job, worker_id, now, lease_s)


def _claim(job: JobRow, worker_id: str, now: datetime, lease_s: float) -> JobRow:
    due_at = now + timedelta(seconds=lease_s)
    return _move(job, "claimed", now, worker_id=worker_id, lease_version=job.lease_version + 1, due_at=due_at)


def _failure(job: JobRow, error: SyncError) -> dict[str, Any]:
    return {
        "retry_count": job.retry_count + 1,
        "failures": job.failures + 1,
        "error_code": error.code,
        "error_message": error.message,
    }


def applied(job: JobRow, chunk: Chunk, now: datetime, lease_s: float) -> JobRow:
    """The job with its cursor behind `chunk`, which is the next one; the lease begins anew."""
    return _move(
        job,
        "applied_all" if chunk.index + 1 == job.total_chunks else "progressed",
        now,
        applied_chunks=chunk.index + 1,
        applied_messages=job.applied_messages + chunk.message_count,
        applied_bytes=job.applied_bytes + len(chunk.payload),
        failures=0,
        due_at=now + timedelta(seconds=lease_s),
    )


def all_applied(job: JobRow, now: datetime, lease_s: float) -> JobRow:
    """A job that was taken over behind its last chunk, on to its verification."""
    return _move(job, "applied_all", now, due_at=now + timedelta(seconds=lease_s))


def renewed(job: JobRow, now: datetime, lease_s: float) -> JobRow:
    """The job with a lease that begins now."""
    return _move(job, "progressed", now, due_at=now + timedelta(seconds=lease_s))


def released(job: JobRow, now: datetime) -> JobRow:
    """The job, given back by a worker that stops: due at once, and nobody's failure."""
    return _move(job, "released", now, worker_id=None, due_at=now)


def given_up(job: JobRow, error: SyncError, delay_s: float, max_failures: int, now: datetime) -> JobRow:
    """The job after a failed attempt: backing off for `delay_s`, or failed when that cannot help any more."""
    if not error.retryable:
        source_state = "failed" if error.code == "source_invalid" else job.source_state
        refusal = {"error_code": error.code, "error_message": error.message}
        return _move(job, "failed", now, source_state=source_state, **refusal)
    changes = _failure(job, error)
    if job.failures + 1 > max_failures:
        return _move(job, "failed", now, **changes)
    return _move(job, "backed_off", now, worker_id=None, due_at=now + timedelta(seconds=delay_s), **changes)


def verified(job: JobRow, conversation: ConversationRow, now: datetime) -> tuple[ConversationRow, JobRow]:
    """The job succeeded, and its chunks are the record of the conversation."""
    conversation = replace(
        conversation,
        record_job_id=job.job_id,
        record_ordinal=job.ordinal,
        revision=conversation.revision + 1,
    )
    return conversation, _move(job, "verified", now, error_code=None, error_message=None)


def ended(job: JobRow) -> Write:
    """The write that stores a job; one that ended without success takes along what nobody needs any more."""
    if job.state not in TERMINAL:
        return Write(jobs=(job,))
    return Write(jobs=(job,), forget_sources=(job.source_id,), forget_records=(job.job_id,))


def manifest_of(row: JobRow | SourceRow) -> Manifest:
    """What was collected, or sealed."""
    return Manifest(total_chunks=row.total_chunks, message_count=row.message_count, byte_size=row.byte_size)
