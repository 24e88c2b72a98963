"""How a Response changes: StreamEvents, an envelope around a payload that `type` selects.

    {"event_id": uuid, "timestamp": ms, "trace_context": {...}, "run_id": Response.id, "type": t, "payload": {...}}

The order of a Response's events is strict; each may come more than once, with the same `event_id`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from cody.contracts.responses import EpochMs, ErrorInfo, Id, ItemType, OutputItem, Shape, Text, Usage
from cody.errors import CodyError


class MalformedEvent(CodyError):
    """What was read is no StreamEvent that this version knows; `details` names the fields."""

    code = "malformed_event"


class TraceContext(Shape):
    """W3C Trace Context, as injected where the event was published."""

    traceparent: Annotated[str, Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$")]
    tracestate: Text | None = None


class ResponseStart(Shape):
    response_id: Id
    turn_id: Id
    thread_id: Id
    agent_id: Id | None = None
    model_id: Id
    provider_id: Id
    created_at: EpochMs


class ItemStart(Shape):
    """An item begins; what is not known yet (a call's id, an origin) comes with item_done."""

    item_id: Id
    item_type: ItemType
    initial_content: Text | None = None
    name: Text | None = None
    arguments: Text | None = None
    code: Text | None = None


class ItemDelta(Shape):
    """Text that goes to the item's end: content, arguments, output, code, result or message, as its type has it."""

    item_id: Id
    delta_content: Text


class ItemDone(Shape):
    """The item as it is in the end: it replaces whatever the deltas made."""

    item_id: Id
    final_item: OutputItem

    @model_validator(mode="after")
    def _one_id(self) -> ItemDone:
        if self.final_item.id != self.item_id:
            raise ValueError("final_item.id differs from item_id")
        return self


class ItemError(Shape):
    """The item broke off; what came of it stays."""

    item_id: Id
    error: ErrorInfo


class ItemCancelled(Shape):
    item_id: Id
    reason: Text | None = None


class ScriptExecutionStart(Shape):
    script_id: Id
    """The id of the script_execution item that this begins."""
    code: Text


class ScriptExecutionDone(Shape):
    script_id: Id
    item_id: Id
    """The id of the script_execution_output item that this adds."""
    result: Text
    success: bool = True


class ScriptExecutionError(Shape):
    script_id: Id
    item_id: Id
    error: ErrorInfo


class ResponseDone(Shape):
    response_id: Id
    status: Literal["complete", "error", "aborted"]
    usage: Usage | None = None
    finish_reason: Text | None = None


class ResponseError(Shape):
    response_id: Id
    error: ErrorInfo


class UsageUpdate(Shape):
    """Tokens of the whole answer so far: cumulative, so the larger figure is the newer one."""

    usage: Usage


class Heartbeat(Shape):
    """The answer is alive though nothing was said."""


class TurnAbortedByUser(Shape):
    turn_id: Id
    reason: Text


Payload = (
    ResponseStart
    | ItemStart
    | ItemDelta
    | ItemDone
    | ItemError
    | ItemCancelled
    | ScriptExecutionStart
    | ScriptExecutionDone
    | ScriptExecutionError
    | ResponseDone
    | ResponseError
    | UsageUpdate
    | Heartbeat
    | TurnAbortedByUser
)
TERMINAL_PAYLOADS = (ResponseDone, ResponseError, TurnAbortedByUser)


class Envelope(Shape):
    """Fields of every event."""

    event_id: Annotated[UUID, Field(strict=False)]
    timestamp: EpochMs
    trace_context: TraceContext
    run_id: Id
    """The id of the Response."""


class ResponseStartEvent(Envelope):
    type: Literal["response_start"] = "response_start"
    payload: ResponseStart


class ItemStartEvent(Envelope):
    type: Literal["item_start"] = "item_start"
    payload: ItemStart


class ItemDeltaEvent(Envelope):
    type: Literal["item_delta"] = "item_delta"
    payload: ItemDelta


class ItemDoneEvent(Envelope):
    type: Literal["item_done"] = "item_done"
    payload: ItemDone


class ItemErrorEvent(Envelope):
    type: Literal["item_error"] = "item_error"
    payload: ItemError


class ItemCancelledEvent(Envelope):
    type: Literal["item_cancelled"] = "item_cancelled"
    payload: ItemCancelled


class ScriptExecutionStartEvent(Envelope):
    type: Literal["script_execution_start"] = "script_execution_start"
    payload: ScriptExecutionStart


class ScriptExecutionDoneEvent(Envelope):
    type: Literal["script_execution_done"] = "script_execution_done"
    payload: ScriptExecutionDone


class ScriptExecutionErrorEvent(Envelope):
    type: Literal["script_execution_error"] = "script_execution_error"
    payload: ScriptExecutionError


class ResponseDoneEvent(Envelope):
    type: Literal["response_done"] = "response_done"
    payload: ResponseDone


class ResponseErrorEvent(Envelope):
    type: Literal["response_error"] = "response_error"
    payload: ResponseError


class UsageUpdateEvent(Envelope):
    type: Literal["usage_update"] = "usage_update"
    payload: UsageUpdate


class HeartbeatEvent(Envelope):
    type: Literal["heartbeat"] = "heartbeat"
    payload: Heartbeat = Heartbeat()


class TurnAbortedByUserEvent(Envelope):
    type: Literal["turn_aborted_by_user"] = "turn_aborted_by_user"
    payload: TurnAbortedByUser


StreamEvent = (
    ResponseStartEvent
    | ItemStartEvent
    | ItemDeltaEvent
    | ItemDoneEvent
    | ItemErrorEvent
    | ItemCancelledEvent
    | ScriptExecutionStartEvent
    | ScriptExecutionDoneEvent
    | ScriptExecutionErrorEvent
    | ResponseDoneEvent
    | ResponseErrorEvent
    | UsageUpdateEvent
    | HeartbeatEvent
    | TurnAbortedByUserEvent
)
STREAM_EVENT: TypeAdapter[StreamEvent] = TypeAdapter(Annotated[StreamEvent, Field(discriminator="type")])
TERMINAL_EVENT_TYPES = frozenset({"response_done", "response_error", "turn_aborted_by_user"})

_EVENT_OF: dict[type[Shape], Any] = {event.model_fields["payload"].annotation: event for event in StreamEvent.__args__}


def stream_event(
    payload: Payload, *, event_id: UUID, timestamp: int, trace_context: TraceContext, run_id: str
) -> StreamEvent:
    """The event that carries `payload`; `timestamp` in milliseconds since 1970."""
    event: StreamEvent = _EVENT_OF[type(payload)](
        event_id=event_id, timestamp=timestamp, trace_context=trace_context, run_id=run_id, payload=payload
    )
    return event


def stream_event_json(event: StreamEvent) -> bytes:
    """The event as JSON, without the optional fields that are not set."""
    return event.model_dump_json(exclude_none=True).encode()


def read_stream_event(data: bytes | str) -> StreamEvent:
    """The event of its JSON; raises MalformedEvent for anything that is none, an unknown `type` included."""
    try:
        return STREAM_EVENT.validate_json(data)
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in p['loc'])}: {p['msg']}" for p in error.errors()[:5]]
        raise MalformedEvent(f"not a stream event: {'; '.join(problems)}", details={"problems": problems}) from None
