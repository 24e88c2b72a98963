"""Records that came from another Cody, taken into the archive: searched and listed like those that were made here.

At least once: everything here may be repeated, and a record that is half in goes on where it stopped. A record that can't
be read, or that contradicts what the archive has, changes nothing more; it stays readable as it came. One that can't be
taken in just now, for whatever reason, is tried again later, and the others go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Protocol

import orjson
from pydantic import ValidationError
from structlog import get_logger

from cody.contracts.responses import OutputItem, Response
from cody.contracts.run import RunSnapshot, TurnRecord
from cody.contracts.wire import epoch_ms
from cody.errors import CodyError
from cody.pipeline.archive import Archive, ArchiveRefused, EventRow, RunBatch
from cody.pipeline.arrived_lines import (
    Unreadable,
    check_run,
    documents_of,
    event_row,
    read_line,
    response_row,
    session_item,
)
from cody.pipeline.record_lines import lines_of
from cody.pipeline.run_steps import documents_of as event_documents
from cody.pipeline.search_text import Document
from cody.pipeline.transfer import EventLine, ResponseLine, RunHead, ThreadHead, TurnLine
from cody.store.events import Frame, frame
from cody.sync.contracts import JobSnapshot
from cody.sync.errors import SyncError

log = get_logger()

LOOK_EVERY_S = 2.0
LISTED = 100
MAX_BACK_OFF_S = 60.0
BATCH_EVENTS = 1_000
BATCH_BYTES = 1 << 20
MAX_TURN_ITEMS = 2_000
MAX_TURN_BYTES = 4 << 20
"""Of one turn of a session: the rest can be read in the record."""


class Inbox(Protocol):
    """The sync engine, as far as it has something to hand on."""

    async def arrivals(self, limit: int = 100) -> Sequence[JobSnapshot]: ...

    async def taken_in(self, job_id: str) -> None: ...

    async def news(self, seen: int, within_s: float) -> int: ...

    def read(self, conversation_id: str) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class _Postponed:
    """A record that could not be taken in; `again_at` is a time of the event loop."""

    failures: int
    again_at: float


class Arrivals:
    """Takes records in until it is cancelled.

    `is_ours`: whether this server has the run already; such a run is never overwritten by what somebody sent.
    """

    def __init__(
        self,
        inbox: Inbox,
        archive: Archive,
        is_ours: Callable[[str], Awaitable[bool]],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._inbox = inbox
        self._archive = archive
        self._is_ours = is_ours
        self._look_every_s = look_every_s
        self._postponed: dict[str, _Postponed] = {}

    async def run(self) -> None:
        """Take in what arrives here at once, and what comes by other processes within `look_every_s`.

        A database that is away is waited for.
        """
        seen = 0
        while True:
            try:
                await self.take_all()
            except SyncError as error:
                log.warning("arrivals.waiting", error=error.message)
                await asyncio.sleep(self._look_every_s)
            seen = await self._inbox.news(seen, self._look_every_s)

    async def take_all(self) -> int:
        """Take in what is there and not postponed; the number of records. Raises SyncError when that can't be listed."""
        count = 0
        while jobs := await self._due():
            for job in jobs:
                count += await self._take_or_postpone(job)
        return count

    async def _due(self) -> list[JobSnapshot]:
        """The oldest first. However many are postponed, there is room for LISTED others behind them."""
        jobs = await self._inbox.arrivals(LISTED + len(self._postponed))
        known, now = self._postponed, asyncio.get_running_loop().time()
        self._postponed = {job.job_id: known[job.job_id] for job in jobs if job.job_id in known}
        return [job for job in jobs if job.job_id not in known or known[job.job_id].again_at <= now]

    async def _take_or_postpone(self, job: JobSnapshot) -> bool:
        """Whether it was taken in. Nothing that one record meets may hold up the others."""
        which = {"conversation_id": job.conversation_id, "job_id": job.job_id}
        try:
            await self._take(job)
        except (SyncError, CodyError) as error:
            log.warning("arrivals.postponed", **which, again_in_s=self._postpone(job), error=error.message)
        except Exception:
            log.exception("arrivals.failed", **which, again_in_s=self._postpone(job))
        else:
            self._postponed.pop(job.job_id, None)
            return True
        return False

    def _postpone(self, job: JobSnapshot) -> float:
        """The seconds until it is tried again: `look_every_s` at first, twice as long each time."""
        known = self._postponed.get(job.job_id)
        failures = 1 if known is None else known.failures + 1
        back_off_s: float = min(MAX_BACK_OFF_S, self._look_every_s * 2.0 ** min(failures - 1, 10))
        self._postponed[job.job_id] = _Postponed(failures, asyncio.get_running_loop().time() + back_off_s)
        return back_off_s

    async def _take(self, job: JobSnapshot) -> None:
        try:
            async with aclosing(lines_of(self._inbox.read(job.conversation_id))) as lines:
                await self._take_lines(job.conversation_id, lines)
            log.info("arrivals.taken_in", conversation_id=job.conversation_id, job_id=job.job_id)
        except (Unreadable, ArchiveRefused) as error:
            why = error.message if isinstance(error, ArchiveRefused) else str(error)
            log.warning("arrivals.not_archived", conversation_id=job.conversation_id, job_id=job.job_id, reason=why)
        await self._inbox.taken_in(job.job_id)

    async def _take_lines(self, conversation_id: str, lines: AsyncIterator[bytes]) -> None:
        """By what the record says of itself; the conversation's id is the sender's choice."""
        first = await anext(lines, b"")
        try:
            head = orjson.loads(first)
        except orjson.JSONDecodeError:
            head = None
        match head:
            case {"kind": "run" | "thread"}:
                opening = read_line(first)
                if isinstance(opening, RunHead):
                    await _RunArrival(self._archive, opening.run, self._is_ours).take(lines)
                elif isinstance(opening, ThreadHead):
                    await self._take_thread(opening.thread_id, lines)
            case {"type": "session_meta", "payload": {"id": str(session)}} if session:
                await _SessionArrival(self._archive, session).take(lines)
            case _:
                raise Unreadable(
                    "it is no run, no thread and no session of codex: it is kept as it came, and not searched"
                )

    async def _take_thread(self, thread_id: str, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            found = read_line(line)
            if not isinstance(found, ResponseLine) or found.response.thread_id != thread_id:
                raise Unreadable(f"thread {thread_id} has a line that is no Response of it")
            await put(self._archive, found.response)


async def put(archive: Archive, response: Response, run_id: str | None = None) -> None:
    """Archive a Response that has ended, unless there is one under its id. That of a run's turn is found by its events.

    Raises Unreadable for one that has not ended.
    """
    documents = documents_of(response) if run_id is None else None
    await archive.put_response(response_row(response, run_id), after_event_id=None, documents=documents)


class _RunArrival:
    def __init__(self, archive: Archive, run: RunSnapshot, is_ours: Callable[[str], Awaitable[bool]]) -> None:
        self._archive = archive
        self._run = run
        self._is_ours = is_ours
        self._turns: list[TurnRecord] = []
        self._events: list[EventRow] = []
        self._documents: list[Document] = []
        self._bytes = 0

    async def take(self, lines: AsyncIterator[bytes]) -> None:
        """Raises Unreadable for a record with a gap, and for one of a run that is not the sender's."""
        run = self._run
        check_run(run)
        if await self._is_ours(run.run_id):
            raise Unreadable(f"run {run.run_id} is here already")
        last_seq, told = 0, set[str]()
        async for line in lines:
            match read_line(line):
                case TurnLine(turn=turn) if turn.run_id == run.run_id:
                    self._turns.append(turn)
                    told.add(turn.response_id)
                case ResponseLine(response=response) if response.id in told:
                    await put(self._archive, response, run.run_id)
                case EventLine(seq=seq) as event if seq == last_seq + 1:
                    last_seq = seq
                    await self._add(event)
                case EventLine(seq=seq):
                    raise Unreadable(f"run {run.run_id}: event {seq} comes after event {last_seq}")
                case _:
                    raise Unreadable(f"run {run.run_id} has a line that is none of it")
        await self._write(run)

    async def _add(self, line: EventLine) -> None:
        row, fields = event_row(line)
        self._events.append(row)
        self._documents += event_documents(self._run.run_id, row, fields)
        self._bytes += len(row.payload)
        if len(self._events) >= BATCH_EVENTS or self._bytes >= BATCH_BYTES:
            await self._write(None)

    async def _write(self, run: RunSnapshot | None) -> None:
        """Add what is held, beyond what an earlier attempt has added; the run itself comes last, when all is there."""
        run_id = self._run.run_id
        while True:
            cursor = await self._archive.cursor(run_id)
            if cursor.halted_reason is not None:
                raise Unreadable(f"run {run_id} is in the archive, and halted: {cursor.halted_reason}")
            known = [event for event in self._events if event.seq <= cursor.last_seq]
            await self._compare(known)
            new = self._events[len(known) :]
            if cursor.status is not None:
                if new:
                    raise Unreadable(f"run {run_id} is in the archive, and ended with event {cursor.last_seq}")
                break
            numbers = {event.seq for event in new}
            batch = RunBatch(
                run=run,
                known_seq=self._events[-1].seq if self._events else cursor.last_seq,
                events=new,
                turns=self._turns,
                documents=[document for document in self._documents if document.seq in numbers],
            )
            if (not new and run is None) or await self._archive.record(run_id, cursor, batch):
                break
        self._turns, self._events, self._documents, self._bytes = [], [], [], 0

    async def _compare(self, known: list[EventRow]) -> None:
        if not known:
            return
        run_id = self._run.run_id
        archived = await self._archive.events_after(run_id, known[0].seq - 1, count=len(known))
        if archived != [_frame(run_id, event) for event in known]:
            raise Unreadable(f"run {run_id} is in the archive with other events; it stays as it is")


def _frame(run_id: str, event: EventRow) -> Frame:
    fields = {"type": event.type, "ts": event.ts, "runId": run_id, "seq": str(event.seq), "payload": event.payload}
    return frame(event.event_id.encode(), {name.encode(): value.encode() for name, value in fields.items()})


class _SessionArrival:
    """A session of codex: each of its turns is a Response."""

    def __init__(self, archive: Archive, session: str) -> None:
        self._archive = archive
        self._session = session
        self._turn: str | None = None
        self._model = "unknown"
        self._began_ms = 0
        self._last_ms = 0
        self._items: list[OutputItem] = []
        self._bytes = 0

    async def take(self, lines: AsyncIterator[bytes]) -> None:
        number = 0
        async for line in lines:
            number += 1
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue  # too long, or the last line of a session that was still written to
            match entry:
                case {"timestamp": str(ts), "type": str(kind), "payload": dict(payload)}:
                    await self._add(number, ts, kind, payload, len(line))
                case _:
                    pass
        await self._close()

    async def _add(self, number: int, ts: str, kind: str, payload: dict[str, object], size: int) -> None:
        with suppress(ValueError):
            self._last_ms = max(self._last_ms, epoch_ms(ts))
        match kind, payload:
            case "turn_context", {"turn_id": str(turn_id), **more} if turn_id and turn_id != self._turn:
                early = self._items if self._turn is None else []
                if self._turn is not None:
                    await self._close()
                model = more.get("model")
                self._turn, self._began_ms, self._items = turn_id, self._last_ms, early
                self._model = model if isinstance(model, str) and model else self._model
            case "response_item", _ if len(self._items) < MAX_TURN_ITEMS and self._bytes + size <= MAX_TURN_BYTES:
                try:
                    item = session_item(number, payload)
                except ValidationError:
                    return
                if item is not None:
                    self._items.append(item)
                    self._bytes += size
            case _:
                pass

    async def _close(self) -> None:
        if not self._items:
            return
        turn_id = self._turn or "turn-0"
        response = Response(
            id=f"{self._session}:{turn_id}",
            turn_id=turn_id,
            thread_id=self._session,
            agent_id="codex",
            model_id=self._model,
            provider_id="codex",
            created_at=self._began_ms or self._last_ms,
            updated_at=self._last_ms,
            status="complete",
            output_items=tuple(self._items),
        )
        self._items, self._bytes = [], 0
        await put(self._archive, response)
