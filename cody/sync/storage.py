"""What a backend must do: keep rows, stream chunks, and commit one write whole or not at all.

All rules live above it (engine, worker, state): a backend decides nothing. It compares revisions and stores, in one
transaction; that is what makes several workers and a crash anywhere safe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cody.sync.contracts import Chunk, JobState, SourceState
from cody.sync.errors import SyncErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRow:
    """What a conversation has: key `conversation_id`."""

    conversation_id: str
    sources_started: int = 0
    current_job_id: str | None = None
    """The only job of the conversation that may be active."""
    record_job_id: str | None = None
    """The job whose applied chunks are the verified record."""
    record_ordinal: int = 0
    """The ordinal of that job's source; 0 when there is no record."""
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """A source: key `source_id`."""

    source_id: str
    conversation_id: str
    thread_id: str
    ordinal: int
    """The how-many-eth source of its conversation, from 1: which of two is newer."""
    state: SourceState
    policy_version: int
    created_at: datetime
    updated_at: datetime
    total_chunks: int = 0
    highest_index: int = -1
    message_count: int = 0
    byte_size: int = 0
    job_id: str | None = None
    error_code: SyncErrorCode | None = None
    error_message: str | None = None
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job: key `job_id`; found by `conversation_id` (newest `ordinal` first) and by `due_at` (earliest first)."""

    job_id: str
    source_id: str
    conversation_id: str
    thread_id: str
    ordinal: int
    """That of its source."""
    state: JobState
    source_state: SourceState
    policy_version: int
    started_at: datetime
    updated_at: datetime
    completed_at: datetime | None = None
    due_at: datetime | None
    """From when on it may be claimed: the end of a back-off, or of a lease. None when terminal."""
    lease_version: int = 0
    """Goes up with every claim: a worker with an older one has lost the job."""
    worker_id: str | None = None
    total_chunks: int
    message_count: int
    byte_size: int
    checksum: str
    expected_message_count: int | None = None
    applied_chunks: int = 0
    """Chunks 0 to applied_chunks - 1 are in the target."""
    applied_messages: int = 0
    applied_bytes: int = 0
    retry_count: int = 0
    failures: int = 0
    """In a row, since the last applied chunk."""
    error_code: SyncErrorCode | None = None
    error_message: str | None = None
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One transaction. Each row says its new revision: what is stored must have the one before, and 1 must not be
    there yet."""

    conversation: ConversationRow | None = None
    source: SourceRow | None = None
    jobs: tuple[JobRow, ...] = ()
    added: Chunk | None = None
    """Joins the chunks of `source`."""
    applied: Chunk | None = None
    """Joins the target record of `jobs[0]`. Kept by index: the same index again replaces, it never adds a second
    copy."""
    forget_sources: tuple[str, ...] = ()
    """Drop the chunks of these sources; their rows stay."""
    forget_records: tuple[str, ...] = ()
    """Drop the target records of these jobs; their rows stay."""
    dropped: tuple[SourceRow, ...] = ()
    """Drop these sources, at exactly these revisions, and all that is of them: chunks, job, target record."""


class Storage(Protocol):
    """A backend. What it raises is mapped by `errors.normalise`; raise SyncError to say it better."""

    async def conversation(self, conversation_id: str) -> ConversationRow | None:
        """The row, or None."""
        ...

    async def source(self, source_id: str) -> SourceRow | None:
        """The row, or None."""
        ...

    async def job(self, job_id: str) -> JobRow | None:
        """The row, or None."""
        ...

    async def jobs(self, conversation_id: str) -> Sequence[JobRow]:
        """All jobs of the conversation, newest ordinal first."""
        ...

    async def next_job(self) -> JobRow | None:
        """The job that is due first (smallest `due_at`, which may lie ahead), or None when all are terminal."""
        ...

    async def chunk(self, source_id: str, index: int) -> Chunk | None:
        """A collected chunk, or None."""
        ...

    async def stale(self, before: datetime, limit: int) -> Sequence[SourceRow]:
        """Sources last written before then that nobody needs: without a job, or with one that ended before then and
        is not its conversation's record. The oldest first."""
        ...

    def record(self, job_id: str) -> AsyncIterator[Chunk]:
        """The chunks applied for this job in the order of their index; in constant memory."""
        ...

    async def commit(self, write: Write) -> bool:
        """True: all of it is stored, durable and visible to every other worker. False: a revision differs, nothing
        changed."""
        ...
