"""Rows as callers see them, pure."""

from __future__ import annotations

from cody.sync.contracts import ErrorInfo, JobSnapshot, SourceSnapshot
from cody.sync.storage import JobRow, SourceRow


def error_of(row: JobRow | SourceRow) -> ErrorInfo | None:
    """Its last error."""
    if row.error_code is None:
        return None
    return ErrorInfo(code=row.error_code, message=row.error_message or "")


def source_snapshot(source: SourceRow) -> SourceSnapshot:
    """The source as callers see it."""
    return SourceSnapshot(
        source_id=source.source_id,
        conversation_id=source.conversation_id,
        thread_id=source.thread_id,
        state=source.state,
        policy_version=source.policy_version,
        created_at=source.created_at,
        updated_at=source.updated_at,
        job_id=source.job_id,
        last_error=error_of(source),
    )


def job_snapshot(job: JobRow) -> JobSnapshot:
    """The job as callers see it."""
    return JobSnapshot(
        job_id=job.job_id,
        conversation_id=job.conversation_id,
        thread_id=job.thread_id,
        state=job.state,
        source_state=job.source_state,
        policy_version=job.policy_version,
        started_at=job.started_at,
        updated_at=job.updated_at,
        completed_at=job.completed_at,
        last_cursor=job.applied_bytes,
        processed_chunk_index=job.applied_chunks - 1,
        total_chunks=job.total_chunks,
        processed_message_count=job.applied_messages,
        expected_message_count=job.expected_message_count,
        retry_count=job.retry_count,
        last_error=error_of(job),
    )
