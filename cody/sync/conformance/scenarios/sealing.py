"""Sealing: fails closed, and makes one job."""

from __future__ import annotations

import asyncio

from cody.sync.conformance.kit import CallRefused, Kit, Record
from cody.sync.conformance.scenario import public
from cody.sync.contracts import Chunk, Manifest
from cody.sync.errors import SyncErrorCode
from cody.sync.policy import checksum_of


async def _fails(
    kit: Kit,
    code: SyncErrorCode,
    record: Record,
    *,
    manifest: Manifest | None = None,
    checksum: str | None = None,
    messages: int | None = None,
) -> None:
    """The seal of a source with all chunks of the record must fail, for good, and leave nothing behind."""
    source = await kit.collected(record)
    manifest, checksum = manifest or record.manifest, record.checksum if checksum is None else checksum
    await _stays_failed(kit, code, source.source_id, record, manifest, checksum, messages)
    kit.same(list(await kit.list(source.conversation_id)), [], "jobs of a conversation whose seal failed")
    await kit.record_is(source.conversation_id, None)


async def _stays_failed(
    kit: Kit,
    code: SyncErrorCode,
    source_id: str,
    record: Record,
    manifest: Manifest,
    checksum: str,
    messages: int | None = None,
) -> None:
    await kit.refused(code, kit.seal(source_id, manifest, checksum, messages))
    # It says the same to who has not heard it, and to who would have it right now: chunks cannot be trusted any more.
    await kit.refused(code, kit.seal(source_id, record.manifest, record.checksum))
    late = Chunk(index=99, payload=b"late", message_count=1, byte_size=4)
    await kit.refused("source_not_collecting", kit.append(source_id, late))


@public
async def seal_with_a_gap_fails(kit: Kit) -> None:
    """A missing index is chunk_index_gap, wherever it is missing; the source is failed."""
    record = Record("gap", chunks=5)
    for missing in (0, 2):
        source = await kit.start(kit.new_conversation())
        kept = [chunk for chunk in record.chunks if chunk.index != missing]
        for chunk in kept:
            await kit.append(source.source_id, chunk)
        there = Manifest(
            total_chunks=len(kept),
            message_count=sum(chunk.message_count for chunk in kept),
            byte_size=sum(chunk.byte_size for chunk in kept),
        )
        checksum = checksum_of(chunk.payload for chunk in kept)
        await _stays_failed(kit, "chunk_index_gap", source.source_id, record, there, checksum)


@public
async def seal_with_a_wrong_checksum_fails(kit: Kit) -> None:
    """A checksum that is not the one of the chunks in order is checksum_mismatch; the source is failed."""
    record = Record("checksum")
    backwards = checksum_of(chunk.payload for chunk in reversed(record.chunks))
    for wrong in (checksum_of([b"something else"]), backwards, "", record.checksum[:-1]):
        await _fails(kit, "checksum_mismatch", record, checksum=wrong)


@public
async def seal_with_wrong_counts_fails(kit: Kit) -> None:
    """A manifest whose chunks, messages or bytes are not those collected is manifest_invalid; the source is failed."""
    record = Record("manifest")
    for field in ("total_chunks", "message_count", "byte_size"):
        for off in (1, -1):
            wrong = record.manifest.model_copy(update={field: getattr(record.manifest, field) + off})
            await _fails(kit, "manifest_invalid", record, manifest=wrong)


@public
async def seal_with_a_wrong_message_count_fails(kit: Kit) -> None:
    """An expected_message_count that is not what was collected is manifest_invalid; the right one is taken."""
    record = Record("messages")
    for off in (1, -1):
        await _fails(kit, "manifest_invalid", record, messages=record.manifest.message_count + off)
    source = await kit.collected(record)
    job = await kit.seal(source.source_id, record.manifest, record.checksum, record.manifest.message_count)
    job = await kit.succeeded(job.job_id)
    kit.same(job.expected_message_count, record.manifest.message_count, "expected_message_count of the job")


@public
async def seal_without_chunks_fails(kit: Kit) -> None:
    """A source without chunks is source_invalid, also when nothing was announced: nothing replaces no record."""
    await _fails(kit, "source_invalid", Record("empty", chunks=0))


@public
async def seal_again_gives_the_same_job(kit: Kit) -> None:
    """However often a source is sealed, at once or later, it has one job."""
    record = Record("again")
    source = await kit.collected(record)
    at_once = await asyncio.gather(
        *(kit.seal(source.source_id, record.manifest, record.checksum) for _ in range(4)),
    )
    ids = {job.job_id for job in at_once}
    kit.same(len(ids), 1, "jobs of a source that was sealed four times at once")
    await kit.succeeded(ids.copy().pop())
    again = await kit.seal(source.source_id, record.manifest, record.checksum)
    kit.same(again.state, "succeeded", "state that a seal after the end answers")
    ids.add(again.job_id)
    ids |= {job.job_id for job in await kit.list(source.conversation_id)}
    kit.same(len(ids), 1, "jobs of a source that was sealed again")


@public
async def append_races_with_seal(kit: Kit) -> None:
    """A chunk that comes while its source is sealed is in the manifest's count, or it is refused; never beside it."""
    record = Record("race")
    for _ in range(4):
        source = await kit.collected(record)
        extra = Chunk(index=len(record.chunks), payload=b"extra", message_count=1, byte_size=5)
        sealed, appended = await asyncio.gather(
            kit.seal(source.source_id, record.manifest, record.checksum),
            kit.append(source.source_id, extra),
            return_exceptions=True,
        )
        if isinstance(sealed, CallRefused):
            kit.same((sealed.code, appended), ("manifest_invalid", True), "seal and append at once")
        elif isinstance(sealed, BaseException):
            raise sealed
        else:
            code = appended.code if isinstance(appended, CallRefused) else appended
            kit.same(code, "source_not_collecting", "the append that lost to a seal")
            await kit.succeeded(sealed.job_id)
            await kit.record_is(sealed.conversation_id, record)


SCENARIOS = (
    seal_with_a_gap_fails,
    seal_with_a_wrong_checksum_fails,
    seal_with_wrong_counts_fails,
    seal_with_a_wrong_message_count_fails,
    seal_without_chunks_fails,
    seal_again_gives_the_same_job,
    append_races_with_seal,
)
