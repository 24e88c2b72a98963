"""What happens in a run, as events: one frozen model per type, discriminated by `type`.

On the wire an event is one flat JSON object: the envelope (`type, ts, runId, seq`), `turn` where it belongs to a turn, and
the type's own fields beside them. In Redis the envelope fields are stream fields and everything else is `payload`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, TypeAdapter
from pydantic_core import to_json

from cody.contracts.run import CompletionSource, RunError, TokenUsage
from cody.contracts.wire import Int, Wire

Stream = Literal["stdout", "stderr"]
FileSource = Literal["agent", "watch", "sentinel"]
OUTPUT_TEXT_MAX_BYTES = 2048
OUTPUT_EVENTS_PER_SECOND = 10


class EventBody(Wire):
    """Fields common to all bodies; `turn` is set where the event belongs to one."""

    turn: Int | None = None


class RunQueued(EventBody):
    type: Literal["run_queued"] = "run_queued"
    epic_id: str


class RunStarted(EventBody):
    type: Literal["run_started"] = "run_started"
    worker_id: str
    host: str
    fence: Int


class RunPausing(EventBody):
    type: Literal["run_pausing"] = "run_pausing"
    reason: str = "manual"


class RunPaused(EventBody):
    type: Literal["run_paused"] = "run_paused"
    reason: str = "manual"


class RunResumed(EventBody):
    type: Literal["run_resumed"] = "run_resumed"
    reason: str | None = None


class RunCancelling(EventBody):
    type: Literal["run_cancelling"] = "run_cancelling"
    reason: str = "manual"


class RunCancelled(EventBody):
    type: Literal["run_cancelled"] = "run_cancelled"
    reason: str = "manual"


class RunCompleted(EventBody):
    type: Literal["run_completed"] = "run_completed"
    source: CompletionSource
    line: str | None = None


class RunFailed(EventBody):
    type: Literal["run_failed"] = "run_failed"
    error: RunError


class RunRecovered(EventBody):
    type: Literal["run_recovered"] = "run_recovered"
    from_worker: str | None = None
    to_worker: str
    fence: Int


class TurnStarted(EventBody):
    type: Literal["turn_started"] = "turn_started"
    pid: Int
    response_id: str
    thread_id: str | None = None
    """The conversation that is resumed; a fresh one is known when its first line arrives."""


class TurnCompleted(EventBody):
    type: Literal["turn_completed"] = "turn_completed"
    token_usage: TokenUsage
    duration_ms: Int
    exit_code: Int | None = None


class TurnFailed(EventBody):
    type: Literal["turn_failed"] = "turn_failed"
    exit_code: Int | None = None
    error: RunError
    duration_ms: Int


class TurnInterrupted(EventBody):
    type: Literal["turn_interrupted"] = "turn_interrupted"
    reason: str
    duration_ms: Int | None = None


class SubprocessOutput(EventBody):
    type: Literal["subprocess_output"] = "subprocess_output"
    stream: Stream
    text: str


class OutputDropped(EventBody):
    """Output that was not sent as events; whole in the turn's log from `log_offset` on."""

    type: Literal["output_dropped"] = "output_dropped"
    stream: Stream
    bytes: Int
    log_offset: Int


class FileWritten(EventBody):
    type: Literal["file_written"] = "file_written"
    path: str
    source: FileSource = "sentinel"


class FileRead(EventBody):
    type: Literal["file_read"] = "file_read"
    path: str
    source: FileSource = "sentinel"


class FileDeleted(EventBody):
    type: Literal["file_deleted"] = "file_deleted"
    path: str
    source: FileSource = "sentinel"


class LogUpdated(EventBody):
    """codys-log.md or decision-log.md grew (or was rewritten: then `appended_bytes` counts the whole)."""

    type: Literal["log_updated"] = "log_updated"
    log: Literal["codys-log.md", "decision-log.md"]
    path: str
    appended_bytes: Int
    tail: str


class TestRunStarted(EventBody):
    type: Literal["test_run_started"] = "test_run_started"
    command: str


class TestRunCompleted(EventBody):
    type: Literal["test_run_completed"] = "test_run_completed"
    passed: Annotated[Int, Field(ge=0)]
    failed: Annotated[Int, Field(ge=0)]
    skipped: Annotated[Int, Field(ge=0)] = 0
    duration_ms: Annotated[Int, Field(ge=0)] | None = None
    command: str | None = None
    framework: str | None = None


class TokenUsageReported(TokenUsage):
    type: Literal["token_usage"] = "token_usage"
    turn: Int | None = None


class CompletionDetected(EventBody):
    type: Literal["completion_detected"] = "completion_detected"
    source: CompletionSource
    line: str | None = None


class TurnItem(EventBody):
    """An item of the agent's answer, in the shape of an OpenAI Responses item."""

    type: Literal["turn_item"] = "turn_item"
    item: dict[str, JsonValue]


class WarningRaised(EventBody):
    type: Literal["warning"] = "warning"
    code: str
    message: str


class Custom(EventBody):
    """An event of the agent's own that Cody has no meaning for: kept, never trusted."""

    type: Literal["custom"] = "custom"
    name: str
    data: dict[str, JsonValue]


RunEventBody = Annotated[
    RunQueued
    | RunStarted
    | RunPausing
    | RunPaused
    | RunResumed
    | RunCancelling
    | RunCancelled
    | RunCompleted
    | RunFailed
    | RunRecovered
    | TurnStarted
    | TurnCompleted
    | TurnFailed
    | TurnInterrupted
    | SubprocessOutput
    | OutputDropped
    | FileWritten
    | FileRead
    | FileDeleted
    | LogUpdated
    | TestRunStarted
    | TestRunCompleted
    | TokenUsageReported
    | CompletionDetected
    | TurnItem
    | WarningRaised
    | Custom,
    Field(discriminator="type"),
]

BODY: TypeAdapter[Any] = TypeAdapter(RunEventBody)
TERMINAL_EVENTS = frozenset({"run_cancelled", "run_completed", "run_failed"})
ENVELOPE = frozenset({"type", "ts", "runId", "seq"})
_TYPE = {"type"}


class RunEvent(Wire):
    """An event as a reader gets it: the envelope, and the body that `type` selects."""

    type: str
    ts: str
    run_id: str
    seq: Int
    body: RunEventBody

    @property
    def turn(self) -> int | None:
        return self.body.turn


def read_event(data: dict[str, Any]) -> RunEvent:
    """The typed event of a wire object; raises pydantic.ValidationError for what no version of Cody ever wrote."""
    own = {name: value for name, value in data.items() if name not in ENVELOPE}
    body = BODY.validate_python({"type": data.get("type"), **own})
    return RunEvent(type=data["type"], ts=data["ts"], run_id=data["runId"], seq=data["seq"], body=body)


def payload_json(body: RunEventBody, *, turn: int | None = None) -> bytes:
    """What Redis keeps as `payload`: the body's own fields as JSON, without `type` (a stream field) and without nulls.

    `turn`: the turn it belongs to, of a body that names none; a copy of the body that does would cost twice the rest.
    """
    payload = to_json(body, by_alias=True, exclude=_TYPE, exclude_none=True)
    if turn is None:
        return payload
    return b'{"turn":%d}' % turn if payload == b"{}" else b'{"turn":%d,%b' % (turn, payload[1:])
