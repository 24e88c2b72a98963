"""Keeps the archive equal to what Redis has of every run, from the news that every commit leaves.

A notification only names a run; its cursor in SQL says where to go on. Rows and cursor are written in one transaction
that is refused when another projector moved the cursor meanwhile, and only then is the notification acknowledged:
doubled ones, lost replies, a projector killed at any point, and two of them at once all lead to the same rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from structlog import get_logger

from cody.contracts.run import TurnRecord
from cody.contracts.stream_events import TraceContext
from cody.errors import NotFound, StoreUnavailable
from cody.pipeline.archive import Archive, ArchiveRefused, ArchiveUnavailable, Cursor, HaltedRun, RunBatch
from cody.pipeline.projecting import Desk, Pace, consumer_name, keep_projecting
from cody.pipeline.run_steps import (
    Step,
    archived_news,
    ended_at,
    has_turns_after,
    is_behind,
    next_step,
    read_turns,
    turns_due,
)
from cody.pipeline.trace_context import trace_context_of
from cody.pipeline.tracing import is_tracing, span
from cody.store.archive_news import ArchiveNews, Lag
from cody.store.archive_source import ArchiveSource
from cody.store.events import id_tuple
from cody.store.meta import MetaCorrupt

log = get_logger()

FIRST_EVENTS = 100
MAX_EVENTS = 500
BATCH_BYTES = 1 << 20
"""A batch is meant to be no larger than this: XRANGE can only count, and an event may have some 100 KB."""


class RunProjector:
    """Projects runs, turns and events. Any number of them may work on the same Redis and the same database."""

    def __init__(
        self,
        news: ArchiveNews,
        source: ArchiveSource,
        archive: Archive,
        *,
        run_ttl_s: int,
        consumer: str | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`run_ttl_s`: how long Redis keeps a run that has ended, from when the archive has all of it."""
        self._news = news
        self._source = source
        self._archive = archive
        self._run_ttl_s = run_ttl_s
        self._pace = pace or Pace()
        self._consumer = consumer or consumer_name()
        self._desk = Desk(news, self._consumer, self._pace, lambda one: one.run_id)
        self._counts: dict[str, int] = {}
        """How many events to read of a run that is in the middle of a backlog."""

    async def run(self) -> None:
        """Project until cancelled. While Redis or SQL is away it waits, and acknowledges nothing."""
        await keep_projecting("runs", self._round, self._desk)

    async def lag(self) -> Lag:
        """How much news is not archived yet. Raises StoreUnavailable."""
        return await self._news.lag()

    async def halted(self) -> list[HaltedRun]:
        """Runs whose projection has stopped for good, and why. Raises ArchiveUnavailable."""
        return await self._archive.halted()

    async def sweep(self) -> int:
        """Archive what no notification told of, in all runs of the index; the number of such runs."""
        await self._news.join(self._consumer)
        cursor, behind = 0, 0
        while True:
            cursor, listed = await self._source.listed(cursor)
            heads = await self._archive.heads([run.run_id for run in listed])
            for run in listed:
                if is_behind(run, heads.get(run.run_id)):
                    behind += 1
                    while not await self._apart(run.run_id):
                        pass
            if cursor == 0:
                return behind

    async def project(self, run_id: str) -> bool:
        """Archive the next batch of a run; True when there is no more of it for now.

        Raises StoreUnavailable, ArchiveUnavailable: then nothing changed, or all of the batch is in.
        """
        cursor = await self._archive.cursor(run_id)
        try:
            return await self._project(run_id, cursor)
        except MetaCorrupt as error:
            return cursor.halted_reason is not None or await self._halt(run_id, cursor, error.message)
        except ArchiveRefused as error:
            if cursor.halted_reason is not None:
                log.error("archive.run_refused", run_id=run_id, error=error.message)
                return True
            return await self._halt(run_id, cursor, f"the database refuses it: {error.message}")

    async def _apart(self, run_id: str) -> bool:
        """As `project`, of one run of many; True too when it can't be done for a reason of the run's own.

        Such a one is logged, and comes again with the next sweep: its news is not held, which would be tried each round.
        """
        try:
            return await self.project(run_id)
        except (StoreUnavailable, ArchiveUnavailable):
            raise
        except Exception:
            log.exception("archive.run_failed", run_id=run_id)
        self._counts.pop(run_id, None)
        return True

    async def _project(self, run_id: str, cursor: Cursor) -> bool:
        if cursor.last_event_id is not None:
            id_tuple(cursor.last_event_id)  # of one that is none, Redis would say what it says of a broken connection
        count = self._counts.get(run_id, FIRST_EVENTS)
        reading = await self._source.read(run_id, from_id=cursor.last_event_id, count=count + 1)
        step = next_step(run_id, cursor, reading)
        if step is not None:
            due = turns_due(cursor, step)
            turns, unreadable = read_turns(run_id, due, await self._source.turn_records(run_id, due))
            step = replace(step, halt=step.halt or unreadable)
            if not await self._record(run_id, cursor, step, turns):
                # Another projector moved the cursor: look again.
                return False
            if (told := archived_news(cursor, step, reading)) is not None:
                await self._source.tell_archived(run_id, told.seq)
            if step.halt is None and (step.more or has_turns_after(due, step, turns)):
                self._counts[run_id] = _next_count(step, count)
                return False
        self._counts.pop(run_id, None)
        last_seq = ended_at(reading)
        is_halted = cursor.halted_reason is not None or (step is not None and step.halt is not None)
        # A halted run is not all in the archive: Redis is the only place that has the rest, and keeps it.
        if last_seq is not None and not is_halted:
            await self._source.expire(run_id, ttl_s=self._run_ttl_s, last_seq=last_seq)
        return True

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        found = await self._desk.sweep_if_due(self.sweep)
        if found:
            log.info("archive.swept", runs=found)
        if not self._desk:
            await self._desk.take()
        ready_s = loop.time() + self._pace.gather_s
        while self._desk:
            # One batch each in turn: a run with a long backlog does not hold up the others.
            for run_id in self._desk.subjects:
                if await self._apart(run_id):
                    await self._desk.done(run_id)
        await asyncio.sleep(max(0.0, ready_s - loop.time()))

    async def _record(self, run_id: str, cursor: Cursor, step: Step, turns: Sequence[TurnRecord]) -> bool:
        batch = RunBatch(
            run=step.run,
            known_seq=step.known_seq,
            events=step.events,
            turns=turns,
            documents=step.documents,
            halted_reason=step.halt,
        )
        with ExitStack() as spans:
            # The rows of one batch may belong to several turns, each with a trace of its own.
            for turn, trace in (await self._traces(run_id, batch)).items():
                spans.enter_context(span("run.project", trace, kind="consumer", run_id=run_id, turn=turn))
            done = await self._archive.record(run_id, cursor, batch)
        if done and step.halt is not None and cursor.halted_reason is None:
            log.error("archive.run_halted", run_id=run_id, last_seq=cursor.last_seq, reason=step.halt)
        return done

    async def _traces(self, run_id: str, batch: RunBatch) -> dict[int, TraceContext]:
        """The trace of each turn that this batch tells of; not looked for where no traces are recorded."""
        if not is_tracing():
            return {}
        records = {turn.turn: turn for turn in batch.turns}
        for turn in {event.turn for event in batch.events if event.turn is not None} - records.keys():
            with suppress(NotFound):
                records[turn] = await self._archive.turn_record(run_id, turn)
        found = {turn: trace_context_of(record.traceparent) for turn, record in sorted(records.items())}
        return {turn: trace for turn, trace in found.items() if trace is not None}

    async def _halt(self, run_id: str, cursor: Cursor, reason: str) -> bool:
        """Stop a projection that can't go on; False when another projector came first."""
        return await self._record(run_id, cursor, Step(None, cursor.known_seq, halt=reason), [])


def _next_count(step: Step, count: int) -> int:
    """How many events to read next, so that they are some BATCH_BYTES when they are like these."""
    size = sum(len(event.payload) for event in step.events)
    if size == 0:
        return count
    return max(1, min(MAX_EVENTS, len(step.events) * BATCH_BYTES // size))
