"""Writing runs into the archive: rows, events, search and cursor in one transaction, by one projector at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from cody.contracts.run import RunSnapshot, TurnRecord
from cody.pipeline.archive.search import add_documents
from cody.pipeline.archive.tables import FENCES, PROJECTIONS, RUN_EVENTS, RUNS, TURNS
from cody.pipeline.archive.upsert import insert_into, upsert
from cody.pipeline.archive.values import MAX_INTEGER, plain
from cody.pipeline.search_text import Document
from cody.pipeline.trace_context import trace_id_of


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a run is archived. `version` changes with every write: what was decided on an older one is refused."""

    version: int = 0
    last_seq: int = 0
    last_event_id: str | None = None
    known_seq: int = 0
    """The highest number that Redis was seen to have."""
    halted_reason: str | None = None
    status: str | None = None
    """Of the run as archived; None = its row was never written."""
    first_open_turn: int = 1
    """Turns before this one are archived for good."""


@dataclass(frozen=True, slots=True)
class EventRow:
    seq: int
    event_id: str
    type: str
    ts: str
    turn: int | None
    payload: str


@dataclass(frozen=True, slots=True)
class RunBatch:
    """What one transaction adds to a run. `run` None leaves its row alone; a reason halts its projection for good."""

    run: RunSnapshot | None
    known_seq: int
    events: Sequence[EventRow] = ()
    turns: Sequence[TurnRecord] = ()
    documents: Sequence[Document] = ()
    halted_reason: str | None = None


@dataclass(frozen=True, slots=True)
class RunHead:
    """As much of an archived run as tells whether it is behind."""

    status: str | None
    updated_at: str | None
    last_seq: int
    halted: bool


@dataclass(frozen=True, slots=True)
class HaltedRun:
    run_id: str
    reason: str
    at: str
    last_seq: int


@dataclass(frozen=True, slots=True)
class FenceRaised:
    """The fence is the highest that was ever seen of this run."""


@dataclass(frozen=True, slots=True)
class FenceRegressed:
    """Redis went back in time: this archive has seen a higher fence, or (when asked) later events."""

    stored_fence: int
    stored_seq: int


FenceVerdict = FenceRaised | FenceRegressed


