"""What the next entries of a Response's stream make of its row, and what of them is to be parked. No I/O.

What is parked is written into the row together with what the rest made: of a projector that dies before it acknowledged,
the next one is given these entries again, and finds there which of them were refused.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from pydantic import ValidationError

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, Response, run_of_turn
from cody.contracts.stream_events import (
    TERMINAL_EVENT_TYPES,
    MalformedEvent,
    ResponseError,
    StreamEvent,
    read_stream_event,
    stream_event,
)
from cody.errors import CodyError
from cody.pipeline.archive import ArchiveRefused, Document, ResponseRow
from cody.pipeline.problems import problem
from cody.pipeline.reducer import fold, reduce
from cody.pipeline.response_state import ArchivedState, ReducerState, Refusal
from cody.pipeline.trace_context import trace_of
from cody.store.events import id_tuple
from cody.store.response_events import Entry, Letter

WRONG_RESPONSE = "wrong_response"


class RowCorrupt(CodyError):
    """A row whose state can't be read: something else than a projector wrote it."""

    code = "row_corrupt"


@dataclass(frozen=True, slots=True)
class Known:
    """A response as the archive has it; state and cursor None: not at all."""

    state: ReducerState | None
    cursor: str | None
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    """By entry: what the row says that is to be parked, unless it has been."""


@dataclass(frozen=True, slots=True)
class Step:
    """What some entries make of a response: its state up to `cursor`, and those of them that are parked."""

    state: ReducerState | None
    cursor: str | None
    letters: Sequence[Letter]


def next_step(response_id: str, known: Known, entries: Sequence[Entry]) -> Step:
    """What these entries, the next that nobody acknowledged, make of a response."""
    new = _new(known, entries)
    letters = _left_over(known, entries)
    events: list[StreamEvent] = []
    entry_of: dict[int, Entry] = {}
    unreadable_end: MalformedEvent | None = None
    for entry in new:
        try:
            event = read_stream_event(entry.event)
        except MalformedEvent as error:
            letters.append(Letter(entry, error.code, error.message))
            unreadable_end = error if _is_end(entry, response_id) else unreadable_end
            continue
        if event.run_id != response_id:
            letters.append(Letter(entry, WRONG_RESPONSE, f"the event is about response {event.run_id}"))
            continue
        events.append(event)
        entry_of[id(event)] = entry
    folded = fold(known.state, events)
    letters += [Letter(entry_of[id(one.event)], one.error.code, one.error.message) for one in folded.refused]
    state = folded.state
    if unreadable_end is not None and state is not None and state.response.status == "in_progress":
        # Its publisher says no more, and no other end will come.
        message = f"its last event can't be read: {unreadable_end.message}"
        state = ended_in_error(state, unreadable_end.code, message, retryable=False)
    return Step(state, new[-1].id if new and state is not None else known.cursor, letters)


def refused_step(known: Known, entries: Sequence[Entry], error: ArchiveRefused) -> Step:
    """Instead of what the database will never take: all of it is parked, and the response ends as far as it had come.

    It ends, since what it said meanwhile is missing, and its own end may be among it.
    """
    new = _new(known, entries)
    letters = [*_left_over(known, entries), *(Letter(entry, error.code, error.message) for entry in new)]
    if known.state is None or known.state.response.is_terminal:
        return Step(known.state, known.cursor, letters)
    return Step(ended_in_error(known.state, error.code, error.message, retryable=False), new[-1].id, letters)


def _new(known: Known, entries: Sequence[Entry]) -> list[Entry]:
    """Those that the row does not have yet."""
    return [entry for entry in entries if known.cursor is None or id_tuple(entry.id) > id_tuple(known.cursor)]


def _left_over(known: Known, entries: Sequence[Entry]) -> list[Letter]:
    """Those that a projector refused which died when the row was written, and nothing acknowledged."""
    return [
        Letter(entry, refusal.code, refusal.reason)
        for entry in entries
        if (refusal := known.refusals.get(entry.id)) is not None
    ]


def _is_end(entry: Entry, response_id: str) -> bool:
    """Whether this was meant to end the response: its readers take it for the end."""
    try:
        value = orjson.loads(entry.event)
    except orjson.JSONDecodeError:
        return False
    match value:
        case {"type": str(kind), "run_id": str(run_id)}:
            return kind in TERMINAL_EVENT_TYPES and run_id == response_id
        case _:
            return False


def ended_in_error(state: ReducerState, code: str, message: str, *, retryable: bool) -> ReducerState:
    """The state of a response in progress that ends here, since what follows can't be had."""
    response = state.response
    event = stream_event(
        ResponseError(response_id=response.id, error=problem(code, message, retryable=retryable)),
        event_id=uuid.uuid4(),
        timestamp=response.updated_at,
        trace_context=trace_of()(),
        run_id=response.id,
    )
    return reduce(state, event)


def known_of(row: ResponseRow) -> Known:
    """What a row says; raises RowCorrupt."""
    try:
        stored = ArchivedState.model_validate_json(row.reducer_state)
    except ValidationError as error:
        # Without the values: they are what a model, or a user, said.
        problems = error.errors(include_url=False, include_input=False)[:3]
        told = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in problems)
        raise RowCorrupt(f"the state of response {row.response_id} can't be read: {told}") from None
    state = ReducerState(response=stored.response, open_items=stored.open_items, ended_by=stored.ended_by)
    return Known(state, row.last_event_id, {one.entry_id: one for one in stored.refusals})


def row_of(state: ReducerState, cursor: str, letters: Sequence[Letter] = ()) -> ResponseRow:
    """The row of a response that is reduced up to the entry `cursor`, with what is then to be parked."""
    response = state.response
    stored = state
    if letters:
        refusals = tuple(Refusal(entry_id=one.entry.id, code=one.code, reason=one.reason) for one in letters)
        stored = ArchivedState(**dict(state), refusals=refusals)
    return ResponseRow(
        response_id=response.id,
        run_id=run_of_turn(response.turn_id),
        turn_id=response.turn_id,
        thread_id=response.thread_id,
        agent_id=response.agent_id,
        model_id=response.model_id,
        provider_id=response.provider_id,
        status=response.status,
        created_at=response.created_at,
        updated_at=response.updated_at,
        response=response.model_dump_json(exclude_none=True),
        reducer_state=stored.model_dump_json(exclude_none=True),
        last_event_id=cursor,
    )


def documents_of(response: Response) -> list[Document]:
    """What is searched of a response."""
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
