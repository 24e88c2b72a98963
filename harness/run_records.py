"""Runs and their turns as they are known: read from Redis, and from the archive once Redis has let go of them."""

from __future__ import annotations

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.run import RunPage, RunSnapshot, RunStatus, TurnPage, TurnRecord
from cody.contracts.wire import epoch_ms
from cody.errors import CodyError, NotFound
from cody.pipeline.pipeline import Pipeline
from cody.store import runs
from cody.store.availability import store_calls
from cody.wall_clock import now_ms

log = get_logger()


class RunRecords:
    """What `GET` answers about runs; everything raises StoreUnavailable when neither store answers."""

    def __init__(self, redis: Redis, pipeline: Pipeline) -> None:
        self._redis = redis
        self._pipeline = pipeline

    async def page(self, *, limit: int, status: RunStatus | None, epic_id: str | None, cursor: str | None) -> RunPage:
        """One page of runs, newest first; raises InvalidRequest for a cursor that no listing gave."""
        with store_calls("list the runs"):
            kept = await runs.page(
                self._redis, limit=limit, now_ms=now_ms(), status=status, epic_id=epic_id, cursor=cursor
            )
        if kept.next_cursor is not None:
            return kept
        return await self._with_archived(kept, limit, status, epic_id, cursor)

    async def _with_archived(
        self, kept: RunPage, limit: int, status: RunStatus | None, epic_id: str | None, cursor: str | None
    ) -> RunPage:
        """The last page of what Redis keeps, gone on with by the archive: both list in the same order."""
        if kept.runs:
            last = kept.runs[-1]
            cursor = runs.cursor_text(f"{epoch_ms(last.created_at)}:{last.run_id}")
        try:
            older = await (await self._pipeline.archive()).page(
                limit=max(1, limit - len(kept.runs)), status=status, epic_id=epic_id, cursor=cursor
            )
        except CodyError as error:
            # Runs that go on are all in Redis: to see them matters more than the history.
            log.warning("runs.archive_not_listed", error=error.message)
            return kept
        if len(kept.runs) >= limit:
            # The page is full; what is older begins the next one.
            return kept.model_copy(update={"next_cursor": cursor if older.runs else None})
        seen = {run.run_id for run in kept.runs}
        return RunPage(
            runs=[*kept.runs, *(run for run in older.runs if run.run_id not in seen)], next_cursor=older.next_cursor
        )

    async def snapshot(self, run_id: str) -> RunSnapshot:
        """All of a run; raises NotFound."""
        try:
            with store_calls(f"read run {run_id}"):
                return await runs.snapshot(self._redis, run_id, now_ms=now_ms())
        except NotFound:
            return await (await self._pipeline.archive()).snapshot(run_id)

    async def turns(self, run_id: str) -> TurnPage:
        """All turns of a run, in order; raises NotFound."""
        try:
            with store_calls(f"read the turns of run {run_id}"):
                return TurnPage(turns=await runs.turn_records(self._redis, run_id))
        except NotFound:
            return TurnPage(turns=await (await self._pipeline.archive()).turn_records(run_id))

    async def turn(self, run_id: str, number: int) -> TurnRecord:
        """One turn; raises NotFound."""
        try:
            with store_calls(f"read turn {number} of run {run_id}"):
                return await runs.turn_record(self._redis, run_id, number)
        except NotFound:
            return await (await self._pipeline.archive()).turn_record(run_id, number)
