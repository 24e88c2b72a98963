"""Sending a record to another Cody: chunk by chunk, from where the last attempt was acknowledged, in constant memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from cody.pipeline.push_journal import Journal, JournalFile
from cody.pipeline.transfer import Record, blocks
from cody.sync.chunking import chunk_lines
from cody.sync.contracts import TERMINAL, Adapter, Chunk, JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.policy import ManifestBuilder
from cody.sync.wire import MAX_CHUNK_BYTES

IN_FLIGHT = 4
"""Chunks on their way at a time: a line of 100 ms carries 20 MB/s then."""
LOOK_EVERY_S = 1.0

FORGOTTEN = frozenset(
    {
        *("source_not_found", "job_not_found", "chunk_conflict", "source_invalid"),
        *("chunk_index_gap", "checksum_mismatch", "manifest_invalid"),
        "source_not_collecting",  # sealed, with chunks that the journal does not know of: nothing says with which
    }
)
"""What a push that goes on is told when the other side, or the record, is not what it was: it begins anew, once."""


class Progress(Protocol):
    """Who is shown how far it is."""

    def sent(self, record: Record, acknowledged_bytes: int) -> None:
        """So many bytes are on the other side."""
        ...

    def applied(self, job: JobSnapshot) -> None:
        """All are; the other side puts them where they belong."""
        ...


class _Stale(Exception):
    """The journal does not fit what is there."""


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    after: Journal
    """The journal once it is acknowledged."""
    answer: asyncio.Task[bool]


async def push(
    adapter: Adapter,
    url: str,
    record: Record,
    file: JournalFile,
    progress: Progress,
    *,
    chunk_bytes: int = MAX_CHUNK_BYTES,
) -> JobSnapshot:
    """The job of the record, sealed; `file` must be locked. Raises SyncError.

    A push that broke off goes on behind the last acknowledged chunk. After backend_unavailable the journal stays.
    """
    new = Journal(
        url=url,
        conversation_id=record.conversation_id,
        path=str(record.path),
        size=record.size,
        chunk_bytes=chunk_bytes,
    )
    known = file.load()
    journal = known if known is not None and known.is_of(new) else new
    if journal.source_id is not None:
        try:
            return await _Push(adapter, record, file, journal, progress).run()
        except _Stale:
            file.save(new)
        except SyncError as error:
            if error.code not in FORGOTTEN:
                raise
            file.save(new)
    return await _Push(adapter, record, file, new, progress).run()


async def ended(adapter: Adapter, job: JobSnapshot, file: JournalFile, progress: Progress) -> JobSnapshot:
    """The job once it has ended, and with it the push."""
    while job.state not in TERMINAL:
        progress.applied(job)
        try:
            job = await adapter.wait_for_terminal(job.job_id, LOOK_EVERY_S)
        except SyncError as error:
            if error.code != "timeout":
                raise
            job = await adapter.get(job.job_id)
    progress.applied(job)
    file.remove()
    return job


class _Push:
    def __init__(
        self, adapter: Adapter, record: Record, file: JournalFile, journal: Journal, progress: Progress
    ) -> None:
        self._adapter = adapter
        self._record = record
        self._file = file
        self._journal = journal
        self._progress = progress
        self._found = ManifestBuilder()
        self._on_its_way: deque[_OnItsWay] = deque()

    async def run(self) -> JobSnapshot:
        if self._journal.source_id is None:
            source = await self._adapter.start(self._record.conversation_id, self._record.thread_id)
            self._save(self._journal.model_copy(update={"source_id": source.source_id}))
        self._progress.sent(self._record, self._journal.acknowledged_bytes)
        assert self._journal.source_id is not None
        await self._send(self._journal.source_id)
        if self._journal.job_id is not None:  # all of it was sealed, and is what is there now
            return await self._adapter.get(self._journal.job_id)
        found = self._found
        job = await self._adapter.seal(
            self._journal.source_id, found.manifest, found.checksum, found.manifest.message_count
        )
        self._save(self._journal.model_copy(update={"job_id": job.job_id}))
        return job

    async def _send(self, source_id: str) -> None:
        resumed_at = self._journal.acknowledged_chunks
        try:
            with closing(blocks(self._record)) as read:
                chunks: Iterator[Chunk] = chunk_lines(read, self._journal.chunk_bytes)
                while (chunk := await _next(chunks)) is not None:
                    self._found.add(chunk)
                    if self._found.total_chunks == resumed_at:
                        self._compare()
                    if self._found.total_chunks > resumed_at:
                        await self._offer(source_id, chunk)
            while self._on_its_way:
                await self._acknowledged()
        finally:
            for one in self._on_its_way:
                one.answer.cancel()
            await asyncio.gather(*(one.answer for one in self._on_its_way), return_exceptions=True)
        if self._found.total_chunks < resumed_at:
            raise _Stale

    def _compare(self) -> None:
        """A file that was changed meanwhile would be found out at the seal, after all of it was sent; or, if that was
        sealed already, never."""
        if self._found.checksum != self._journal.acknowledged_sha256:
            raise _Stale

    async def _offer(self, source_id: str, chunk: Chunk) -> None:
        after = {
            "acknowledged_chunks": self._found.total_chunks,
            "acknowledged_bytes": self._found.manifest.byte_size,
            "acknowledged_sha256": self._found.checksum,
        }
        call = self._adapter.append(source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
        self._on_its_way.append(_OnItsWay(self._journal.model_copy(update=after), asyncio.create_task(call)))
        if len(self._on_its_way) >= IN_FLIGHT:
            await self._acknowledged()

    async def _acknowledged(self) -> None:
        first = self._on_its_way[0]
        await first.answer
        self._on_its_way.popleft()
        self._save(first.after)
        self._progress.sent(self._record, first.after.acknowledged_bytes)

    def _save(self, journal: Journal) -> None:
        self._journal = journal
        self._file.save(journal)


async def _next(chunks: Iterator[Chunk]) -> Chunk | None:
    """The next chunk, read in a thread; None at the end. Not left before the thread is: a generator that is still at
    work can't be closed."""
    reading = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        await asyncio.wait([reading])
        raise
