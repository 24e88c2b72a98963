"""The rules of a sync, pure: limits, checksum, what a chunk and a seal must prove, how long to back off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import Field, ValidationError

from cody.sync.contracts import Chunk, Frozen, Manifest
from cody.sync.errors import SyncError

POLICY_VERSION = 1
"""Goes up when a rule here changes what is accepted; a job keeps the version it was sealed under."""

MAX_COUNT = 2**31 - 1
"""The largest count of one chunk: fits every SQL integer."""

MAX_ID_LENGTH = 512
KEEP_S = 7 * 86_400.0


class Policy(Frozen):
    """Limits and times of one engine."""

    version: int = POLICY_VERSION
    max_chunk_bytes: Annotated[int, Field(ge=1)] = 4 * 1024 * 1024
    max_chunks: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1_000_000
    """Together with max_chunk_bytes, the bound of one source."""
    lease_s: Annotated[float, Field(gt=0)] = 30.0
    """A worker that wrote nothing for so long has lost its job to the next one."""
    retry_base_s: Annotated[float, Field(gt=0)] = 0.5
    retry_cap_s: Annotated[float, Field(gt=0)] = 60.0
    max_failures: Annotated[int, Field(ge=0)] = 8
    """Failures in a row, without a chunk applied between them, that a job survives."""
    keep_s: Annotated[float, Field(gt=0)] = KEEP_S
    """How long sources are kept to which nothing is added any more, and jobs that have ended: see Engine.prune. A
    record that was verified is kept until a newer one replaces it."""


def retry_delay_s(failures: int, policy: Policy, jitter: Callable[[], float]) -> float:
    """Seconds to wait after that many failures in a row (from 1): full jitter.

    Uniform in [0, min(cap, base * 2 ** (failures - 1))), so that workers which failed together do not come back
    together. `jitter` answers a number in [0, 1).
    """
    doublings = min(max(failures, 1) - 1, 64)  # 2 ** 1100 is no float
    return jitter() * min(policy.retry_cap_s, policy.retry_base_s * 2.0**doublings)


class ManifestBuilder:
    """Counts and hashes chunks as they go by; holds none of them."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.total_chunks = 0
        self._messages = 0
        self._bytes = 0

    def add(self, chunk: Chunk) -> None:
        """Count a chunk in; chunks come in the order of their index."""
        if chunk.index != self.total_chunks:
            raise SyncError("chunk_index_gap", f"chunk {chunk.index} came where chunk {self.total_chunks} was due")
        self._sha256.update(chunk.payload)
        self.total_chunks += 1
        self._messages += chunk.message_count
        self._bytes += len(chunk.payload)

    def through(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The same chunks, counted on their way."""
        for chunk in chunks:
            self.add(chunk)
            yield chunk

    @property
    def manifest(self) -> Manifest:
        """What went by so far."""
        return Manifest(total_chunks=self.total_chunks, message_count=self._messages, byte_size=self._bytes)

    @property
    def checksum(self) -> str:
        """SHA-256 of the payloads so far, 64 lower-case hex digits."""
        return self._sha256.hexdigest()


def checksum_of(payloads: Iterable[bytes]) -> str:
    """SHA-256 over the payloads in order, 64 lower-case hex digits; the cuts between them do not matter."""
    sha256 = hashlib.sha256()
    for payload in payloads:
        sha256.update(payload)
    return sha256.hexdigest()


def parse_manifest(value: Manifest | Mapping[str, object]) -> Manifest:
    """The manifest, from its JSON object too; raises manifest_invalid."""
    try:
        return Manifest.model_validate(value)
    except ValidationError as refusal:
        fields = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in refusal.errors())
        raise SyncError("manifest_invalid", f"the manifest is not one: {fields}") from None


def chunk_fault(chunk: Chunk, policy: Policy) -> SyncError | None:
    """Why this chunk cannot be taken (source_invalid), or None."""
    whole = all(type(number) is int for number in (chunk.index, chunk.message_count, chunk.byte_size))
    if not whole or not isinstance(chunk.payload, bytes):
        wrong = "index, message_count and byte_size are integers, the payload is bytes"
    elif not 0 <= chunk.index < policy.max_chunks:
        wrong = f"the index must be 0 to {policy.max_chunks - 1}"
    elif len(chunk.payload) > policy.max_chunk_bytes:
        wrong = f"{len(chunk.payload)} bytes, a chunk may have {policy.max_chunk_bytes}; cut smaller chunks"
    elif chunk.byte_size != len(chunk.payload):
        wrong = f"byte_size says {chunk.byte_size}, the payload has {len(chunk.payload)} bytes"
    elif not 0 <= chunk.message_count <= MAX_COUNT:
        wrong = f"message_count {chunk.message_count} is not a count"
    else:
        return None
    return SyncError("source_invalid", f"chunk {chunk.index!r} is refused: {wrong}")


def id_fault(name: str, value: object) -> SyncError | None:
    """Why this cannot be an id (source_invalid), or None."""
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isprintable():
        return None
    return SyncError("source_invalid", f"{name} must be 1 to {MAX_ID_LENGTH} printable characters")


def counts_fault(
    source_id: str,
    collected: Manifest,
    highest_index: int,
    expected: Manifest,
    expected_message_count: int | None,
) -> SyncError | None:
    """Why these chunks are not the announced ones (source_invalid, chunk_index_gap, manifest_invalid), or None.

    `collected` counts distinct indices; they are contiguous from 0 exactly when there is one more of them than the
    highest.
    """
    if collected.total_chunks == 0:
        return SyncError("source_invalid", f"source {source_id} has no chunks: there is nothing to transfer")
    if collected.total_chunks != highest_index + 1:
        missing = highest_index + 1 - collected.total_chunks
        return SyncError(
            "chunk_index_gap", f"source {source_id} lacks {missing} of the chunks 0 to {highest_index}; start a new one"
        )
    for name in ("total_chunks", "message_count", "byte_size"):
        said, found = getattr(expected, name), getattr(collected, name)
        if said != found:
            return SyncError("manifest_invalid", f"source {source_id}: the manifest says {name} {said}, found {found}")
    if expected_message_count is not None and expected_message_count != collected.message_count:
        return SyncError(
            "manifest_invalid",
            f"source {source_id}: {expected_message_count} messages expected, found {collected.message_count}",
        )
    return None


def checksum_fault(source_id: str, expected: str, found: str) -> SyncError | None:
    """checksum_mismatch, or None; anything but the very digits is a mismatch."""
    if expected == found:
        return None
    return SyncError(
        "checksum_mismatch", f"source {source_id}: its chunks hash to {found}, not to what was announced ({expected!r})"
    )


def record_fault(job_id: str, manifest: Manifest, checksum: str, found: ManifestBuilder) -> SyncError | None:
    """verification_failed when what arrived is not what was sealed, or None."""
    if found.manifest != manifest:
        return SyncError("verification_failed", f"job {job_id}: arrived {found.manifest!r}, sealed {manifest!r}")
    if found.checksum != checksum:
        return SyncError(
            "verification_failed", f"job {job_id}: the target hashes to {found.checksum}, sealed {checksum}"
        )
    return None
