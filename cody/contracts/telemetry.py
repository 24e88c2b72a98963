"""What a sentinel line may tell: the payloads that Cody gives a meaning to, one frozen model each.

    {"__cody_event__": {"type": "test_run_completed", "passed": 3, "failed": 1}}

Whoever writes such a line is an agent, or a script of its own. So the models are lenient where that is harmless
(unknown fields are ignored) and strict where a guess would falsify a figure: 2.0 is an integer; "10", -1, true and 2.5
are not. No payload names its turn, its run or its source: those are Cody's to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, field_validator, model_validator

from cody.contracts.run_config import MAX_TEXT
from cody.contracts.run_events import (
    FileDeleted,
    FileRead,
    FileWritten,
    RunEventBody,
    TestRunCompleted,
    TestRunStarted,
    TokenUsageReported,
    WarningRaised,
)
from cody.contracts.wire import Int, Wire

SENTINEL_KEY = "__cody_event__"
MAX_COUNT = 10**12
"""Largest figure of one report: no turn reaches it, and sums of millions of them stay inside Redis' 64-bit counters."""

Count = Annotated[Int, Field(ge=0, le=MAX_COUNT)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class Payload(Wire):
    model_config = ConfigDict(extra="ignore")


class TokenUsagePayload(Payload):
    """Tokens used since the last report; at least one figure is told."""

    type: Literal["token_usage"]
    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_tokens: Count = 0
    total_tokens: Count | None = None
    """None = input + output."""

    @model_validator(mode="after")
    def _tells_something(self) -> TokenUsagePayload:
        if not self.model_fields_set - {"type"}:
            raise ValueError("token_usage has none of inputTokens, outputTokens, totalTokens, ...")
        return self


class TestRunStartedPayload(Payload):
    type: Literal["test_run_started"]
    command: Text


class TestRunCompletedPayload(Payload):
    type: Literal["test_run_completed"]
    passed: Count
    failed: Count
    skipped: Count = 0
    duration_ms: Count | None = None
    command: Text | None = None
    framework: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class FilePayload(Payload):
    type: Literal["file_written", "file_read", "file_deleted"]
    path: Text

    @field_validator("path")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        if "\x00" in value:
            raise ValueError("no path has a NUL byte")
        return value


class WarningPayload(Payload):
    type: Literal["warning"]
    code: Annotated[str, Field(min_length=1, max_length=256)]
    message: Text


Telemetry = Annotated[
    TokenUsagePayload | TestRunStartedPayload | TestRunCompletedPayload | FilePayload | WarningPayload,
    Field(discriminator="type"),
]

TELEMETRY: TypeAdapter[Any] = TypeAdapter(Telemetry)
TELEMETRY_TYPES = frozenset(
    {
        "token_usage",
        "test_run_started",
        "test_run_completed",
        "file_written",
        "file_read",
        "file_deleted",
        "warning",
    }
)
_FILE_EVENT: dict[str, type[FileWritten | FileRead | FileDeleted]] = {
    "file_written": FileWritten,
    "file_read": FileRead,
    "file_deleted": FileDeleted,
}


def read_telemetry(payload: dict[str, Any]) -> RunEventBody:
    """The run event that a payload of one of TELEMETRY_TYPES tells; raises pydantic.ValidationError if malformed."""
    told: Telemetry = TELEMETRY.validate_python(payload)
    match told:
        case TokenUsagePayload():
            total = told.input_tokens + told.output_tokens if told.total_tokens is None else told.total_tokens
            return TokenUsageReported(
                input_tokens=told.input_tokens,
                cached_input_tokens=told.cached_input_tokens,
                output_tokens=told.output_tokens,
                reasoning_tokens=told.reasoning_tokens,
                total_tokens=total,
            )
        case TestRunStartedPayload():
            return TestRunStarted(command=told.command)
        case TestRunCompletedPayload():
            return TestRunCompleted(
                passed=told.passed,
                failed=told.failed,
                skipped=told.skipped,
                duration_ms=told.duration_ms,
                command=told.command,
                framework=told.framework,
            )
        case FilePayload():
            return _FILE_EVENT[told.type](path=told.path, source="sentinel")
        case WarningPayload():
            return WarningRaised(code=told.code, message=told.message)
