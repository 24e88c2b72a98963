"""Jobs: what arrives, what snapshots say, which job of a conversation wins, waiting."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from cody.sync.conformance.kit import Kit, Record
from cody.sync.conformance.scenario import public, with_bench
from cody.sync.contracts import TERMINAL, JobSnapshot


@public
async def the_record_arrives_whole(kit: Kit) -> None:
    """A sealed record ends succeeded, byte for byte what was appended."""
    for record in (Record("one", chunks=1), Record("some", chunks=5), Record("many", chunks=40)):
        job = await kit.sealed(record)
        await kit.succeeded(job.job_id)
        await kit.record_is(job.conversation_id, record)


@public
async def conversations_do_not_mix(kit: Kit) -> None:
    """Jobs of different conversations run side by side, and each list shows its own."""
    records = [Record(f"side-{number}", chunks=3 + number) for number in range(4)]
    jobs = await asyncio.gather(*(kit.sealed(record) for record in records))
    for record, job in zip(records, jobs, strict=True):
        await kit.succeeded(job.job_id)
        await kit.record_is(job.conversation_id, record)
        listed = await kit.list(job.conversation_id)
        kit.same([one.job_id for one in listed], [job.job_id], "jobs listed for the conversation")


@public
async def snapshots_are_complete(kit: Kit) -> None:
    """A job's snapshot says whose it is, how far it is and how it ended; get and list say the same."""
    record = Record("snapshot", chunks=5)
    conversation_id = kit.new_conversation()
    source = await kit.start(conversation_id, "thread-9")
    for chunk in record.chunks:
        await kit.append(source.source_id, chunk)
    early = await kit.seal(source.source_id, record.manifest, record.checksum, record.manifest.message_count)
    _is_sound(kit, early, record)
    late = await kit.succeeded(early.job_id)
    _is_sound(kit, late, record)
    for job in (early, late):
        kit.same((job.job_id, job.conversation_id), (early.job_id, conversation_id), "ids of the job")
        kit.same(job.thread_id, "thread-9", "thread_id of the job")
        kit.same(job.expected_message_count, record.manifest.message_count, "expected_message_count")
    kit.same(late.processed_chunk_index, len(record.chunks) - 1, "processed_chunk_index at the end")
    kit.same(late.processed_message_count, record.manifest.message_count, "processed_message_count at the end")
    kit.same(late.last_cursor, len(record.payload), "last_cursor at the end")
    kit.same(late.last_error, None, "last_error of a job that succeeded")
    kit.same(late.started_at, early.started_at, "started_at at the end")
    kit.same(list(await kit.list(conversation_id)), [late], "what list says")

    job = await kit.sealed(record)
    kit.check(bool(job.thread_id), "a job of a source without a thread has no thread_id")
    kit.same(job.expected_message_count, None, "expected_message_count when none was given")
    await kit.succeeded(job.job_id)


def _is_sound(kit: Kit, job: JobSnapshot, record: Record) -> None:
    """What holds for a snapshot at any time."""
    kit.same(job.source_state, "sealed", "source_state")
    kit.check(job.policy_version >= 1, f"policy_version is {job.policy_version}")
    kit.same(job.total_chunks, len(record.chunks), "total_chunks")
    done = record.chunks[: job.processed_chunk_index + 1]
    kit.check(-1 <= job.processed_chunk_index < job.total_chunks, f"processed_chunk_index {job.processed_chunk_index}")
    messages = sum(chunk.message_count for chunk in done)
    kit.same(job.processed_message_count, messages, f"processed_message_count after {len(done)} chunks")
    kit.same(job.last_cursor, sum(chunk.byte_size for chunk in done), f"last_cursor after {len(done)} chunks")
    kit.check(job.retry_count >= 0, f"retry_count is {job.retry_count}")
    kit.same(job.completed_at is not None, job.state in TERMINAL, f"completed_at is set in state {job.state}")
    for name in ("started_at", "updated_at", "completed_at"):
        moment = getattr(job, name)
        kit.check(moment is None or moment.utcoffset() == timedelta(), f"{name} is not in UTC: {moment!r}")
    kit.check(job.started_at <= job.updated_at, "updated_at is before started_at")
    kit.check(job.completed_at is None or job.started_at <= job.completed_at, "completed_at is before started_at")


@with_bench
async def progress_shows_while_it_runs(kit: Kit) -> None:
    """The cursor and the counts are those of the chunks applied so far, at any time."""
    record = Record("progress", chunks=5)
    for applied in range(5):
        faulty = kit.inject()
        gate = faulty.hold("apply", skip=applied)
        job = await kit.sealed(record)
        await kit.reached(gate.reached, f"chunk {applied} is about to be applied")
        now = await kit.get(job.job_id)
        kit.same((now.state, now.processed_chunk_index), ("running", applied - 1), "state and processed_chunk_index")
        _is_sound(kit, now, record)
        gate.open()
        await kit.succeeded(job.job_id)


