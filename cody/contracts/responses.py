"""What an answer is: a Response, a list of typed items. snake_case on the wire, as all of the event pipeline.

Writers keep to the fields below; readers ignore fields that they don't know, so that a newer writer does not stop an
older reader. An unknown `type` is an error: it can't be read as something that it is not.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from cody.contracts.wire import Int

_TURN_OF_RUN = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):[1-9][0-9]*\Z")


def turn_id_of(run_id: str, turn: int) -> str:
    """The `turn_id` of the Response that a run's turn is."""
    return f"{run_id}:{turn}"


def run_of_turn(turn_id: str) -> str | None:
    """The run whose turn a Response with this `turn_id` is; None = it is no run's. The inverse of `turn_id_of`."""
    found = _TURN_OF_RUN.match(turn_id)
    return found[1] if found else None


class Shape(BaseModel):
    """A frozen, strict model of the pipeline: snake_case JSON, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


def whole_text(text: str) -> str:
    """`text` as UTF-8 can carry it: surrogates that stand alone become U+FFFD, pairs that were parted are joined.

    A provider that escapes an emoji as two UTF-16 halves can send each in a delta of its own; JSON readers take that.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _writable(details: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        orjson.dumps(details)
    except orjson.JSONEncodeError as error:  # too deep, an integer of more than 64 bits, half an emoji
        raise ValueError(f"can't be written as JSON: {error}") from None
    return details


Text = Annotated[str, AfterValidator(whole_text)]
Id = Annotated[Text, Field(min_length=1)]
"""A plain string: providers do not send UUIDs."""
Count = Annotated[Int, Field(ge=0)]
LAST_MS = 253_402_300_799_999
"""The end of the year 9999: of a later instant there is no date, and of one beyond 64 bits no column."""
EpochMs = Annotated[Int, Field(ge=0, le=LAST_MS)]
"""Milliseconds since 1970."""
Details = Annotated[dict[str, JsonValue], AfterValidator(_writable)]

Origin = Literal["user", "agent", "system"]
ResponseStatus = Literal["queued", "in_progress", "complete", "error", "aborted"]
TERMINAL_STATUSES: frozenset[ResponseStatus] = frozenset({"complete", "error", "aborted"})

FINISH_STOP = "stop"
FINISH_TOOL_CALLS = "tool_calls"
"""The model waits for the outputs of its function calls."""
FINISH_MAX_OUTPUT_TOKENS = "max_output_tokens"
FINISH_CONTENT_FILTER = "content_filter"
FINISH_REFUSAL = "refusal"
"""`finish_reason` is one of these, or the provider's own word where none of them says the same."""


class ErrorInfo(Shape):
    """What went wrong. `code` is stable; `details.retryable` tells whether the same request may succeed later."""

    code: Id
    message: Text
    details: Details | None = None


class Usage(Shape):
    """Tokens of the whole answer so far. `prompt_tokens` includes what was read from and written to a cache."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count


class Item(Shape):
    """Fields of every item. Ids are unique within a Response."""

    id: Id
    origin: Origin = "agent"
    correlation_id: Id | None = None


class Message(Item):
    type: Literal["message"] = "message"
    content: Text


class Reasoning(Item):
    type: Literal["reasoning"] = "reasoning"
    content: Text


class FunctionCall(Item):
    """A call of a tool. `arguments` is JSON text, as the model wrote it: it may be cut off, or no JSON at all."""

    type: Literal["function_call"] = "function_call"
    name: Text
    arguments: Text
    call_id: Id


class FunctionCallOutput(Item):
    type: Literal["function_call_output"] = "function_call_output"
    call_id: Id
    output: Text
    success: bool


class ScriptExecution(Item):
    type: Literal["script_execution"] = "script_execution"
    code: Text


class ScriptExecutionOutput(Item):
    type: Literal["script_execution_output"] = "script_execution_output"
    script_id: Id
    """The id of the script_execution item."""
    result: Text
    success: bool
    error: ErrorInfo | None = None


class ErrorItem(Item):
    """An error within the answer. The answer may go on."""

    type: Literal["error"] = "error"
    code: Id
    message: Text
    details: Details | None = None


OutputItem = Annotated[
    Message | Reasoning | FunctionCall | FunctionCallOutput | ScriptExecution | ScriptExecutionOutput | ErrorItem,
    Field(discriminator="type"),
]
ItemType = Literal[
    "message",
    "reasoning",
    "function_call",
    "function_call_output",
    "script_execution",
    "script_execution_output",
    "error",
]


class Response(Shape):
    """An answer of a model or an agent, as far as it has come."""

    id: Id
    turn_id: Id
    thread_id: Id
    agent_id: Id | None = None
    model_id: Id
    provider_id: Id
    created_at: EpochMs
    updated_at: EpochMs
    status: ResponseStatus
    output_items: Annotated[tuple[OutputItem, ...], Field(strict=False)] = ()
    usage: Usage | None = None
    finish_reason: Text | None = None
    error: ErrorInfo | None = None

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL_STATUSES
