"""The reference adapter: everything in this process's memory, gone with it.

What arrives can be read back: `read(conversation_id)` gives the verified record. Two adapters made over one
MemoryStorage are two processes over one database.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

from cody.sync import engine
from cody.sync.clock import Clock
from cody.sync.contracts import Chunk
from cody.sync.policy import Policy
from cody.sync.storage import ConversationRow, JobRow, SourceRow, Write

_NEVER = datetime.max.replace(tzinfo=UTC)


class MemoryStorage:
    """Dictionaries. Nothing in `commit` waits, so each one is a transaction."""

    def __init__(self) -> None:
        self._conversations: dict[str, ConversationRow] = {}
        self._sources: dict[str, SourceRow] = {}
        self._jobs: dict[str, JobRow] = {}
        self._chunks: dict[str, dict[int, Chunk]] = {}
        self._records: dict[str, dict[int, Chunk]] = {}

    async def conversation(self, conversation_id: str) -> ConversationRow | None:
        """See Storage."""
        return self._conversations.get(conversation_id)

    async def source(self, source_id: str) -> SourceRow | None:
        """See Storage."""
        return self._sources.get(source_id)

    async def job(self, job_id: str) -> JobRow | None:
        """See Storage."""
        return self._jobs.get(job_id)

    async def jobs(self, conversation_id: str) -> Sequence[JobRow]:
        """See Storage."""
        found = (job for job in self._jobs.values() if job.conversation_id == conversation_id)
        return sorted(found, key=lambda job: job.ordinal, reverse=True)

    async def next_job(self) -> JobRow | None:
        """See Storage."""
        active = (job for job in self._jobs.values() if job.due_at is not None)
        return min(active, key=lambda job: job.due_at or _NEVER, default=None)

    async def chunk(self, source_id: str, index: int) -> Chunk | None:
        """See Storage."""
        return self._chunks.get(source_id, {}).get(index)

    async def stale(self, before: datetime, limit: int) -> Sequence[SourceRow]:
        """See Storage."""
        found = (row for row in self._sources.values() if row.updated_at < before and self._is_over(row, before))
        return sorted(found, key=lambda row: row.updated_at)[:limit]

    def _is_over(self, source: SourceRow, before: datetime) -> bool:
        job = self._jobs.get(source.job_id) if source.job_id else None
        if job is None:
            return True
        conversation = self._conversations.get(job.conversation_id)
        is_record = conversation is not None and conversation.record_job_id == job.job_id
        return job.completed_at is not None and job.completed_at < before and not is_record

    async def record(self, job_id: str) -> AsyncIterator[Chunk]:
        """See Storage; a record that is dropped meanwhile is still read to its end."""
        chunks = self._records.get(job_id, {})
        for index in sorted(chunks):
            yield chunks[index]

    async def commit(self, write: Write) -> bool:
        """See Storage."""
        if not self._is_current(write):
            return False
        if write.conversation is not None:
            self._conversations[write.conversation.conversation_id] = write.conversation
        if write.source is not None:
            self._sources[write.source.source_id] = write.source
            if write.added is not None:
                self._chunks.setdefault(write.source.source_id, {})[write.added.index] = write.added
        for job in write.jobs:
            self._jobs[job.job_id] = job
        if write.applied is not None:
            self._records.setdefault(write.jobs[0].job_id, {})[write.applied.index] = write.applied
        for source_id in write.forget_sources:
            self._chunks.pop(source_id, None)
        for job_id in write.forget_records:
            self._records.pop(job_id, None)
        for source in write.dropped:
            self._drop(source)
        return True

    def _drop(self, source: SourceRow) -> None:
        del self._sources[source.source_id]
        self._chunks.pop(source.source_id, None)
        if source.job_id is not None:
            self._jobs.pop(source.job_id, None)
            self._records.pop(source.job_id, None)

    def _is_current(self, write: Write) -> bool:
        pairs: list[tuple[ConversationRow | SourceRow | JobRow | None, ConversationRow | SourceRow | JobRow]] = [
            (self._jobs.get(job.job_id), job) for job in write.jobs
        ]
        if write.conversation is not None:
            pairs.append((self._conversations.get(write.conversation.conversation_id), write.conversation))
        if write.source is not None:
            pairs.append((self._sources.get(write.source.source_id), write.source))
        return all((stored.revision if stored else 0) == row.revision - 1 for stored, row in pairs) and all(
            self._sources.get(row.source_id) == row for row in write.dropped
        )


class MemoryAdapter(engine.Engine):
    """The sync engine over memory."""

    def __init__(
        self,
        storage: MemoryStorage | None = None,
        *,
        policy: Policy | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        workers: int = 1,
    ) -> None:
        super().__init__(
            storage if storage is not None else MemoryStorage(),
            policy=policy,
            clock=clock,
            jitter=jitter,
            workers=workers,
        )
