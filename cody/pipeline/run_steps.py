"""What the archive does next with a run: decided from its cursor and from what Redis has. Pure.

The events of a run are numbered without a gap, and each has a stream id that only grows. So what Redis has must begin
with the event that was archived last (or, when that one was trimmed, with the next). Anything else means that events
were lost or that Redis went back in time, and then nothing may be added any more: the projection halts and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from cody.contracts.run import TERMINAL, RunSnapshot, TurnRecord
from cody.pipeline.archive import Cursor, EventRow, RunHead
from cody.pipeline.search_text import Document, DocumentKind
from cody.store import meta
from cody.store.archive_source import UNREADABLE, ListedRun, RawEvent, RunReading
from cody.store.events import id_tuple

MAX_TURNS = 1_000
"""Turn records in one transaction."""

TELL_EVERY = 1_000
"""So many events further, the run is told how far it is archived: not at each batch, which would cost a call each."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to add. `run` None: Redis knows less of the run than the archive, its row is left as it is."""

    run: RunSnapshot | None
    known_seq: int
    events: Sequence[EventRow] = ()
    documents: Sequence[Document] = ()
    halt: str | None = None

    @property
    def more(self) -> bool:
        """Redis has events beyond these."""
        return self.halt is None and bool(self.events) and self.events[-1].seq < self.known_seq


class _Unreadable(ValueError):
    """An entry of the stream that no Cody wrote."""


def next_step(run_id: str, cursor: Cursor, reading: RunReading) -> Step | None:
    """What to add to the archive; None = nothing at all."""
    if not reading.meta:
        return _gone(cursor)
    try:
        run = meta.snapshot(run_id, reading.meta, 0)
        last_seq = int(reading.meta["lastSeq"])
    except (meta.MetaCorrupt, KeyError, ValueError) as error:
        reason = f"the run's meta in Redis can't be read: {str(error)[:300]}"
        return None if cursor.halted_reason else Step(None, cursor.known_seq, halt=reason)
    if cursor.halted_reason is not None:
        # Its events have stopped for good; what became of the run is still told, unless Redis knows less than we do.
        return Step(run, last_seq) if last_seq >= cursor.last_seq else None
    if last_seq < cursor.last_seq:
        return Step(
            None,
            cursor.known_seq,
            halt=f"Redis went back in time: it ends at event {last_seq}, the archive has {cursor.last_seq}",
        )
    return _advance(run_id, run, last_seq, cursor, reading)


def _gone(cursor: Cursor) -> Step | None:
    """Redis has let go of the run, as it should when all of it was archived."""
    if cursor.version == 0 or cursor.halted_reason is not None:
        return None
    if cursor.status in TERMINAL and cursor.last_seq >= cursor.known_seq:
        return None
    reason = f"Redis lost the run: the archive ends at event {cursor.last_seq} of at least {cursor.known_seq}"
    return Step(None, cursor.known_seq, halt=reason)


def _advance(run_id: str, run: RunSnapshot, last_seq: int, cursor: Cursor, reading: RunReading) -> Step:
    new: Sequence[RawEvent] = reading.events
    if cursor.last_event_id is not None:
        if new and new[0][0].decode() == cursor.last_event_id:
            new = new[1:]
        elif reading.oldest_id is not None and id_tuple(reading.oldest_id) < id_tuple(cursor.last_event_id):
            reason = f"Redis was rewritten: event {cursor.last_seq} ({cursor.last_event_id}) is not in it any more"
            return Step(None, cursor.known_seq, halt=reason)
    rows: list[EventRow] = []
    documents: list[Document] = []
    halt: str | None = None
    expected = cursor.last_seq + 1
    for entry in new:
        try:
            row, fields = event_row(entry)
        except _Unreadable as error:
            halt = str(error)
            break
        if row.seq != expected:
            halt = f"a gap: event {expected} is missing, Redis goes on with {row.seq} ({row.event_id})"
            break
        rows.append(row)
        documents += documents_of(run_id, row, fields)
        expected += 1
    if halt is None and not new and expected <= last_seq:
        halt = f"a gap: events {expected} to {last_seq} are not in Redis any more"
    return Step(run, last_seq, rows, documents, halt)


def ended_at(reading: RunReading) -> int | None:
    """The number of the last event of a run that has ended; None = it has not."""
    if reading.meta.get("status") not in TERMINAL:
        return None
    last_seq = reading.meta.get("lastSeq", "")
    return int(last_seq) if last_seq.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class Told:
    """What to tell the run of its archive: the last event that it has, or (None) that it takes no more."""

    seq: int | None


