"""The SQL adapter on both databases: every promise of the kit, several processes, and deaths in the midst of a write."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from cody.sync import conformance
from cody.sync.adapters.sql import SqlAdapter, SqlStorage
from cody.sync.adapters.sql.tables import METADATA
from cody.sync.conformance.kit import Record
from cody.sync.contracts import JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.storage import ConversationRow, Write
from tests.conftest import Wait
from tests.pipeline.postgres_server import PostgresServer, administer, new_database
from tests.sync.sync_worker import POLICY

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


async def sealed(adapter: SqlAdapter, record: Record, conversation_id: str) -> JobSnapshot:
    source = await adapter.start(conversation_id)
    for chunk in record.chunks:
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    return await adapter.seal(source.source_id, record.manifest, record.checksum)


async def payload_of(adapter: SqlAdapter, conversation_id: str) -> bytes:
    return b"".join([piece async for piece in adapter.read(conversation_id)])


@asynccontextmanager
async def worker(url: str, dies: str = "never") -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.sync.sync_worker", url, dies], cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.timeout(300)
def test_sqlite_keeps_every_promise(tmp_path: Path) -> None:
    number = itertools.count()
    report = conformance.run(
        lambda: SqlAdapter(f"sqlite:///{tmp_path}/{next(number)}.sqlite3"), call_timeout_s=30, deadline_s=280
    )
    assert report.passed, report
    assert not report.not_exercised


@pytest.mark.timeout(300)
async def test_postgresql_keeps_every_promise(postgres_url: str) -> None:
    async with new_database(postgres_url) as url:

        @asynccontextmanager
        async def made() -> AsyncIterator[SqlAdapter]:
            async with SqlAdapter(url) as adapter:
                yield adapter
            await administer(url, f"TRUNCATE {', '.join(METADATA.tables)}")  # a new database takes ten times as long

        report = await conformance.run_async(made, call_timeout_s=30, deadline_s=280)
    assert report.passed, report
    assert not report.not_exercised


@pytest.mark.timeout(300)
async def test_two_processes_work_off_the_jobs_of_one_database(database_url: str) -> None:
    records = {f"shared-{number}": Record(f"shared-{number}", chunks=12) for number in range(16)}
    async with SqlAdapter(database_url, workers=0, poll_s=0.05, policy=POLICY) as adapter:
        async with worker(database_url), worker(database_url):
            jobs = {name: await sealed(adapter, record, name) for name, record in records.items()}
            ends = await asyncio.gather(*(adapter.wait_for_terminal(job.job_id, 200) for job in jobs.values()))
        assert {end.state for end in ends} == {"succeeded"}
        for name, record in records.items():
            assert await payload_of(adapter, name) == record.payload


@pytest.mark.parametrize("dies", ["between", "commit", "publish"])
async def test_a_worker_killed_inside_a_transaction_leaves_nothing_of_it(database_url: str, dies: str) -> None:
    record = Record("killed", chunks=6)
    async with SqlAdapter(database_url, workers=0, poll_s=0.05, policy=POLICY) as watcher:
        job = await sealed(watcher, record, "killed")
        dead = False
        async with worker(database_url, dies) as process:
            if dies == "publish":  # the conversation is written only once: the third record dies there
                for name in ("second", "third"):
                    await sealed(watcher, record, name)
            assert await asyncio.wait_for(process.wait(), DEADLINE_S) == -signal.SIGKILL
            dead = True
        assert dead
        stored = SqlStorage(database_url)
        row = await stored.job(job.job_id)
        kept = [chunk async for chunk in stored.record(job.job_id)]
        await stored.aclose()
        assert row is not None
        assert row.applied_chunks == len(kept), "the cursor and the record are not of one transaction"
        assert [chunk.payload for chunk in kept] == [chunk.payload for chunk in record.chunks[: len(kept)]]
        if dies != "publish":
            assert 0 < len(kept) < len(record.chunks)
    async with SqlAdapter(database_url, poll_s=0.05, policy=POLICY) as heir:
        conversations = ("killed", "second", "third") if dies == "publish" else ("killed",)
        for name in conversations:
            for listed in await heir.list(name):
                assert (await heir.wait_for_terminal(listed.job_id, DEADLINE_S)).state == "succeeded"
            assert await payload_of(heir, name) == record.payload


async def test_many_processes_make_the_tables_at_once(database_url: str) -> None:
    async def opened() -> None:
        storage = SqlStorage(database_url)
        assert await storage.next_job() is None
        await storage.aclose()

    async with worker(database_url) as one, worker(database_url) as other:
        await asyncio.gather(*(opened() for _ in range(6)))
        for process in (one, other):
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), DEADLINE_S) == b"working\n"
            assert process.returncode is None


async def test_a_write_over_another_revision_changes_nothing(database_url: str) -> None:
    storage = SqlStorage(database_url)
    first = ConversationRow(conversation_id="c", sources_started=1)
    assert await storage.commit(Write(conversation=first))
    for revision in (1, 3):
        wrong = ConversationRow(conversation_id="c", sources_started=9, revision=revision)
        other = ConversationRow(conversation_id="d")
        assert not await storage.commit(Write(conversation=wrong))
        assert await storage.conversation("c") == first
        assert await storage.conversation(other.conversation_id) is None
    await storage.aclose()


async def test_ids_and_messages_that_no_database_takes_are_survived(database_url: str) -> None:
    async with SqlAdapter(database_url, poll_s=0.05) as adapter:
        for strange in ("nul\0", "half \ud83d", "' OR 1=1 --", "x" * 5000):
            with pytest.raises(SyncError, match="job_not_found"):
                await adapter.get(strange)
            assert list(await adapter.list(strange)) == []
        record = Record("strange")
        name = "r\u00e9sum\u00e9 \U0001f600 'quoted' %s :name"
        job = await sealed(adapter, record, name)
        assert (await adapter.wait_for_terminal(job.job_id, DEADLINE_S)).conversation_id == name
        assert await payload_of(adapter, name) == record.payload


async def test_what_arrived_is_handed_on_until_it_was_taken_in(database_url: str) -> None:
    async with SqlAdapter(database_url, poll_s=0.05) as adapter:
        replaced = await sealed(adapter, Record("old"), "one")
        await adapter.wait_for_terminal(replaced.job_id, DEADLINE_S)
        newer = await sealed(adapter, Record("new"), "one")
        other = await sealed(adapter, Record("other"), "two")
        for job in (newer, other):
            await adapter.wait_for_terminal(job.job_id, DEADLINE_S)
        assert {job.job_id for job in await adapter.arrivals()} == {newer.job_id, other.job_id}
        await adapter.taken_in(newer.job_id)
        await adapter.taken_in(newer.job_id)
        assert [job.job_id for job in await adapter.arrivals()] == [other.job_id]
    async with SqlAdapter(database_url) as reopened:
        assert [job.job_id for job in await reopened.arrivals()] == [other.job_id]


async def test_a_sqlite_file_is_private_durable_and_shared(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "sync.sqlite3"
    before = os.umask(0)
    try:
        async with SqlAdapter(f"sqlite:///{path}") as adapter:
            await adapter.start("c")
            modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
            assert set(modes.values()) == {0o600}, modes
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            with sqlite3.connect(path) as connection:
                assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            connection.close()
    finally:
        os.umask(before)


async def test_a_write_waits_for_another_process_to_end_its_own(tmp_path: Path) -> None:
    path = tmp_path / "sync.sqlite3"
    async with SqlAdapter(f"sqlite:///{path}") as adapter:
        await adapter.start("c")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        starting = asyncio.create_task(adapter.start("c"))
        done, _ = await asyncio.wait({starting}, timeout=0.3)
        assert not done
        holder.execute("COMMIT")
        holder.close()
        assert (await asyncio.wait_for(starting, DEADLINE_S)).state == "collecting"


async def test_a_database_that_goes_away_is_told_and_comes_back(own_postgres: PostgresServer, eventually: Wait) -> None:
    server, record = own_postgres, Record("outage", chunks=4)
    async with SqlAdapter(server.url, policy=POLICY, poll_s=0.05) as adapter:
        first = await sealed(adapter, record, "outage")
        await adapter.wait_for_terminal(first.job_id, DEADLINE_S)
        await server.stop()
        with pytest.raises(SyncError) as told:
            await adapter.start("outage")
        assert told.value.code == "backend_unavailable"
        await server.start()

        async def is_back() -> bool:
            with suppress(SyncError):
                return (await adapter.start("outage")).state == "collecting"
            return False

        await eventually(is_back)
        second = await sealed(adapter, record, "outage")
        assert (await adapter.wait_for_terminal(second.job_id, DEADLINE_S)).state == "succeeded"


async def test_a_failure_tells_nothing_of_what_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "sync.sqlite3"
    async with SqlAdapter(f"sqlite:///{path}") as adapter:
        source = await adapter.start("c")
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE sync_chunks")
        connection.close()
        with pytest.raises(SyncError) as told:
            await adapter.append(source.source_id, 0, b"a secret of the conversation", 1, 28)
        assert told.value.code == "backend_unavailable"
        assert "sync_chunks" in told.value.message
        assert "secret" not in told.value.message


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:hidden@h/d", "nonsense", "sqlite:///"])
def test_a_url_that_is_no_database_of_ours_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://") as told:
        SqlAdapter(url)
    assert "hidden" not in str(told.value)
