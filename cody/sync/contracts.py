"""What callers of a sync see: sources, chunks, the manifest, jobs, and the seven methods of an adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from cody.sync.errors import SyncErrorCode

SourceState = Literal["collecting", "sealed", "failed"]
JobState = Literal["queued", "running", "verifying", "retrying", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})

Count = Annotated[int, Field(ge=0, strict=True)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorInfo(Frozen):
    """Why something failed or was cancelled."""

    code: SyncErrorCode
    message: str


class Manifest(Frozen):
    """What the whole record must be; the same size for any record. The checksum goes beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total_chunks: Count
    message_count: Count
    byte_size: Count


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the record. Chunks in the order of their index (from 0) are the record, byte for byte."""

    index: int
    payload: bytes
    message_count: int
    """Messages that end in this chunk: one that is cut over several chunks counts where it ends."""
    byte_size: int


class SourceSnapshot(Frozen):
    """Where chunks are collected until they are sealed."""

    source_id: str
    conversation_id: str
    thread_id: str
    state: SourceState
    policy_version: int
    created_at: datetime
    updated_at: datetime
    job_id: str | None = None
    """Set once sealed."""
    last_error: ErrorInfo | None = None
    """Set when failed: why the seal was refused."""


class JobSnapshot(Frozen):
    """The transfer of one sealed source. Times are UTC."""

    job_id: str
    conversation_id: str
    thread_id: str
    """The conversation's id when the source was started without one."""
    state: JobState
    source_state: SourceState
    policy_version: int
    started_at: datetime
    """When the source was sealed."""
    updated_at: datetime
    completed_at: datetime | None = None
    """Set exactly when the state is terminal."""
    last_cursor: int
    """Bytes of the record that are applied and durable."""
    processed_chunk_index: int
    """Index of the last applied chunk; -1 before the first."""
    total_chunks: int
    processed_message_count: int
    expected_message_count: int | None = None
    """As given to seal."""
    retry_count: int
    """Failed attempts so far, lost workers included."""
    last_error: ErrorInfo | None = None
    """The last failure, or why the job was cancelled. A job that succeeded keeps none."""


@runtime_checkable
class Adapter(Protocol):
    """A backend of the sync engine. Every method raises SyncError and nothing else."""

    async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
        """A new source, collecting."""
        ...

    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        """True when the chunk was new, False when it was there already; any order, any repeat.

        Raises source_not_found, source_not_collecting, source_invalid (index, counts or size are wrong; nothing
        changed), chunk_conflict (that index holds something else).
        """
        ...

    async def seal(
        self,
        source_id: str,
        expected_manifest: Manifest,
        expected_checksum: str,
        expected_message_count: int | None = None,
    ) -> JobSnapshot:
        """The job that transfers the source; the same one for every further call.

        `expected_checksum`: SHA-256 over the payloads in order, 64 lower-case hex digits. Raises source_invalid (no
        chunks), chunk_index_gap, manifest_invalid, checksum_mismatch: the source is then failed, and sealing it again
        says the same.
        """
        ...

    async def get(self, job_id: str) -> JobSnapshot:
        """The job as it is now; raises job_not_found."""
        ...

    async def list(self, conversation_id: str) -> Sequence[JobSnapshot]:
        """All jobs of the conversation, newest first; none for one that is unknown."""
        ...

    async def cancel(self, job_id: str) -> JobSnapshot:
        """The job, ended: cancelled by this call, or as it had ended before. Raises job_not_found."""
        ...

    async def wait_for_terminal(self, job_id: str, timeout: float | None = None) -> JobSnapshot:
        """The job once it has ended, however it ended. Seconds; None waits as long as it takes.

        Raises job_not_found, and timeout when it has not ended by then.
        """
        ...


@runtime_checkable
class Readable(Protocol):
    """An adapter that can also show what arrived."""

    def read(self, conversation_id: str) -> AsyncIterator[bytes]:
        """The verified record, chunk by chunk; raises source_not_found when the conversation has none."""
        ...
