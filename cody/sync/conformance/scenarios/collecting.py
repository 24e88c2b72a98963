"""Collecting chunks: start and append."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from cody.sync.conformance.kit import CallRefused, Kit, Record
from cody.sync.conformance.scenario import public
from cody.sync.contracts import Chunk


@public
async def start_makes_a_collecting_source(kit: Kit) -> None:
    """Each start is a new source of its own, collecting."""
    conversation_id = kit.new_conversation()
    first = await kit.start(conversation_id, "thread-7")
    second = await kit.start(conversation_id)
    kit.check(first.source_id != second.source_id, "two sources have one id")
    for source in (first, second):
        kit.same(source.conversation_id, conversation_id, "conversation_id of the source")
        kit.same(source.state, "collecting", "state of a new source")
    kit.same(first.thread_id, "thread-7", "thread_id of the source")


@public
async def append_repeated_is_a_no_op(kit: Kit) -> None:
    """The same chunk again changes nothing, and says so."""
    record = Record("repeat")
    source = await kit.collected(record)
    for chunk in (*record.chunks, *record.chunks):
        kit.check(await kit.append(source.source_id, chunk) is False, f"append of chunk {chunk.index} again said True")
    job = await kit.seal(source.source_id, record.manifest, record.checksum)
    await kit.succeeded(job.job_id)
    await kit.record_is(job.conversation_id, record)


@public
async def append_of_other_bytes_is_a_conflict(kit: Kit) -> None:
    """An index keeps its first bytes: others are chunk_conflict, and change nothing."""
    record = Record("conflict")
    source = await kit.collected(record)
    chunk = record.chunks[1]
    flipped = bytes([chunk.payload[0] ^ 1]) + chunk.payload[1:]
    longer = chunk.payload + b"!"
    for other in (
        replace(chunk, payload=flipped),
        replace(chunk, payload=longer, byte_size=len(longer)),
        replace(chunk, payload=b"", byte_size=0),
        replace(chunk, message_count=chunk.message_count + 1),
    ):
        await kit.refused("chunk_conflict", kit.append(source.source_id, other))
    job = await kit.seal(source.source_id, record.manifest, record.checksum)
    await kit.succeeded(job.job_id)
    await kit.record_is(job.conversation_id, record)


@public
async def append_takes_any_order(kit: Kit) -> None:
    """Chunks may come in any order, and many at a time; the record is in the order of their index."""
    record = Record("order", chunks=12)
    source = await kit.start(kit.new_conversation())
    backwards = [await kit.append(source.source_id, chunk) for chunk in reversed(record.chunks[6:])]
    at_once = await asyncio.gather(*(kit.append(source.source_id, chunk) for chunk in record.chunks[:6]))
    kit.check(all((*backwards, *at_once)), "append of a new chunk said False")
    job = await kit.seal(source.source_id, record.manifest, record.checksum)
    await kit.succeeded(job.job_id)
    await kit.record_is(job.conversation_id, record)


@public
async def append_at_once_keeps_one_of_two(kit: Kit) -> None:
    """Of two different chunks sent at once under one index, one is kept and the other is chunk_conflict."""
    source = await kit.start(kit.new_conversation())
    rivals = [Chunk(index=0, payload=payload, message_count=1, byte_size=1) for payload in (b"a", b"b", b"c")]
    answers = await asyncio.gather(*(kit.append(source.source_id, rival) for rival in rivals), return_exceptions=True)
    kept = [answer for answer in answers if answer is True]
    refusals = [answer.code for answer in answers if isinstance(answer, CallRefused)]
    kit.same((len(kept), refusals), (1, ["chunk_conflict"] * 2), "answers to three different chunks with index 0")


@public
async def append_of_nonsense_is_refused(kit: Kit) -> None:
    """Impossible indices, counts and sizes are source_invalid; the source goes on collecting."""
    record = Record("nonsense")
    source = await kit.collected(record)
    good = record.chunks[1]
    for wrong in (
        replace(good, index=-1),
        replace(good, index=9, byte_size=good.byte_size + 1),
        replace(good, index=9, byte_size=-1),
        replace(good, index=9, message_count=-1),
    ):
        await kit.refused("source_invalid", kit.append(source.source_id, wrong))
    job = await kit.seal(source.source_id, record.manifest, record.checksum)
    await kit.succeeded(job.job_id)


@public
async def append_after_seal_is_refused(kit: Kit) -> None:
    """A sealed source takes nothing more: source_not_collecting, for new chunks and for known ones."""
    record = Record("sealed")
    source = await kit.collected(record)
    job = await kit.seal(source.source_id, record.manifest, record.checksum)
    extra = Chunk(index=len(record.chunks), payload=b"late", message_count=1, byte_size=4)
    for chunk in (extra, record.chunks[0]):
        await kit.refused("source_not_collecting", kit.append(source.source_id, chunk))
    await kit.succeeded(job.job_id)
    await kit.refused("source_not_collecting", kit.append(source.source_id, extra))
    await kit.record_is(job.conversation_id, record)


@public
async def unknown_sources_are_not_found(kit: Kit) -> None:
    """append and seal of a source that nobody started are source_not_found."""
    record = Record("unknown")
    await kit.refused("source_not_found", kit.append("no-such-source", record.chunks[0]))
    await kit.refused("source_not_found", kit.seal("no-such-source", record.manifest, record.checksum))


SCENARIOS = (
    start_makes_a_collecting_source,
    append_repeated_is_a_no_op,
    append_of_other_bytes_is_a_conflict,
    append_takes_any_order,
    append_at_once_keeps_one_of_two,
    append_of_nonsense_is_refused,
    append_after_seal_is_refused,
    unknown_sources_are_not_found,
)
