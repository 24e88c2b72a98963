"""The sync engine over SQLite and PostgreSQL (SQLAlchemy 2 asyncio), for several processes on one database.

Every write is one transaction that compares revisions, so the cursor of a job moves exactly when its chunk is stored. The
tables (`sync_...`) are made by whoever comes first. Besides sqlalchemy it needs aiosqlite or asyncpg.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Table, delete, exists, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from cody.sync import engine, views
from cody.sync.adapters.sql.database import WRITES, canonical_calls, database_url, make_engine, prepare_file
from cody.sync.adapters.sql.tables import (
    CHUNKS,
    CONVERSATIONS,
    JOBS,
    METADATA,
    RECORDS,
    SOURCES,
    TABLES,
    TAKEN_IN,
    Row,
    RowType,
    can_be_stored,
    chunk_of,
    chunk_values,
    row_of,
    stored,
)
from cody.sync.clock import Clock
from cody.sync.contracts import Chunk, JobSnapshot
from cody.sync.policy import Policy
from cody.sync.storage import ConversationRow, JobRow, SourceRow, Write

POLL_S = 1.0
"""How soon a job that another process sealed, or gave back, is noticed."""
RECORD_ROWS = 4
"""Rows read ahead of a record: with the largest chunks of the default policy 16 MiB."""
LOCK_ID = 0x636F647973
"""PostgreSQL's advisory lock of whoever makes the tables."""


class SqlStorage:
    """One database. Opened by the first call; belongs to the event loop of that call. See Storage for its methods.

    Raises SyncError backend_unavailable, and ValueError at once for a URL that can't be used.
    """

    def __init__(self, url: str) -> None:
        """`postgresql://user:password@host:port/name` or `sqlite:////path/to/file`."""
        self._url = database_url(url)
        self._engine = make_engine(self._url)
        self._reads = self._engine
        if self._url.get_backend_name() == "postgresql":
            self._reads = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writes = self._engine.execution_options(**{WRITES: True})
        self._is_open = False
        self._opening = asyncio.Lock()

    async def aclose(self) -> None:
        """Let go of the database."""
        await self._engine.dispose()

    async def conversation(self, conversation_id: str) -> ConversationRow | None:
        return await self._found(ConversationRow, conversation_id)

    async def source(self, source_id: str) -> SourceRow | None:
        return await self._found(SourceRow, source_id)

    async def job(self, job_id: str) -> JobRow | None:
        return await self._found(JobRow, job_id)

    async def jobs(self, conversation_id: str) -> Sequence[JobRow]:
        if not can_be_stored(conversation_id):
            return []
        wanted = select(JOBS).where(JOBS.c.conversation_id == conversation_id).order_by(JOBS.c.ordinal.desc())
        return [row_of(JobRow, found) for found in await self._read(wanted)]

    async def next_job(self) -> JobRow | None:
        first = select(JOBS).where(JOBS.c.due_at.is_not(None)).order_by(JOBS.c.due_at, JOBS.c.job_id).limit(1)
        return next((row_of(JobRow, found) for found in await self._read(first)), None)

    async def chunk(self, source_id: str, index: int) -> Chunk | None:
        wanted = select(CHUNKS).where(CHUNKS.c.source_id == source_id, CHUNKS.c.chunk_index == index)
        return next((chunk_of(found) for found in await self._read(wanted)), None)

    async def stale(self, before: datetime, limit: int) -> Sequence[SourceRow]:
        moment = stored(before)
        is_record = exists().where(CONVERSATIONS.c.record_job_id == JOBS.c.job_id)
        is_over = SOURCES.c.job_id.is_(None) | ((JOBS.c.completed_at < moment) & ~is_record)
        joined = select(SOURCES).outerjoin(JOBS, JOBS.c.job_id == SOURCES.c.job_id)
        wanted = joined.where(SOURCES.c.updated_at < moment, is_over).order_by(SOURCES.c.updated_at).limit(limit)
        return [row_of(SourceRow, found) for found in await self._read(wanted)]

    async def record(self, job_id: str) -> AsyncIterator[Chunk]:
        behind = -1
        while True:
            # A transaction for each page: one over all of a slow verification would hold up WAL and vacuum.
            wanted = select(RECORDS).where(RECORDS.c.job_id == job_id, RECORDS.c.chunk_index > behind)
            page = [
                chunk_of(found) for found in await self._read(wanted.order_by(RECORDS.c.chunk_index).limit(RECORD_ROWS))
            ]
            for chunk in page:
                yield chunk
            if len(page) < RECORD_ROWS:
                return
            behind = page[-1].index

    async def commit(self, write: Write) -> bool:
        await self._open()
        with canonical_calls():
            async with self._writes.connect() as connection:
                is_current = await _store(connection, write)
                await (connection.commit() if is_current else connection.rollback())
                return is_current

    async def arrivals(self, limit: int) -> Sequence[JobRow]:
        """Jobs whose record is their conversation's and was not taken in yet, the oldest first."""
        is_taken = exists().where(TAKEN_IN.c.job_id == JOBS.c.job_id)
        wanted = select(JOBS).join(CONVERSATIONS, CONVERSATIONS.c.record_job_id == JOBS.c.job_id).where(~is_taken)
        return [row_of(JobRow, found) for found in await self._read(wanted.order_by(JOBS.c.completed_at).limit(limit))]

    async def taken_in(self, job_id: str) -> None:
        """Remember that this record was handed on; repeating it is fine."""
        await self._open()
        with canonical_calls():
            async with self._writes.begin() as connection:
                await connection.execute(_insert(connection, TAKEN_IN).values(job_id=job_id).on_conflict_do_nothing())

    async def _found(self, kind: type[RowType], key: str) -> RowType | None:
        table, column = TABLES[kind]
        if not can_be_stored(key):
            return None
        return next((row_of(kind, found) for found in await self._read(select(table).where(column == key))), None)

    async def _read(self, statement: Any) -> Sequence[Mapping[str, Any]]:
        await self._open()
        with canonical_calls():
            async with self._reads.connect() as connection:
                return [dict(found) for found in (await connection.execute(statement)).mappings()]

    async def _open(self) -> None:
        if self._is_open:
            return
        async with self._opening:
            if not self._is_open:  # another call may have opened it meanwhile
                await self._make_tables()
                self._is_open = True

    async def _make_tables(self) -> None:
        with canonical_calls():
            if self._url.get_backend_name() == "sqlite":
                assert self._url.database is not None
                await asyncio.to_thread(prepare_file, Path(self._url.database))
            async with self._writes.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # IF NOT EXISTS is no answer: two of them at once, and one fails on a catalogue's unique index.
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
                await connection.run_sync(METADATA.create_all)