def archived_news(cursor: Cursor, step: Step, reading: RunReading) -> Told | None:
    """What to tell the run when this step was recorded; None = nothing new."""
    text = reading.meta.get("archivedSeq", "")
    told = int(text) if text.isdecimal() else None
    if step.halt is not None or cursor.halted_reason is not None:
        return None if told is None else Told(None)
    seq = step.events[-1].seq if step.events else cursor.last_seq
    return Told(seq) if told is None or abs(seq - told) >= TELL_EVERY else None


def turns_due(cursor: Cursor, step: Step) -> range:
    """Turns that are new, or were still running when they were archived; at most MAX_TURNS of them."""
    last = (step.run.current_turn if step.run else None) or 0
    return range(cursor.first_open_turn, min(last, cursor.first_open_turn + MAX_TURNS - 1) + 1)


def read_turns(run_id: str, due: range, raw: Iterable[bytes]) -> tuple[list[TurnRecord], str | None]:
    """The records that can be read; why the first of the others can't."""
    records: list[TurnRecord] = []
    reason: str | None = None
    for one in raw:
        try:
            record = TurnRecord.model_validate_json(one)
        except ValidationError as error:
            reason = reason or f"a turn record of the run can't be read: {str(error)[:300]}"
            continue
        if record.run_id == run_id and record.turn in due:
            records.append(record)
        else:
            reason = reason or f"a turn record of the run is that of turn {record.turn} of run {record.run_id}"
    return records, reason


def has_turns_after(due: range, step: Step, records: Sequence[TurnRecord]) -> bool:
    """Whether there are turns beyond these; asked again only where that leads on."""
    is_cut = step.run is not None and due.stop <= (step.run.current_turn or 0)
    return is_cut and any(record.turn > due.start for record in records)


def event_row(entry: RawEvent) -> tuple[EventRow, Mapping[str, Any]]:
    """The row of a stream entry, its payload as it came; and the payload's fields, none when it is no JSON object."""
    entry_id, raw = entry
    try:
        payload, seq = raw[b"payload"].decode("utf-8", "replace").replace("\0", "\ufffd"), int(raw[b"seq"])
        kind, ts = raw[b"type"].decode(), raw[b"ts"].decode()
    except (KeyError, ValueError) as error:
        raise _Unreadable(f"entry {entry_id.decode()} of the run's stream can't be read: {error!r:.200}") from None
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        fields = {}
    if not isinstance(fields, dict):
        fields = {}
    turn = fields.get("turn")
    return EventRow(seq, entry_id.decode(), kind, ts, turn if isinstance(turn, int) else None, payload), fields


def documents_of(run_id: str, row: EventRow, fields: Mapping[str, Any]) -> list[Document]:
    """What can be found of an event: what the model said, the commands, their output, the work log."""
    kind: DocumentKind
    match row.type, fields:
        case "turn_item", {"item": {"type": "message", "content": content}}:
            kind, text = "message", _content(content)
        case "turn_item", {"item": {"type": "function_call", "name": str(name), "arguments": str(arguments)}}:
            kind, text = "command", _command(name, arguments)
        case "turn_item", {"item": {"type": "function_call_output", "output": str(text)}}:
            kind = "output"
        case "subprocess_output", {"text": str(text)}:
            kind = "output"
        case "log_updated", {"tail": str(text)}:
            kind = "log"
        case _:
            return []
    return [Document(kind, text, run_id, row.turn, row.seq)] if text.strip() else []


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _command(name: str, arguments: str) -> str:
    """What was run: a shell's command as it was typed, the arguments of any other tool after its name."""
    try:
        told = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        told = None
    if name == "exec_command" and isinstance(told, dict) and isinstance(told.get("cmd"), str):
        return str(told["cmd"])
    return f"{name} {arguments}"


def is_behind(listed: ListedRun, head: RunHead | None) -> bool:
    """Whether the archive has missed something of a run, so that a notification must have been lost."""
    if head is None:
        return True
    if listed.status == UNREADABLE:
        return not head.halted
    if listed.status in TERMINAL and not listed.has_ttl:
        return True
    if head.halted:
        return head.status is not None and head.status != listed.status
    return (head.last_seq, head.status, head.updated_at) != (listed.last_seq, listed.status, listed.updated_at)