async def cursor(connection: AsyncConnection, run_id: str) -> Cursor:
    """Where the projection of a run stands; that of an unknown run is the beginning."""
    newest = select(func.max(TURNS.c.turn)).where(TURNS.c.run_id == run_id).scalar_subquery()
    is_newest = and_(TURNS.c.run_id == PROJECTIONS.c.run_id, TURNS.c.turn == newest)
    statement = (
        select(PROJECTIONS, RUNS.c.status, TURNS.c.turn, TURNS.c.status.label("turn_status"))
        .join_from(PROJECTIONS, RUNS, RUNS.c.run_id == PROJECTIONS.c.run_id, isouter=True)
        .join(TURNS, is_newest, isouter=True)
        .where(PROJECTIONS.c.run_id == run_id)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return Cursor()
    return Cursor(
        version=row.version,
        last_seq=row.last_seq,
        last_event_id=row.last_event_id,
        known_seq=row.known_seq,
        halted_reason=row.halted_reason,
        status=row.status,
        # A turn begins when the one before has ended: only the newest may still change.
        first_open_turn=row.turn if row.turn_status == "running" else (row.turn or 0) + 1,
    )


async def record(connection: AsyncConnection, run_id: str, before: Cursor, batch: RunBatch, *, now: str) -> bool:
    """Add the batch and move the cursor; False when another projector came first: then nothing was written."""
    if not await _advance(connection, run_id, before, batch, now):
        return False
    if batch.run is not None:
        await connection.execute(upsert(connection, RUNS), [run_values(batch.run)])
    if batch.turns:
        await connection.execute(upsert(connection, TURNS), [_turn_values(turn) for turn in batch.turns])
    if batch.events:
        traces = await _traces(connection, run_id, {event.turn for event in batch.events if event.turn is not None})
        rows = [_event_values(run_id, event, traces.get(event.turn)) for event in batch.events]
        await connection.execute(RUN_EVENTS.insert(), rows)
    await add_documents(connection, batch.documents)
    return True


async def _advance(connection: AsyncConnection, run_id: str, before: Cursor, batch: RunBatch, now: str) -> bool:
    last = batch.events[-1] if batch.events else None
    halts = batch.halted_reason is not None and before.halted_reason is None
    values: dict[str, Any] = {
        "last_seq": last.seq if last else before.last_seq,
        "last_event_id": last.event_id if last else before.last_event_id,
        "known_seq": max(before.known_seq, batch.known_seq),
        "version": before.version + 1,
        **({"halted_reason": batch.halted_reason, "halted_at": now} if halts else {}),
    }
    if before.version == 0:
        new = insert_into(connection, PROJECTIONS).values(run_id=run_id, **values).on_conflict_do_nothing()
        return bool((await connection.execute(new)).rowcount == 1)
    moved = (
        update(PROJECTIONS)
        .where(
            PROJECTIONS.c.run_id == run_id,
            PROJECTIONS.c.version == before.version,
            PROJECTIONS.c.last_seq == before.last_seq,
        )
        .values(**values)
    )
    return bool((await connection.execute(moved)).rowcount == 1)


async def _traces(connection: AsyncConnection, run_id: str, turns: set[int]) -> dict[int | None, str]:
    """The trace of each of these turns that is here, and has one."""
    known = [turn for turn in turns if 0 <= turn <= MAX_INTEGER]
    if not known:
        return {}
    of_these = and_(TURNS.c.run_id == run_id, TURNS.c.turn.in_(known), TURNS.c.trace_id.is_not(None))
    return {
        row.turn: row.trace_id
        for row in await connection.execute(select(TURNS.c.turn, TURNS.c.trace_id).where(of_these))
    }


async def heads(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, RunHead]:
    """Those of these runs that the archive knows."""
    statement = (
        select(PROJECTIONS, RUNS.c.status, RUNS.c.updated_at)
        .join_from(PROJECTIONS, RUNS, PROJECTIONS.c.run_id == RUNS.c.run_id, isouter=True)
        .where(PROJECTIONS.c.run_id.in_(run_ids))
    )
    rows = await connection.execute(statement)
    return {
        row.run_id: RunHead(row.status, row.updated_at, row.last_seq, row.halted_reason is not None) for row in rows
    }


async def halted(connection: AsyncConnection, *, limit: int) -> list[HaltedRun]:
    """Runs whose projection has stopped for good, the latest first."""
    statement = (
        select(PROJECTIONS)
        .where(PROJECTIONS.c.halted_reason.is_not(None))
        .order_by(PROJECTIONS.c.halted_at.desc(), PROJECTIONS.c.run_id)
        .limit(limit)
    )
    return [
        HaltedRun(row.run_id, row.halted_reason, row.halted_at, row.last_seq)
        for row in await connection.execute(statement)
    ]


async def raise_fence(
    connection: AsyncConnection, run_id: str, fence: int, *, claim_id: str, last_seq: int | None
) -> FenceVerdict:
    """Keep the fence when it is the highest so far; see Archive.raise_fence."""
    statement = insert_into(connection, FENCES).values(run_id=run_id, fence=fence, claim_id=claim_id)
    raised = statement.on_conflict_do_update(
        index_elements=[FENCES.c.run_id],
        set_={"fence": statement.excluded.fence, "claim_id": statement.excluded.claim_id},
        where=FENCES.c.fence < statement.excluded.fence,
    )
    is_raised = (await connection.execute(raised)).rowcount == 1
    stored = (await connection.execute(select(FENCES).where(FENCES.c.run_id == run_id))).one()
    seq_of = select(PROJECTIONS.c.last_seq).where(PROJECTIONS.c.run_id == run_id)
    archived_seq = (await connection.execute(seq_of)).scalar() or 0
    # The same claim once more: the reply to the first call was lost.
    is_known = (stored.fence, stored.claim_id) == (fence, claim_id)
    if (is_raised or is_known) and (last_seq is None or archived_seq <= last_seq):
        return FenceRaised()
    return FenceRegressed(stored.fence, archived_seq)


def run_values(run: RunSnapshot) -> dict[str, Any]:
    """The row of a run. What holds only while it runs (pid, subscribers, its place in the queue) is left out."""
    return {
        "run_id": run.run_id,
        "status": run.status,
        "reason": plain(run.reason),
        "epic_id": plain(run.epic_id),
        "working_dir": plain(run.working_dir),
        "agent": run.agent,
        "config": run.config.model_dump_json(by_alias=True),
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "current_turn": run.current_turn,
        "stats": run.stats.model_dump_json(by_alias=True),
        "completion": run.completion.model_dump_json(by_alias=True),
        "error": run.error.model_dump_json(by_alias=True) if run.error else None,
        "host": plain(run.host),
        "worker_id": plain(run.worker_id),
        "fence": run.fence,
    }


def _turn_values(turn: TurnRecord) -> dict[str, Any]:
    return {
        "run_id": turn.run_id,
        "turn": turn.turn,
        "status": turn.status,
        "response_id": plain(turn.response_id),
        "thread_id": plain(turn.thread_id),
        "started_at": turn.started_at,
        "finished_at": turn.finished_at,
        "record": turn.model_dump_json(by_alias=True),
        "trace_id": trace_id_of(turn.traceparent),
    }


def _event_values(run_id: str, event: EventRow, trace_id: str | None) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "seq": event.seq,
        "event_id": event.event_id,
        "type": event.type,
        "ts": event.ts,
        "turn": event.turn,
        "payload": event.payload,
        "trace_id": trace_id,
    }
