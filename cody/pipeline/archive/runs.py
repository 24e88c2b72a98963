"""Runs read back from the archive, in the shapes of the run contract."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row, Select, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog import get_logger

from cody.contracts.run import (
    CompletionState,
    RunError,
    RunPage,
    RunSnapshot,
    RunStats,
    RunStatus,
    RunSummary,
    TurnRecord,
)
from cody.contracts.run_config import RunConfig
from cody.contracts.wire import epoch_ms, utc_text
from cody.errors import InvalidRequest, NotFound
from cody.pipeline.archive.tables import RUN_EVENTS, RUNS, TURNS
from cody.pipeline.archive.values import MAX_BIGINT, MAX_INTEGER, plain, within
from cody.store import keys
from cody.store.events import Frame, frame
from cody.store.meta import MetaCorrupt
from cody.store.runs import cursor_position, cursor_text

log = get_logger()


async def snapshot(connection: AsyncConnection, run_id: str) -> RunSnapshot:
    """All of a run; raises NotFound, and MetaCorrupt for a row that this version can't read."""
    row = (await connection.execute(select(RUNS).where(RUNS.c.run_id == plain(run_id)))).one_or_none()
    if row is None:
        raise NotFound(f"no run {run_id} in the archive")
    try:
        return RunSnapshot.model_validate({**_common(row), "config": RunConfig.model_validate_json(row.config)})
    except ValidationError as error:
        raise MetaCorrupt(f"run {run_id} in the archive can't be read: {str(error)[:200]}") from None


async def page(
    connection: AsyncConnection, *, limit: int, status: RunStatus | None, epic_id: str | None, cursor: str | None
) -> RunPage:
    """One page of runs, newest first; see Archive.page."""
    statement = select(RUNS).order_by(RUNS.c.created_at.desc(), RUNS.c.run_id.desc()).limit(limit + 1)
    if status is not None:
        statement = statement.where(RUNS.c.status == status)
    if epic_id is not None:
        statement = statement.where(RUNS.c.epic_id == plain(epic_id))
    if cursor is not None:
        statement = _after(statement, cursor)
    rows = (await connection.execute(statement)).all()
    found: list[RunSummary] = []
    for row in rows[:limit]:
        try:
            found.append(RunSummary.model_validate(_common(row)))
        except ValidationError as error:
            log.warning("archive.run_corrupt", run_id=row.run_id, error=str(error)[:200])
    return RunPage(runs=found, next_cursor=_cursor_of(rows[limit - 1]) if len(rows) > limit else None)


def _after(statement: Select[Any], cursor: str) -> Select[Any]:
    score, run_id = cursor_position(cursor)
    try:
        created_at = utc_text(int(score))
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            "cursor: not one that a listing gave (use `nextCursor` as it is)", details={"field": "cursor"}
        ) from None
    same = and_(RUNS.c.created_at == created_at, RUNS.c.run_id < plain(run_id))
    return statement.where(or_(RUNS.c.created_at < created_at, same))


def _cursor_of(row: Row[Any]) -> str:
    return cursor_text(f"{epoch_ms(row.created_at)}:{row.run_id}")


def _common(row: Row[Any]) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "status": row.status,
        "reason": row.reason,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "epic_id": row.epic_id,
        "stream_key": keys.events(row.run_id),
        "working_dir": row.working_dir,
        "agent": row.agent,
        "worker_id": row.worker_id,
        "host": row.host,
        "current_turn": row.current_turn,
        "stats": RunStats.model_validate_json(row.stats),
        "completion": CompletionState.model_validate_json(row.completion),
        "error": RunError.model_validate_json(row.error) if row.error else None,
        "fence": row.fence,
    }


async def turn_records(connection: AsyncConnection, run_id: str) -> list[TurnRecord]:
    """The turns of a run in order; raises NotFound for an unknown run."""
    rows = await connection.execute(
        select(TURNS.c.record).where(TURNS.c.run_id == plain(run_id)).order_by(TURNS.c.turn)
    )
    found = [TurnRecord.model_validate_json(row.record) for row in rows]
    if not found:
        await _require(connection, run_id)
    return found


async def turn_record(connection: AsyncConnection, run_id: str, turn: int) -> TurnRecord:
    """One turn; raises NotFound, naming the run or the turn."""
    statement = select(TURNS.c.record).where(TURNS.c.run_id == plain(run_id), TURNS.c.turn == within(turn, MAX_INTEGER))
    raw = (await connection.execute(statement)).scalar()
    if raw is None:
        await _require(connection, run_id)
        raise NotFound(f"run {run_id} has no turn {turn} in the archive")
    return TurnRecord.model_validate_json(raw)


async def events_after(
    connection: AsyncConnection, run_id: str, seq: int, *, count: int, turn: int | None
) -> list[Frame]:
    """Up to `count` events with a number above `seq`, as the frames that Redis gave."""
    statement = select(RUN_EVENTS).where(
        RUN_EVENTS.c.run_id == plain(run_id), RUN_EVENTS.c.seq > within(seq, MAX_BIGINT)
    )
    if turn is not None:
        statement = statement.where(RUN_EVENTS.c.turn == within(turn, MAX_INTEGER))
    rows = await connection.execute(statement.order_by(RUN_EVENTS.c.seq).limit(count))
    return [_frame(run_id, row) for row in rows]


async def seq_at(connection: AsyncConnection, run_id: str, event_id: str) -> int | None:
    """The number of the event with this stream id; None when the archive has no such event."""
    statement = select(RUN_EVENTS.c.seq).where(
        RUN_EVENTS.c.run_id == plain(run_id), RUN_EVENTS.c.event_id == plain(event_id)
    )
    found: int | None = (await connection.execute(statement)).scalar()
    return found


def _frame(run_id: str, row: Row[Any]) -> Frame:
    fields = {
        b"type": row.type.encode(),
        b"ts": row.ts.encode(),
        b"runId": run_id.encode(),
        b"seq": b"%d" % row.seq,
        b"payload": row.payload.encode(),
    }
    return frame(row.event_id.encode(), fields)


async def _require(connection: AsyncConnection, run_id: str) -> None:
    if (await connection.execute(select(RUNS.c.run_id).where(RUNS.c.run_id == plain(run_id)))).one_or_none() is None:
        raise NotFound(f"no run {run_id} in the archive")
