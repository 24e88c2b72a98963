"""What a run is, on the wire: its snapshot, summary, turns, and the requests that start and steer it.

Source: the run contract of this project; field names are what existing dashboards speak.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from cody.contracts.run_config import AgentName, RunConfig
from cody.contracts.wire import Int, Wire

RunStatus = Literal["queued", "running", "pausing", "paused", "cancelling", "cancelled", "completed", "failed"]
TERMINAL: frozenset[RunStatus] = frozenset({"cancelled", "completed", "failed"})

ControlAction = Literal["pause", "resume", "cancel"]
PauseReason = Literal["manual", "error", "budget", "rate_limit", "no_progress", "approval"]
CancelReason = Literal["manual", "system", "error"]
Reason = Annotated[
    str,
    Field(
        max_length=500,
        description="One of the examples, or what a person has to say about it.",
        examples=list(dict.fromkeys((*get_args(PauseReason), *get_args(CancelReason)))),
    ),
]
"""Why a run is paused or cancelled. Programs give a PauseReason or a CancelReason; people may use words of their own."""

_UNSEEN = (
    "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb"
)
"""Control characters, and those that hide or turn around what stands beside them."""
_SEGMENT = rf"^(?!\.\.?$)[^/\\{_UNSEEN}]+$"


EpicId = Annotated[str, Field(min_length=1, max_length=128, json_schema_extra={"pattern": _SEGMENT})]


class StartRunRequest(Wire):
    """Body of `POST /api/runs/continuous`."""

    epic_id: EpicId
    config: RunConfig

    @field_validator("epic_id")
    @classmethod
    def _one_segment(cls, value: str) -> str:
        if re.search(_SEGMENT, value) is None:
            raise ValueError("one path segment: no '/', no '\\', not '.' or '..', printable characters only")
        return value


class ControlRequest(Wire):
    """Body of `POST /api/runs/{id}/control`."""

    action: ControlAction
    reason: Reason | None = None


class ReasonRequest(Wire):
    """Body of `POST /api/runs/{id}/pause`, `/resume`, `/cancel`; may be left out."""

    reason: Reason | None = None


class ControlAnswer(Wire):
    run_id: str
    status: RunStatus


class RunStats(Wire):
    """Sums over the run's turns so far, the turn in progress included."""

    turns: Int = 0
    """Turns that completed or failed; an interrupted turn is done again and does not count."""
    tokens: Int = 0
    input_tokens: Int = 0
    cached_input_tokens: Int = 0
    output_tokens: Int = 0
    files_written: Int = 0
    """Distinct paths written in each turn, summed over the turns."""
    tests_passed: Int = 0
    tests_failed: Int = 0


CompletionSource = Literal["stop_file", "log_pattern", "max_turns"]


class CompletionState(Wire):
    detected: bool = False
    line: str | None = None
    """The line that matched, or the first line of the stop file."""
    source: CompletionSource | None = None


class RunError(Wire):
    code: str
    message: str
    retryable: bool = False
    """True: the same run, started again, may well succeed (rate limit, network, provider down)."""


class RunSummary(Wire):
    """One row of the listing."""

    run_id: str
    status: RunStatus
    reason: str | None = None
    created_at: str
    updated_at: str
    started_at: str | None = None
    finished_at: str | None = None
    epic_id: str
    stream_key: str
    working_dir: str
    agent: AgentName
    pid: Int | None = None
    """The agent's process, while a turn runs."""
    worker_id: str | None = None
    host: str | None = None
    current_turn: Int | None = None
    stats: RunStats = RunStats()
    completion: CompletionState = CompletionState()
    error: RunError | None = None
    subscribers: Int = 0
    fence: Int = 0


class RunSnapshot(RunSummary):
    """All that is known of a run."""

    config: RunConfig
    queue_place: Int | None = None
    """1 = the next to be taken by a host that has room; null = it does not wait."""


class StartRunAnswer(Wire):
    run_id: str
    stream_key: str
    meta: RunSnapshot


class RunPage(Wire):
    runs: list[RunSummary]
    next_cursor: str | None = None


TurnStatus = Literal["running", "completed", "failed", "interrupted"]


class TokenUsage(Wire):
    """Tokens of one turn (or of one report). `total_tokens` = input + output."""

    input_tokens: Annotated[Int, Field(ge=0)] = 0
    cached_input_tokens: Annotated[Int, Field(ge=0)] = 0
    output_tokens: Annotated[Int, Field(ge=0)] = 0
    reasoning_tokens: Annotated[Int, Field(ge=0)] = 0
    total_tokens: Annotated[Int, Field(ge=0)] = 0


class TurnRecord(Wire):
    """What remains of one turn."""

    run_id: str
    turn: Int
    status: TurnStatus
    started_at: str
    finished_at: str | None = None
    duration_ms: Int | None = None
    pid: Int | None = None
    fence: Int = 0
    response_id: str
    thread_id: str | None = None
    exit_code: Int | None = None
    token_usage: TokenUsage = TokenUsage()
    files: list[str] = []
    """Distinct paths written, in order, at most 200."""
    files_written: Int = 0
    tests_passed: Int = 0
    tests_failed: Int = 0
    last_message: str | None = None
    """The agent's last message, cut at 4 KiB."""
    output_bytes: Int = 0
    error: RunError | None = None
    traceparent: str | None = None
    """W3C Trace Context of the turn: that of its span, and of the events of its Response."""


class TurnPage(Wire):
    turns: list[TurnRecord]


class PromptAnswer(Wire):
    run_id: str
    prompt: str
    sha256: str
    bytes: Int


class PreviewAnswer(Wire):
    """The prompt that a run which is not started yet would begin with."""

    prompt: str
    sha256: str
    bytes: Int


class ErrorDetail(Wire):
    code: str
    message: str
    details: dict[str, object] | None = None


class ErrorAnswer(Wire):
    """Every error of the API."""

    error: ErrorDetail