@public
async def unknown_jobs_are_not_found(kit: Kit) -> None:
    """get, cancel and wait_for_terminal of an unknown job are job_not_found; an unknown conversation has no jobs."""
    await kit.refused("job_not_found", kit.get("no-such-job"))
    await kit.refused("job_not_found", kit.cancel("no-such-job"))
    await kit.refused("job_not_found", kit.wait("no-such-job"))
    kit.same(list(await kit.list(kit.new_conversation())), [], "jobs of an unknown conversation")


@public
async def a_newer_source_replaces_the_older_job(kit: Kit) -> None:
    """Sealing a newer source of a conversation ends its older job; what can be read is the newer record."""
    conversation_id = kit.new_conversation()
    # The older ones are long, so that no worker is through before the next seal.
    records = [Record(f"version-{number}", chunks) for number, chunks in enumerate((80, 40, 4))]
    sources = [await kit.collected(record, conversation_id) for record in records]
    jobs = [
        await kit.seal(source.source_id, record.manifest, record.checksum)
        for source, record in zip(sources, records, strict=True)
    ]
    kit.same(len({job.job_id for job in jobs}), 3, "jobs of three sources")
    for older in jobs[:-1]:
        after = await kit.get(older.job_id)
        kit.check(after.state in TERMINAL, f"the older job is still {after.state} when a newer source is sealed")
        if after.state != "succeeded":
            _is_replaced(kit, after)
    await kit.succeeded(jobs[-1].job_id)
    await kit.record_is(conversation_id, records[-1])
    listed = {job.job_id: job.state for job in await kit.list(conversation_id)}
    kit.same(set(listed), {job.job_id for job in jobs}, "jobs listed for the conversation")


@with_bench
async def a_running_job_is_replaced(kit: Kit) -> None:
    """A job that is half done when a newer source is sealed ends cancelled, and applies nothing more."""
    conversation_id = kit.new_conversation()
    older, newer = Record("older", chunks=5), Record("newer", chunks=3)
    faulty = kit.inject()
    gate = faulty.hold("apply", skip=2)
    first = await kit.sealed(older, conversation_id)
    await kit.reached(gate.reached, "the older job is half done")
    second = await kit.sealed(newer, conversation_id)
    replaced = await kit.get(first.job_id)
    _is_replaced(kit, replaced)
    gate.open()
    await kit.succeeded(second.job_id)
    await kit.record_is(conversation_id, newer)
    kit.same(await kit.get(first.job_id), replaced, "the replaced job after the newer one has ended")


@public
async def an_older_source_replaces_nothing(kit: Kit) -> None:
    """A source that was started before the one already sealed ends as replaced: it never overwrites the newer
    record."""
    conversation_id = kit.new_conversation()
    older, newer = Record("started-first"), Record("started-second")
    first = await kit.collected(older, conversation_id)
    second = await kit.sealed(newer, conversation_id)
    late = await kit.seal(first.source_id, older.manifest, older.checksum)
    await kit.succeeded(second.job_id)
    _is_replaced(kit, await kit.ended(late.job_id))
    await kit.record_is(conversation_id, newer)


def _is_replaced(kit: Kit, job: JobSnapshot) -> None:
    kit.same(job.state, "cancelled", "state of a job that was replaced")
    code = job.last_error.code if job.last_error else None
    kit.same(code, "job_cancelled_replaced", "last_error of a job that was replaced")


@public
async def waiting_ends_with_the_job(kit: Kit) -> None:
    """Everybody who waits for a job gets its end; whoever asks afterwards gets it at once, with any timeout."""
    job = await kit.sealed(Record("wait", chunks=8))
    ends = await asyncio.gather(*(kit.wait(job.job_id) for _ in range(3)))
    ends += [await kit.wait(job.job_id, timeout_s) for timeout_s in (0.0, 0.01)]
    kit.same({end.state for end in ends}, {"succeeded"}, "states that waiting answers")
    kit.same({end.job_id for end in ends}, {job.job_id}, "jobs that waiting answers")


@with_bench
async def waiting_has_a_timeout(kit: Kit) -> None:
    """Waiting for a job that has not ended in time is timeout, and leaves the job as it is."""
    gate = kit.inject().hold("claim")
    job = await kit.sealed(Record("timeout"))
    for timeout_s in (0.0, 0.05):
        await kit.refused("timeout", kit.wait(job.job_id, timeout_s))
    kit.same((await kit.get(job.job_id)).state, "queued", "state of a job that was waited for in vain")
    gate.open()
    await kit.succeeded(job.job_id)


SCENARIOS = (
    the_record_arrives_whole,
    conversations_do_not_mix,
    snapshots_are_complete,
    progress_shows_while_it_runs,
    unknown_jobs_are_not_found,
    a_newer_source_replaces_the_older_job,
    a_running_job_is_replaced,
    an_older_source_replaces_nothing,
    waiting_ends_with_the_job,
    waiting_has_a_timeout,
)
