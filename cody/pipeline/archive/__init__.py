"""The archive: the durable record of runs and Responses in SQL, and the search over it.

SQLite in the state folder, or the PostgreSQL that DATABASE_URL names. Together with the SQL adapter of the sync engine
the only home of SQL. Importing it costs some 0.4 s (SQLAlchemy): only who uses it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Text, column, inspect, select, table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from structlog import get_logger

from cody.contracts.run import RunPage, RunSnapshot, RunStatus, TurnRecord
from cody.contracts.submit import ThreadPage
from cody.pipeline.archive import projection, responses, runs, search, threads
from cody.pipeline.archive.engine import (
    WRITES,
    ArchiveRefused,
    ArchiveUnavailable,
    archive_url,
    make_engine,
    prepare_file,
    sql_calls,
)
from cody.pipeline.archive.projection import (
    Cursor,
    EventRow,
    FenceRaised,
    FenceRegressed,
    FenceVerdict,
    HaltedRun,
    RunBatch,
    RunHead,
)
from cody.pipeline.archive.responses import ResponseRow
from cody.pipeline.archive.tables import SCHEMA, VERSION_TABLE
from cody.pipeline.search_text import Document, SearchHit, SearchPage
from cody.pipeline.tracing import span
from cody.store.events import Frame
from cody.wall_clock import now_text

__all__ = [
    "Archive",
    "ArchiveRefused",
    "ArchiveUnavailable",
    "Cursor",
    "Document",
    "EventRow",
    "FenceRaised",
    "FenceRegressed",
    "FenceVerdict",
    "HaltedRun",
    "ResponseRow",
    "RunBatch",
    "RunHead",
    "SearchHit",
    "SearchPage",
]

log = get_logger()


class Archive:
    """One database. Opened (and migrated) by the first call that needs it; close it with `aclose`.

    Every method raises ArchiveUnavailable when the database is away, full or busy (nothing was written then, unless the
    reply to a commit was lost: all writes may be repeated), and ArchiveRefused for data that it will never take.
    """

    def __init__(self, database_url: str | None, state_dir: Path) -> None:
        """Touches nothing yet. Raises ConfigurationError for a URL that can't be used."""
        self._url = archive_url(database_url, state_dir)
        self._engine: AsyncEngine = make_engine(self._url)
        self._writer: AsyncEngine = self._engine.execution_options(**{WRITES: True})
        self._is_open = False
        self._opening = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the database is, without the password."""
        return self._url.render_as_string(hide_password=True)

    async def open(self) -> None:
        """Make the file, bring the tables to the newest state; repeating it is free. Raises ConfigurationError."""
        async with self._opening:
            if self._is_open:
                return
            with sql_calls(f"open the archive {self.address}"):
                if self._url.get_backend_name() == "sqlite":
                    assert self._url.database is not None
                    await asyncio.to_thread(prepare_file, Path(self._url.database))
                async with self._engine.connect() as connection:
                    is_current = await _schema_of(connection) == SCHEMA
            if not is_current:
                # Here, not above: Alembic costs 0.2 s of import, and almost every start finds the tables ready.
                from cody.pipeline.archive.migrate import migrate

                await asyncio.to_thread(migrate, self._url)
            self._is_open = True
            log.info("archive.opened", address=self.address)

    async def ping(self) -> None:
        """Answers when the database does."""
        async with self._reading("reach the archive") as connection:
            await connection.execute(select(1))

    async def aclose(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _reading(self, doing: str) -> AsyncIterator[AsyncConnection]:
        await self.open()
        with sql_calls(doing):
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _writing(self, doing: str) -> AsyncIterator[AsyncConnection]:
        await self.open()
        with span("sql.write", kind="client", db_system_name=self._url.get_backend_name()), sql_calls(doing):
            async with self._writer.begin() as connection:
                yield connection

    # Projection

    async def cursor(self, run_id: str) -> Cursor:
        """Where the projection of a run stands."""
        async with self._reading(f"read the cursor of run {run_id}") as connection:
            return await projection.cursor(connection, run_id)

    async def record(self, run_id: str, before: Cursor, batch: RunBatch) -> bool:
        """Add a batch and move the cursor, together; False, and nothing written, when the cursor is not `before`."""
        now = now_text()
        async with self._writing(f"archive run {run_id}") as connection:
            return await projection.record(connection, run_id, before, batch, now=now)

    async def heads(self, run_ids: Sequence[str]) -> dict[str, RunHead]:
        """Status and last number of those of these runs that are archived."""
        async with self._reading("compare runs with the archive") as connection:
            return await projection.heads(connection, run_ids)

    async def halted(self, *, limit: int = 100) -> list[HaltedRun]:
        """Runs whose projection has stopped for good, the latest first, and why."""
        async with self._reading("list halted runs") as connection:
            return await projection.halted(connection, limit=limit)

    async def raise_fence(self, run_id: str, fence: int, *, claim_id: str, last_seq: int | None = None) -> FenceVerdict:
        """Keep the fence under which a worker has just acquired a run; FenceRegressed when Redis went back in time.

        `claim_id` is new for every acquisition and the same when the call is repeated. With `last_seq` (what Redis
        has), events that are archived beyond it are a regression too.
        """
        async with self._writing(f"raise the fence of run {run_id}") as connection:
            return await projection.raise_fence(connection, run_id, fence, claim_id=claim_id, last_seq=last_seq)

    # Runs, read back

    async def snapshot(self, run_id: str) -> RunSnapshot:
        """All of a run; raises NotFound, MetaCorrupt."""
        async with self._reading(f"read run {run_id}") as connection:
            return await runs.snapshot(connection, run_id)

    async def page(
        self,
        *,
        limit: int,
        status: RunStatus | None = None,
        epic_id: str | None = None,
        cursor: str | None = None,
    ) -> RunPage:
        """One page of runs, newest first; cursors are those of the listing in Redis. Raises InvalidRequest."""
        async with self._reading("list runs") as connection:
            return await runs.page(connection, limit=limit, status=status, epic_id=epic_id, cursor=cursor)

    async def turn_records(self, run_id: str) -> list[TurnRecord]:
        """The turns of a run in order; raises NotFound."""
        async with self._reading(f"read the turns of run {run_id}") as connection:
            return await runs.turn_records(connection, run_id)

    async def turn_record(self, run_id: str, turn: int) -> TurnRecord:
        """One turn; raises NotFound."""
        async with self._reading(f"read turn {turn} of run {run_id}") as connection:
            return await runs.turn_record(connection, run_id, turn)

    async def events_after(self, run_id: str, seq: int, *, count: int = 1000, turn: int | None = None) -> list[Frame]:
        """Up to `count` events with a number above `seq`, in order: the same frames that Redis gave."""
        async with self._reading(f"read the events of run {run_id}") as connection:
            return await runs.events_after(connection, run_id, seq, count=count, turn=turn)

    async def seq_at(self, run_id: str, event_id: str) -> int | None:
        """The number of the event with this stream id (SSE's Last-Event-ID); None when it is not archived."""
        async with self._reading(f"find an event of run {run_id}") as connection:
            return await runs.seq_at(connection, run_id, event_id)

    # Responses

    async def put_response(
        self, row: ResponseRow, *, after_event_id: str | None, documents: Sequence[Document] | None = None
    ) -> bool:
        """Write a Response whose row is at `after_event_id` (None: there is no row yet), its cursor with it.

        False when another projector came first: read the row again and go on from its `last_event_id`. `documents`
        replace what is searched of this Response; None leaves that as it is.
        """
        async with self._writing(f"archive response {row.response_id}") as connection:
            return await responses.put(connection, row, after_event_id=after_event_id, documents=documents)

    async def remove_response(self, response_id: str) -> None:
        """Take a Response out, with what is searched of it; repeating it is free."""
        async with self._writing(f"remove response {response_id}") as connection:
            await responses.remove(connection, response_id)

    async def response(self, response_id: str) -> ResponseRow | None:
        async with self._reading(f"read response {response_id}") as connection:
            return await responses.get(connection, response_id)

    async def responses_of_thread(self, thread_id: str, *, limit: int = 1000) -> list[ResponseRow]:
        """The newest Responses of a thread, oldest first."""
        async with self._reading(f"read thread {thread_id}") as connection:
            return await responses.of_thread(connection, thread_id, limit=limit)

    async def responses_of_thread_after(
        self, thread_id: str, after: ResponseRow | None, *, count: int
    ) -> list[ResponseRow]:
        """The Responses of a thread that come after this one (None: from the first), oldest first; at most `count`."""
        async with self._reading(f"read thread {thread_id}") as connection:
            return await responses.of_thread_after(connection, thread_id, after, count=count)

    async def count_of_thread(self, thread_id: str) -> int:
        """How many Responses a thread has; 0 = there is no such thread."""
        async with self._reading(f"count thread {thread_id}") as connection:
            return await responses.count_of_thread(connection, thread_id)

    async def responses_of_run(self, run_id: str, *, limit: int = 1000) -> list[ResponseRow]:
        """The first Responses of a run, oldest first."""
        async with self._reading(f"read the responses of run {run_id}") as connection:
            return await responses.of_run(connection, run_id, limit=limit)

    async def threads(self, *, limit: int, cursor: str | None = None) -> ThreadPage:
        """One page of threads, those that were answered last first. Raises InvalidRequest for a cursor of no listing."""
        async with self._reading("list threads") as connection:
            return await threads.page(connection, limit=limit, cursor=cursor)

    async def unfinished_responses(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of Responses in progress that come after this one, in order; at most `limit`."""
        async with self._reading("list responses in progress") as connection:
            return await threads.unfinished(connection, after=after, limit=limit)

    # Search

    async def search(
        self, query: str, *, limit: int = 20, cursor: str | None = None, run_id: str | None = None
    ) -> SearchPage:
        """Messages, commands, outputs and log tails with all words and "quoted phrases" of the query, newest first.

        Whatever is typed is understood as words; a query without any finds nothing. Raises InvalidRequest for a cursor
        that no search gave.
        """
        async with self._reading("search the archive") as connection:
            return await search.find(connection, query, limit=limit, cursor=cursor, run_id=run_id)


async def _schema_of(connection: AsyncConnection) -> str | None:
    """The migration that the database is at; None for an empty one."""
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(VERSION_TABLE)):
        return None
    statement = select(column("version_num", Text)).select_from(table(VERSION_TABLE))
    return (await connection.execute(statement)).scalar()
