"""Keeps the archive equal to what Redis has of every Response: reads, reduces, writes row and cursor, acknowledges.

A response belongs to one projector at a time, by a lease that is taken together with its events. The row is written on
the condition that its cursor is still the one that was read, and only then are the events acknowledged: a projector
killed at any point, a frozen one that comes back, and two at once lead to the same row. An event that can't be applied
is parked with the reason, and the projection goes on behind it. What is wrong with one response stops no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from structlog import get_logger

from cody.contracts.stream_events import MalformedEvent, TraceContext, read_stream_event
from cody.errors import StoreUnavailable
from cody.pipeline.archive import Archive, ArchiveRefused, ArchiveUnavailable
from cody.pipeline.projecting import Desk, Pace, consumer_name, keep_projecting
from cody.pipeline.response_steps import (
    Known,
    Step,
    documents_of,
    ended_in_error,
    known_of,
    next_step,
    refused_step,
    row_of,
)
from cody.pipeline.tracing import is_tracing, span
from cody.store.response_events import Entry, NothingThere, ResponseEvents, TakenByOther
from cody.store.response_news import ResponseLag, ResponseNewsReader

log = get_logger()

REMEMBERED = 256
"""States kept in memory, so that an answer in progress is not read back from SQL for each batch."""

EVENTS_LOST = "events_lost"

GIVE_BACK_S = 1.0


@dataclass(frozen=True, slots=True)
class ResponsePace(Pace):
    """As an answer needs it: the deltas of a busy one become one transaction."""

    gather_s: float = 0.1
    claim_every_s: float = 5.0
    claim_idle_ms: int = 20_000
    sweep_every_s: float = 60.0
    batch: int = 500
    lease_ms: int = 15_000
    """Longer than a transaction takes; a projector that died holds its responses up for so long."""


class ResponseProjector:
    """Projects Responses. Any number of them may work on the same Redis and the same database."""

    def __init__(
        self,
        store: ResponseEvents,
        news: ResponseNewsReader,
        archive: Archive,
        *,
        name: str | None = None,
        pace: ResponsePace | None = None,
    ) -> None:
        self.name = name or consumer_name()
        self._store = store
        self._news = news
        self._archive = archive
        self._pace = pace or ResponsePace()
        self._desk = Desk(news, self.name, self._pace, lambda one: one.response_id)
        self._states: OrderedDict[str, Known] = OrderedDict()
        self._suspects: set[str] = set()

    async def run(self) -> None:
        """Project until cancelled. While Redis or SQL is away it waits, and acknowledges nothing."""
        await keep_projecting("responses", self._round, self._desk)

    async def lag(self) -> ResponseLag:
        """How much is not projected yet. Raises StoreUnavailable."""
        return await self._news.lag()

    async def sweep(self) -> int:
        """Project what no notification told of; the number of such responses that are done now."""
        cursor, done = 0, 0
        while True:
            cursor, ids = await self._store.unprojected(cursor)
            for response_id in ids:
                done += await self._apart(response_id, self.project)
            if cursor == 0:
                break
        await self._end_lost()
        return done

    async def _end_lost(self) -> None:
        """End the rows in progress whose stream Redis has lost: nothing can come for them any more.

        At the second look only: a publisher that lives begins the stream anew with its next event.
        """
        lost: set[str] = set()
        after = ""
        while ids := await self._archive.unfinished_responses(after=after, limit=self._pace.batch):
            lost.update(await self._store.gone(ids))
            after = ids[-1]
        again, self._suspects = lost & self._suspects, lost
        for response_id in sorted(again):
            if await self._apart(response_id, self._end_lost_row):
                log.warning("projector.response_lost", response_id=response_id)

    async def _end_lost_row(self, response_id: str) -> bool:
        row = await self._archive.response(response_id)
        if row is None:
            return False
        state = known_of(row).state
        if state is None or state.response.is_terminal:
            return False
        message = "Redis has lost this answer before it ended"
        ended = ended_in_error(state, EVENTS_LOST, message, retryable=True)
        self._states.pop(response_id, None)
        return await self._put(Step(ended, row.last_event_id, ()), row.last_event_id)

    async def _apart(self, response_id: str, work: Callable[[str], Awaitable[bool]]) -> bool:
        """Do this for one response of many; False too when it can't be done for a reason of the response's own.

        Such a one is logged, and comes again with the next sweep: its news is not held, which would be tried each round.
        """
        try:
            return await work(response_id)
        except (StoreUnavailable, ArchiveUnavailable):
            raise
        except Exception:
            log.exception("projector.response_failed", response_id=response_id)
        self._states.pop(response_id, None)
        await self._store.give_back(response_id, projector=self.name)
        await self._desk.drop(response_id)
        return False

    async def project(self, response_id: str) -> bool:
        """Project what there is of a response; False when another projector has it, or came between.

        Raises StoreUnavailable, ArchiveUnavailable: then nothing changed, or all of a batch is in.
        """
        try:
            while True:
                taken = await self._store.take(
                    response_id, projector=self.name, lease_ms=self._pace.lease_ms, count=self._pace.batch
                )
                match taken:
                    case TakenByOther():
                        return False
                    case NothingThere():
                        return True
                is_last = len(taken.entries) < self._pace.batch
                if not await self._apply(response_id, taken.entries, release=is_last):
                    return False
                if is_last:
                    return True
        except asyncio.CancelledError:
            # An orderly stop: whoever comes next need not wait until the lease has run out.
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_S):
                    await self._store.give_back(response_id, projector=self.name)
            raise

    async def _apply(self, response_id: str, entries: Sequence[Entry], *, release: bool) -> bool:
        known = await self._known(response_id)
        step = next_step(response_id, known, entries)
        if step.cursor != known.cursor:
            with span("response.project", trace_of_entries(entries), kind="consumer", response_id=response_id):
                written = await self._write(response_id, known, step, entries)
            if written is None:
                # Another projector moved the cursor: whoever owns the response now looks again.
                self._states.pop(response_id, None)
                return False
            step = written
        ended = step.state is None or step.state.response.is_terminal
        await self._store.ack(
            response_id,
            [entry.id for entry in entries],
            projector=self.name,
            letters=step.letters,
            release=release,
            ended=ended,
        )
        for letter in step.letters:
            log.error(
                "projector.event_parked",
                response_id=response_id,
                entry_id=letter.entry.id,
                code=letter.code,
                reason=letter.reason,
            )
        self._remember(response_id, None if ended else Known(step.state, step.cursor))
        return True

    async def _write(self, response_id: str, known: Known, step: Step, entries: Sequence[Entry]) -> Step | None:
        """What the archive took of this step; None when its row is another projector's by now."""
        try:
            return step if await self._put(step, known.cursor) else None
        except ArchiveRefused as error:
            # The database will never take it, so trying again is a crash loop.
            refused = refused_step(known, entries, error)
        if refused.cursor == known.cursor:
            return refused
        try:
            return refused if await self._put(refused, known.cursor) else None
        except ArchiveRefused as error:
            log.error("projector.end_refused", response_id=response_id, error=error.message)
            # As if it had ended: the stream is not kept for ever for a row that takes nothing.
            return replace(refused, state=None)

    async def _known(self, response_id: str) -> Known:
        found = self._states.get(response_id)
        if found is not None:
            return found
        row = await self._archive.response(response_id)
        if row is None:
            return Known(None, None)
        return known_of(row)

    def _remember(self, response_id: str, known: Known | None) -> None:
        self._states.pop(response_id, None)
        if known is not None:
            self._states[response_id] = known
            if len(self._states) > REMEMBERED:
                self._states.popitem(last=False)

    async def _put(self, step: Step, before: str | None) -> bool:
        # Of nothing there is no row.
        assert step.state is not None
        assert step.cursor is not None
        row = row_of(step.state, step.cursor, step.letters)
        response = step.state.response
        # Searched when it has ended; the turns of runs are searched by their own events.
        documents = documents_of(response) if response.is_terminal and row.run_id is None else None
        return await self._archive.put_response(row, after_event_id=before, documents=documents)

    async def _round(self) -> None:
        await self._desk.sweep_if_due(self.sweep)
        # Also what another projector has is asked for again in each round.
        await self._desk.take()
        for response_id in self._desk.subjects:
            if await self._apart(response_id, self.project):
                await self._desk.done(response_id)
        await asyncio.sleep(self._pace.gather_s)


def trace_of_entries(entries: Sequence[Entry]) -> TraceContext | None:
    """The trace that these events were published in; not looked for where no traces are recorded."""
    for entry in reversed(entries if is_tracing() else ()):
        with contextlib.suppress(MalformedEvent):
            return read_stream_event(entry.event).trace_context
    return None
