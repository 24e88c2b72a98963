"""Keeps the archive equal to what Redis has of every Response: reads, reduces, writes row and cursor, acknowledges.

A response belongs to one projector at a time, by a lease that is taken together with its events. The row is written on
the condition that its cursor is still the one that was read, and only then are the events acknowledged: a projector
killed at any point, a frozen one that comes back, and two at once lead to the same row. An event that can't be applied
is parked with the reason, and the projection goes on behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from structlog import get_logger

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, Response
from cody.contracts.stream_events import (
    MalformedEvent,
    ResponseError,
    StreamEvent,
    TraceContext,
    read_stream_event,
    stream_event,
)
from cody.errors import StoreUnavailable
from cody.pipeline.archive import Archive, ArchiveRefused, Document, ResponseRow
from cody.pipeline.problems import problem
from cody.pipeline.projecting import Desk, Pace, consumer_name, keep_projecting
from cody.pipeline.reducer import fold, reduce
from cody.pipeline.response_state import ReducerState
from cody.pipeline.trace_context import trace_of
from cody.pipeline.tracing import is_tracing, span
from cody.store.events import id_tuple
from cody.store.response_events import Entry, Letter, NothingThere, ResponseEvents, TakenByOther
from cody.store.response_news import ResponseLag, ResponseNewsReader

log = get_logger()

REMEMBERED = 256
"""States kept in memory, so that an answer in progress is not read back from SQL for each batch."""

WRONG_RESPONSE = "wrong_response"
EVENTS_LOST = "events_lost"

_TURN_OF_RUN = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):[1-9][0-9]*\Z")


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
        self._states: OrderedDict[str, _Known] = OrderedDict()
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
                done += await self.project(response_id)
            if cursor == 0:
                break
        await self._end_lost()
        return done

    async def _end_lost(self) -> None:
        """End the rows in progress whose stream Redis has lost: nothing can come for them any more.

        At the second look only: a publisher that lives begins the stream anew with its next event.
        """
        rows = {row.response_id: row for row in await self._archive.unfinished_responses()}
        lost = set(await self._store.gone(list(rows)))
        again, self._suspects = lost & self._suspects, lost
        for response_id in sorted(again):
            row = rows[response_id]
            error = problem(EVENTS_LOST, "Redis has lost this answer before it ended", retryable=True)
            event = stream_event(
                ResponseError(response_id=response_id, error=error),
                event_id=uuid.uuid4(),
                timestamp=row.updated_at,
                trace_context=trace_of()(),
                run_id=response_id,
            )
            state = reduce(ReducerState.model_validate_json(row.reducer_state), event)
            self._states.pop(response_id, None)
            if await self._put(state, row.last_event_id, row.last_event_id):
                log.warning("projector.response_lost", response_id=response_id)

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
        new = [entry for entry in entries if known.cursor is None or id_tuple(entry.id) > id_tuple(known.cursor)]
        step = apply(response_id, known.state, new)
        if new and step.state is not None:
            try:
                with span("response.project", trace_of_entries(new), kind="consumer", response_id=response_id):
                    written = await self._put(step.state, known.cursor, new[-1].id)
                if not written:
                    # Another projector moved the cursor: whoever owns the response now looks again.
                    self._states.pop(response_id, None)
                    return False
                known = _Known(step.state, new[-1].id)
            except ArchiveRefused as error:
                # The database will never take it, so trying again is a crash loop: parked, and on with what follows.
                step = _Step(known.state, [Letter(entry, error.code, error.message) for entry in new])
        ended = known.state is None or known.state.response.is_terminal
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
        self._remember(response_id, None if ended else known)
        return True

    async def _known(self, response_id: str) -> _Known:
        found = self._states.get(response_id)
        if found is not None:
            return found
        row = await self._archive.response(response_id)
        if row is None:
            return _Known(None, None)
        return _Known(ReducerState.model_validate_json(row.reducer_state), row.last_event_id)

    def _remember(self, response_id: str, known: _Known | None) -> None:
        self._states.pop(response_id, None)
        if known is not None:
            self._states[response_id] = known
            if len(self._states) > REMEMBERED:
                self._states.popitem(last=False)

    async def _put(self, state: ReducerState, before: str | None, after: str) -> bool:
        row = row_of(state, after)
        # Searched when it has ended; the turns of runs are searched by their own events.
        documents = documents_of(state.response) if state.response.is_terminal and row.run_id is None else None
        return await self._archive.put_response(row, after_event_id=before, documents=documents)

    async def _round(self) -> None:
        await self._desk.sweep_if_due(self.sweep)
        # Also what another projector has is asked for again in each round.
        await self._desk.take()
        for response_id in self._desk.subjects:
            if await self.project(response_id):
                await self._desk.done(response_id)
        await asyncio.sleep(self._pace.gather_s)


@dataclass(frozen=True, slots=True)
class _Known:
    """A response as the archive has it; both None: not at all."""

    state: ReducerState | None
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Step:
    state: ReducerState | None
    letters: Sequence[Letter]


def apply(response_id: str, state: ReducerState | None, entries: Sequence[Entry]) -> _Step:
    """The state after these entries, and those that could not be applied. Pure."""
    letters: list[Letter] = []
    events: list[StreamEvent] = []
    entry_of: dict[int, Entry] = {}
    for entry in entries:
        try:
            event = read_stream_event(entry.event)
        except MalformedEvent as error:
            letters.append(Letter(entry, error.code, error.message))
            continue
        if event.run_id != response_id:
            letters.append(Letter(entry, WRONG_RESPONSE, f"the event is about response {event.run_id}"))
            continue
        events.append(event)
        entry_of[id(event)] = entry
    folded = fold(state, events)
    letters += [Letter(entry_of[id(one.event)], one.error.code, one.error.message) for one in folded.refused]
    return _Step(folded.state, letters)


def trace_of_entries(entries: Sequence[Entry]) -> TraceContext | None:
    """The trace that these events were published in; not looked for where no traces are recorded."""
    for entry in reversed(entries if is_tracing() else ()):
        with contextlib.suppress(MalformedEvent):
            return read_stream_event(entry.event).trace_context
    return None


def row_of(state: ReducerState, cursor: str) -> ResponseRow:
    """The row of a response that is reduced up to the entry `cursor`. Pure."""
    response = state.response
    run = _TURN_OF_RUN.match(response.turn_id)
    return ResponseRow(
        response_id=response.id,
        run_id=run[1] if run else None,
        turn_id=response.turn_id,
        thread_id=response.thread_id,
        agent_id=response.agent_id,
        model_id=response.model_id,
        provider_id=response.provider_id,
        status=response.status,
        created_at=response.created_at,
        updated_at=response.updated_at,
        response=response.model_dump_json(exclude_none=True),
        reducer_state=state.model_dump_json(exclude_none=True),
        last_event_id=cursor,
    )


def documents_of(response: Response) -> list[Document]:
    """What is searched of a response. Pure."""
    documents = []
    for item in response.output_items:
        match item:
            case Message(content=text) if text.strip():
                documents.append(Document("message", text, response_id=response.id))
            case FunctionCall(name=name, arguments=arguments):
                documents.append(Document("command", f"{name} {arguments}", response_id=response.id))
            case FunctionCallOutput(output=text) if text.strip():
                documents.append(Document("output", text, response_id=response.id))
    return documents
