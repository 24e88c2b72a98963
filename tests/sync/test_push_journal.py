"""A push that goes on by its journal answers for what the record is now, not for what it was."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cody.pipeline.push import push
from cody.pipeline.push_journal import Journal, JournalFile
from cody.pipeline.transfer import Record, file_record
from cody.sync.adapters.memory import MemoryAdapter
from cody.sync.chunking import chunk_lines
from cody.sync.contracts import JobSnapshot
from cody.sync.policy import ManifestBuilder

URL = "https://cody.example.org"
CHUNK_BYTES = 64
LINES = b"".join(b'{"line": %02d}\n' % number for number in range(40))
DEADLINE_S = 30.0


class Silent:
    def sent(self, record: Record, acknowledged_bytes: int) -> None: ...

    def applied(self, job: JobSnapshot) -> None: ...


@pytest.fixture
async def adapter() -> AsyncIterator[MemoryAdapter]:
    async with MemoryAdapter() as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> Iterator[JournalFile]:
    journal = JournalFile(tmp_path / "sync", URL, "notes")
    with journal.locked():
        yield journal


async def pushed(adapter: MemoryAdapter, path: Path, file: JournalFile) -> JobSnapshot:
    """The job as it ended; the journal stays, as if the command had been killed before it saw that."""
    job = await push(adapter, URL, file_record(path, "notes"), file, Silent(), chunk_bytes=CHUNK_BYTES)
    return await adapter.wait_for_terminal(job.job_id, DEADLINE_S)


async def arrived(adapter: MemoryAdapter) -> bytes:
    return b"".join([piece async for piece in adapter.read("notes")])


def journal_of(file: JournalFile) -> Journal:
    found = file.load()
    assert found is not None
    return found


async def test_what_was_sealed_and_is_the_same_is_not_sent_again(
    tmp_path: Path, adapter: MemoryAdapter, file: JournalFile
) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(LINES)
    first = await pushed(adapter, path, file)
    assert journal_of(file).job_id == first.job_id
    assert (await pushed(adapter, path, file)).job_id == first.job_id
    file.save(journal_of(file).model_copy(update={"job_id": None}))  # killed before the seal's answer came
    assert (await pushed(adapter, path, file)).job_id == first.job_id
    assert len(await adapter.list("notes")) == 1


@pytest.mark.parametrize(
    "edited", [LINES.replace(b"07", b"70"), LINES.replace(b"39", b"93"), LINES.replace(b"\n", b" ")]
)
async def test_a_file_that_was_edited_after_its_seal_is_sent_as_it_is_now(
    tmp_path: Path, adapter: MemoryAdapter, file: JournalFile, edited: bytes
) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(LINES)
    first = await pushed(adapter, path, file)
    assert await arrived(adapter) == LINES
    assert len(edited) == len(LINES)
    path.write_bytes(edited)
    second = await pushed(adapter, path, file)
    assert (second.state, second.job_id != first.job_id) == ("succeeded", True)
    assert await arrived(adapter) == edited


async def test_a_journal_that_is_behind_what_was_sealed_says_nothing_about_the_rest(
    tmp_path: Path, adapter: MemoryAdapter, file: JournalFile
) -> None:
    """It is not synced to the disk: after a power loss it may be the one of some chunks before."""
    path = tmp_path / "notes.jsonl"
    path.write_bytes(LINES)
    await pushed(adapter, path, file)
    found = ManifestBuilder()
    found.add(next(chunk_lines([LINES], CHUNK_BYTES)))
    behind = {
        "acknowledged_chunks": 1,
        "acknowledged_bytes": found.manifest.byte_size,
        "acknowledged_sha256": found.checksum,
    }
    file.save(journal_of(file).model_copy(update={**behind, "job_id": None}))
    path.write_bytes(LINES.replace(b"39", b"93"))
    assert (await pushed(adapter, path, file)).state == "succeeded"
    assert await arrived(adapter) == LINES.replace(b"39", b"93")


async def test_a_push_that_is_cancelled_while_a_chunk_is_read_is_cancelled_and_nothing_else(
    tmp_path: Path, adapter: MemoryAdapter, file: JournalFile
) -> None:
    path = tmp_path / "slow"
    os.mkfifo(path)  # whoever reads it is kept
    record = Record(path, len(LINES), "notes", None)
    task = asyncio.create_task(push(adapter, URL, record, file, Silent(), chunk_bytes=CHUNK_BYTES))
    writer = await asyncio.to_thread(path.open, "wb")  # opened as soon as it is read
    task.cancel()
    with writer:
        ended, _ = await asyncio.wait([task], timeout=0.05)
        assert not ended, "what is read from is closed under its reader"
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, DEADLINE_S)
    assert journal_of(file).acknowledged_chunks == 0
