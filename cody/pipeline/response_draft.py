"""A Response, taken apart so that a batch of events can be applied to it: the rules of cody/pipeline/reducer.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from cody.contracts.responses import (
    ErrorInfo,
    OutputItem,
    Response,
    ResponseStatus,
    ScriptExecution,
    ScriptExecutionOutput,
    Usage,
)
from cody.contracts.stream_events import (
    Heartbeat,
    ItemCancelled,
    ItemDelta,
    ItemDone,
    ItemError,
    ItemStart,
    Payload,
    ResponseDone,
    ResponseError,
    ResponseStart,
    ScriptExecutionDone,
    ScriptExecutionError,
    ScriptExecutionStart,
    StreamEvent,
    TurnAbortedByUser,
    UsageUpdate,
)
from cody.pipeline.item_drafts import begun, broken_off, extended
from cody.pipeline.refusals import (
    EventBeforeStart,
    ItemClosed,
    ResponseEnded,
    UnknownItem,
    WrongResponse,
)
from cody.pipeline.response_state import Marks, OpenItem, ReducerState

ABORTED_BY_USER = "aborted_by_user"
CANCELLED = "cancelled"


@dataclass(slots=True)
class _Open:
    seen: Marks = field(default_factory=Marks)
    pieces: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    """The state, taken apart so that a batch can be applied to it. An event that raises has changed nothing."""

    before: ReducerState | None
    head: Response | None
    items: dict[str, OutputItem]
    open: dict[str, _Open]
    ended_by: UUID | None
    changed: bool = False

    @classmethod
    def of(cls, state: ReducerState | None) -> Draft:
        if state is None:
            return cls(None, None, {}, {}, None)
        return cls(
            before=state,
            head=state.response,
            items={item.id: item for item in state.response.output_items},
            open={item.item_id: _Open(Marks(item.seen)) for item in state.open_items},
            ended_by=state.ended_by,
        )

    def state(self) -> ReducerState | None:
        if not self.changed or self.head is None:
            return self.before
        for id, item in self.open.items():
            if item.pieces:
                self.items[id] = extended(self.items[id], "".join(item.pieces))
                item.pieces.clear()
        return ReducerState(
            response=self.head.model_copy(update={"output_items": tuple(self.items.values())}),
            open_items=tuple(OpenItem(item_id=id, seen=item.seen.packed()) for id, item in self.open.items()),
            ended_by=self.ended_by,
        )

    def apply(self, event: StreamEvent) -> None:
        head = self._addressed(event)
        if head is None:
            self._start(event)
        elif self._has_been_told(event.payload):
            return
        elif head.is_terminal:
            if event.event_id != self.ended_by and not isinstance(event.payload, Heartbeat | UsageUpdate):
                raise ResponseEnded(event, f"the response has ended ({head.status})")
        elif self._change(event, event.payload, head):
            self._touch(event.timestamp)

    def _addressed(self, event: StreamEvent) -> Response | None:
        """The Response that the event is for; None when it has not been started."""
        match event.payload:
            case ResponseStart(response_id=id) | ResponseDone(response_id=id) | ResponseError(response_id=id):
                if id != event.run_id:
                    raise WrongResponse(event, f"its payload is about response {id}")
        if self.head is None:
            return None
        if event.run_id != self.head.id:
            raise WrongResponse(event, f"the state is that of response {self.head.id}")
        if isinstance(event.payload, TurnAbortedByUser) and event.payload.turn_id != self.head.turn_id:
            raise WrongResponse(event, f"turn {event.payload.turn_id} is not that of the response")
        return None if self.head.status == "queued" else self.head

    def _start(self, event: StreamEvent) -> None:
        match event.payload:
            case ResponseStart() as start:
                fields = dict(start)
                self.head = Response(
                    id=fields.pop("response_id"),
                    status="in_progress",
                    updated_at=max(event.timestamp, start.created_at),
                    **fields,
                )
                self.changed = True
            case _:
                raise EventBeforeStart(event, "nothing comes before response_start")

    def _has_been_told(self, payload: Payload) -> bool:
        """Whether the payload says of the Response what it says already, and so can't change it."""
        match payload:
            case ResponseStart():
                return True
            case ItemStart(item_id=id) | ScriptExecutionStart(script_id=id):
                return id in self.items
            case ItemDelta(item_id=id):
                return id in self.items and id not in self.open
            case ItemDone(item_id=id, final_item=final):
                return id not in self.open and self.items.get(id) == final
            case ItemError(item_id=id) | ItemCancelled(item_id=id):
                return broken_off(id, _cancelled(None)).id in self.items
            case ScriptExecutionDone(item_id=id) | ScriptExecutionError(item_id=id):
                return id in self.items
            case _:
                return False

    def _change(self, event: StreamEvent, payload: Payload, head: Response) -> bool:
        """Apply a payload of a Response in progress; False when there was nothing new in it."""
        match payload:
            case ItemStart(item_id=id):
                self._add(begun(payload), open=True)
            case ItemDelta(item_id=id, delta_content=text):
                return self._extend(event, id, text)
            case ItemDone(item_id=id, final_item=final):
                self._close(event, id)
                self.items[id] = final
            case ItemError(item_id=id, error=error):
                self._close(event, id)
                self._add(broken_off(id, error))
            case ItemCancelled(item_id=id, reason=reason):
                self._close(event, id)
                self._add(broken_off(id, _cancelled(reason)))
            case ScriptExecutionStart(script_id=id, code=code):
                self._add(ScriptExecution(id=id, code=code), open=True)
            case ScriptExecutionDone() | ScriptExecutionError():
                self._close_script(event, payload)
            case UsageUpdate(usage=usage):
                larger = _larger(head.usage, usage)
                self.head = head.model_copy(update={"usage": larger})
                return larger != head.usage
            case ResponseDone(status=status, usage=usage, finish_reason=reason):
                self._end(event, head, status, usage=usage or head.usage, finish_reason=reason)
            case ResponseError(error=error):
                self._end(event, head, "error", error=error)
            case TurnAbortedByUser(reason=reason):
                self._end(event, head, "aborted", error=ErrorInfo(code=ABORTED_BY_USER, message=reason))
            case Heartbeat():
                return event.timestamp > head.updated_at
            case ResponseStart():
                return False
        return True

    def _add(self, item: OutputItem, *, open: bool = False) -> None:
        self.items[item.id] = item
        if open:
            self.open[item.id] = _Open()

    def _extend(self, event: StreamEvent, id: str, text: str) -> bool:
        item = self._item(event, id)
        if not item.seen.add(event.event_id):
            return False
        item.pieces.append(text)
        return True

    def _item(self, event: StreamEvent, id: str) -> _Open:
        if id not in self.items:
            raise UnknownItem(event, f"item {id} has not been started", item_id=id)
        if id not in self.open:
            raise ItemClosed(event, f"item {id} has ended otherwise", item_id=id)
        return self.open[id]

    def _close(self, event: StreamEvent, id: str) -> None:
        """Close the item with the text that it has."""
        pieces = self._item(event, id).pieces
        del self.open[id]
        if pieces:
            self.items[id] = extended(self.items[id], "".join(pieces))

    def _close_script(self, event: StreamEvent, payload: ScriptExecutionDone | ScriptExecutionError) -> None:
        self._close(event, payload.script_id)
        match payload:
            case ScriptExecutionDone(result=result, success=success):
                error = None
            case ScriptExecutionError(error=error):
                result, success = "", False
        self._add(
            ScriptExecutionOutput(
                id=payload.item_id,
                origin="system",
                script_id=payload.script_id,
                result=result,
                success=success,
                error=error,
            )
        )

    def _end(
        self,
        event: StreamEvent,
        head: Response,
        status: ResponseStatus,
        *,
        usage: Usage | None = None,
        finish_reason: str | None = None,
        error: ErrorInfo | None = None,
    ) -> None:
        for id in list(self.open):
            self._close(event, id)
        self.ended_by = event.event_id
        self.head = head.model_copy(
            update={
                "status": status,
                "usage": usage or head.usage,
                "finish_reason": finish_reason,
                "error": error,
            }
        )

    def _touch(self, timestamp: int) -> None:
        assert self.head is not None
        self.changed = True
        if timestamp > self.head.updated_at:
            self.head = self.head.model_copy(update={"updated_at": timestamp})


def _cancelled(reason: str | None) -> ErrorInfo:
    return ErrorInfo(code=CANCELLED, message=reason or "the item was cancelled")


def _larger(known: Usage | None, told: Usage) -> Usage:
    if known is None:
        return told
    return Usage(
        prompt_tokens=max(known.prompt_tokens, told.prompt_tokens),
        completion_tokens=max(known.completion_tokens, told.completion_tokens),
        total_tokens=max(known.total_tokens, told.total_tokens),
    )