async def _store(connection: AsyncConnection, write: Write) -> bool:
    """All of the write, in the order that all writers lock rows in; False at the first revision that differs."""
    rows = (*(row for row in (write.conversation, write.source) if row is not None), *write.jobs)
    for row in rows:
        if not await _put(connection, row):
            return False
    if write.added is not None and write.source is not None:
        key = {"source_id": write.source.source_id}
        await connection.execute(CHUNKS.insert(), {**key, **chunk_values(write.added)})
    if write.applied is not None:
        values = {"job_id": write.jobs[0].job_id, **chunk_values(write.applied)}
        kept = {name: value for name, value in values.items() if name not in ("job_id", "chunk_index")}
        applied = _insert(connection, RECORDS).values(**values)
        await connection.execute(applied.on_conflict_do_update(index_elements=list(RECORDS.primary_key), set_=kept))
    if write.forget_sources:
        await connection.execute(delete(CHUNKS).where(CHUNKS.c.source_id.in_(write.forget_sources)))
    if write.forget_records:
        await connection.execute(delete(RECORDS).where(RECORDS.c.job_id.in_(write.forget_records)))
    for source in write.dropped:
        if not await _drop(connection, source):
            return False
    return True


async def _drop(connection: AsyncConnection, source: SourceRow) -> bool:
    is_same = (SOURCES.c.source_id == source.source_id, SOURCES.c.revision == source.revision)
    if (await connection.execute(delete(SOURCES).where(*is_same))).rowcount != 1:
        return False
    await connection.execute(delete(CHUNKS).where(CHUNKS.c.source_id == source.source_id))
    if source.job_id is not None:
        for table in (JOBS, RECORDS, TAKEN_IN):
            await connection.execute(delete(table).where(table.c.job_id == source.job_id))
    return True


async def _put(connection: AsyncConnection, row: Row) -> bool:
    table, key = TABLES[type(row)]
    values = {field.name: stored(getattr(row, field.name)) for field in fields(row)}
    statement: Any = _insert(connection, table).values(**values).on_conflict_do_nothing()
    if row.revision > 1:
        is_before = (key == values[key.name], table.c.revision == row.revision - 1)
        statement = update(table).where(*is_before).values(**values)
    return (await connection.execute(statement)).rowcount == 1


def _insert(connection: AsyncConnection, table: Table) -> Any:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


class SqlAdapter(engine.Engine):
    """The sync engine over a database. Close it with `aclose`."""

    def __init__(
        self,
        url: str,
        *,
        policy: Policy | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        workers: int = 1,
        poll_s: float | None = POLL_S,
    ) -> None:
        """Touches nothing yet; raises ValueError for a URL that can't be used. See Engine for the rest."""
        self._sql = SqlStorage(url)
        super().__init__(self._sql, policy=policy, clock=clock, jitter=jitter, workers=workers, poll_s=poll_s)

    async def aclose(self) -> None:
        """Stop the workers, then let go of the database."""
        await super().aclose()
        await self._sql.aclose()

    async def arrivals(self, limit: int = 100) -> Sequence[JobSnapshot]:
        """Transfers that succeeded and were not `taken_in` yet, the oldest first; replaced records are left out."""
        with engine.canonical():
            return [views.job_snapshot(job) for job in await self._sql.arrivals(limit)]

    async def news(self, seen: int, within_s: float) -> int:
        """Wait for a job to end here; at most `within_s`, as other processes on the database say nothing.

        `seen`: what the call before answered, 0 at first. Nothing that happens between two calls is missed.
        """
        clock = self.bench.clock
        await clock.wait(seen, clock.now() + timedelta(seconds=within_s))
        return clock.rings

    async def taken_in(self, job_id: str) -> None:
        """Say that this record was handed on: it is no arrival any more."""
        with engine.canonical():
            await self._sql.taken_in(job_id)
