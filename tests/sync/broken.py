"""Adapters broken on purpose: each keeps the whole contract but one promise."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

from cody.sync.adapters.memory import MemoryAdapter
from cody.sync.contracts import Chunk, JobSnapshot, Manifest, SourceSnapshot
from cody.sync.errors import SyncError
from cody.sync.policy import checksum_of


class StartsOnlyOnce(MemoryAdapter):
    """Hands out the source of a conversation again."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, SourceSnapshot] = {}

    async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
        if conversation_id not in self._started:
            self._started[conversation_id] = await super().start(conversation_id, thread_id)
        return self._started[conversation_id]


class SwallowsConflicts(MemoryAdapter):
    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        try:
            return await super().append(source_id, index, payload, message_count, byte_size)
        except SyncError as refusal:
            if refusal.code != "chunk_conflict":
                raise
            return False


class SaysEverythingIsNew(MemoryAdapter):
    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        await super().append(source_id, index, payload, message_count, byte_size)
        return True


class LosesAChunk(MemoryAdapter):
    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        return index == 1 or await super().append(source_id, index, payload, message_count, byte_size)


class TakesChunksAfterTheSeal(MemoryAdapter):
    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        try:
            return await super().append(source_id, index, payload, message_count, byte_size)
        except SyncError as refusal:
            if refusal.code != "source_not_collecting":
                raise
            return True


class TakesNonsense(MemoryAdapter):
    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        return await super().append(source_id, abs(index), payload, abs(message_count), len(payload))


class SkipsTheChecksum(MemoryAdapter):
    """Seals with the checksum that would be right."""

    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        payloads: list[bytes] = []
        while (chunk := await self.bench.storage.chunk(source_id, len(payloads))) is not None:
            payloads.append(chunk.payload)
        return await super().seal(source_id, expected_manifest, checksum_of(payloads), expected_message_count)


class SkipsTheCounts(MemoryAdapter):
    """Seals with the manifest that would be right."""

    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        source = await self.bench.storage.source(source_id)
        if source is not None:
            expected_manifest = Manifest(
                total_chunks=source.total_chunks, message_count=source.message_count, byte_size=source.byte_size
            )
        return await super().seal(source_id, expected_manifest, expected_checksum, expected_message_count)


class SkipsTheMessageCount(MemoryAdapter):
    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        return await super().seal(source_id, expected_manifest, expected_checksum)


class SealsTwoJobs(MemoryAdapter):
    """A second seal collects everything again, and makes another job of it."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[str, list[Chunk]] = {}
        self._sealed: dict[str, str] = {}

    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        new = await super().append(source_id, index, payload, message_count, byte_size)
        if new:
            chunk = Chunk(index=index, payload=payload, message_count=message_count, byte_size=byte_size)
            self._sent.setdefault(source_id, []).append(chunk)
        return new

    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest | Mapping[str, object],
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        conversation_id = self._sealed.get(source_id)
        if conversation_id is not None:
            source = await self.start(conversation_id)
            for chunk in self._sent[source_id]:
                await super().append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
            return await super().seal(source.source_id, expected_manifest, expected_checksum, expected_message_count)
        job = await super().seal(source_id, expected_manifest, expected_checksum, expected_message_count)
        self._sealed[source_id] = job.conversation_id
        return job


class ForgetsToCancel(MemoryAdapter):
    async def cancel(self, job_id: str) -> JobSnapshot:
        return await self.get(job_id)


class OnlySaysCancelled(MemoryAdapter):
    """Answers that the job is cancelled, and lets it run."""

    async def cancel(self, job_id: str) -> JobSnapshot:
        job = await self.get(job_id)
        return job.model_copy(update={"state": "cancelled", "completed_at": job.updated_at})


class CancelsWhatHasEnded(MemoryAdapter):
    async def cancel(self, job_id: str) -> JobSnapshot:
        job = await super().cancel(job_id)
        return job.model_copy(update={"state": "cancelled"})


class NeverAnswersAWait(MemoryAdapter):
    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class CannotBeInterrupted(MemoryAdapter):
    """Waits for ever, and takes no cancellation."""

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        for _ in range(200):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        raise AssertionError("the kit waited for all of it")


class BlocksTheLoop(MemoryAdapter):
    """Stops its event loop until the test lets it go."""

    let_go = threading.Event()

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        self.let_go.wait(60)
        return await super().wait_for_terminal(job_id, timeout)


class NeverEnds(MemoryAdapter):
    """Has nobody who works."""

    def __init__(self) -> None:
        super().__init__(workers=0)


class AnswersAWaitTooEarly(MemoryAdapter):
    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        return await self.get(job_id)


class IgnoresTheTimeout(MemoryAdapter):
    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        return await super().wait_for_terminal(job_id)


class CountsWrong(MemoryAdapter):
    async def get(self, job_id: str) -> JobSnapshot:
        return _counted_wrong(await super().get(job_id))

    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        return [_counted_wrong(job) for job in await super().list(conversation_id)]

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        return _counted_wrong(await super().wait_for_terminal(job_id, timeout))


def _counted_wrong(job: JobSnapshot) -> JobSnapshot:
    return job.model_copy(update={"processed_message_count": job.processed_message_count + 1})


class ListsNothing(MemoryAdapter):
    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        return []


class ListsEverybodys(MemoryAdapter):
    def __init__(self) -> None:
        super().__init__()
        self._seen: list[str] = []

    async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
        self._seen.append(conversation_id)
        return await super().start(conversation_id, thread_id)

    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        return [job for known in dict.fromkeys(self._seen) for job in await super().list(known)]


class RaisesItsOwnErrors(MemoryAdapter):
    async def get(self, job_id: str) -> JobSnapshot:
        try:
            return await super().get(job_id)
        except SyncError:
            raise KeyError(job_id) from None


class BelievesTheTarget(MemoryAdapter):
    """Calls a job succeeded whose target is wrong."""

    async def get(self, job_id: str) -> JobSnapshot:
        return _believed(await super().get(job_id))

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        return _believed(await super().wait_for_terminal(job_id, timeout))


def _believed(job: JobSnapshot) -> JobSnapshot:
    wrong = job.last_error is not None and job.last_error.code == "verification_failed"
    return job.model_copy(update={"state": "succeeded", "last_error": None}) if wrong else job
