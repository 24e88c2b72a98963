"""Storages broken on purpose, under an engine that is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from cody.sync.adapters.memory import MemoryStorage
from cody.sync.contracts import Chunk
from cody.sync.storage import JobRow, Write


class LosesApplied(MemoryStorage):
    """Tells of success, and has not stored the first chunk."""

    async def commit(self, write: Write) -> bool:
        lost = write.applied is not None and write.applied.index == 0
        return await super().commit(replace(write, applied=None) if lost else write)


class KeepsCopies(MemoryStorage):
    """The target is a log: whatever is applied is added at its end."""

    def __init__(self) -> None:
        super().__init__()
        self._log: dict[str, list[Chunk]] = {}

    async def commit(self, write: Write) -> bool:
        if write.applied is not None:
            # In a transaction of its own, before the cursor's: who lost the job has applied all the same.
            self._log.setdefault(write.jobs[0].job_id, []).append(write.applied)
        return await super().commit(replace(write, applied=None))

    async def record(self, job_id: str) -> AsyncIterator[Chunk]:
        for chunk in list(self._log.get(job_id, [])):
            yield chunk


class MovesTheCursorLate(KeepsCopies):
    """Keeps the cursor of a chunk in memory until the same worker comes with the next write."""

    def __init__(self) -> None:
        super().__init__()
        self._late: dict[str, Write] = {}

    async def commit(self, write: Write) -> bool:
        job = write.jobs[0] if write.jobs else None
        if job is None:
            return await super().commit(write)
        late = self._late.pop(job.job_id, None)
        if late is not None and late.jobs[0].worker_id == job.worker_id:
            await super().commit(late)
        if write.applied is None or job.state != "running":
            return await super().commit(write)
        self._log.setdefault(job.job_id, []).append(write.applied)
        self._late[job.job_id] = replace(write, applied=None)
        return True


class WritesOverAnything(MemoryStorage):
    """Compares no revisions: the last write wins."""

    def _is_current(self, write: Write) -> bool:
        return True


class ReplacesNobody(MemoryStorage):
    """Stores the new job of a conversation, and leaves the older one as it is."""

    async def commit(self, write: Write) -> bool:
        if len(write.jobs) < 2:
            return await super().commit(write)
        return await super().commit(replace(write, jobs=write.jobs[:1], forget_sources=(), forget_records=()))


class ForgetsTheRecord(MemoryStorage):
    """Drops the record before it when a job fails."""

    async def commit(self, write: Write) -> bool:
        failed = bool(write.jobs) and write.jobs[0].state == "failed"
        if failed:
            conversation = await self.conversation(write.jobs[0].conversation_id)
            record = conversation.record_job_id if conversation else None
            write = replace(write, forget_records=(*write.forget_records, *([record] if record else [])))
        return await super().commit(write)


class HurriesBackOffs(MemoryStorage):
    """Brings a job back at once, whatever its back-off."""

    async def next_job(self) -> JobRow | None:
        job = await super().next_job()
        return replace(job, due_at=job.updated_at) if job is not None and job.state == "retrying" else job
