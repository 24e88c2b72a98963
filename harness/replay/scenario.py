"""What is played: a scenario has turns, a turn has answers, an answer has items. Models only, no I/O.

One *turn* is what one prompt sets off (one `codex exec`); the agent asks the model once more after each round of tools,
so a turn has several *answers*. Item types are those of the OpenAI Responses API, reduced to what a person would write.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

MAX_DELAY_MS = 600_000
"""Ten minutes: beyond the idle limit of every client there is, so more can only be a slip of the pen."""

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")

DelayMs = Annotated[int, Field(ge=0, le=MAX_DELAY_MS)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Part(BaseModel):
    """The base of every piece of a scenario: frozen, strict, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Message(Part):
    """Text from the assistant. `phase` is what newer models say of it (commentary, final_answer)."""

    type: Literal["message"]
    text: str
    phase: str | None = None


class Reasoning(Part):
    """What the model shows of its thinking: one entry for each part of the summary."""

    type: Literal["reasoning"]
    summary: tuple[str, ...]


class FunctionCall(Part):
    """A tool call with JSON arguments. A string is sent as it is, so that malformed arguments can be played as well."""

    type: Literal["function_call"]
    name: str = Field(min_length=1)
    arguments: dict[str, JsonValue] | str
    namespace: str | None = None


class CustomToolCall(Part):
    """A tool call whose input is plain text, such as codex' apply_patch."""

    type: Literal["custom_tool_call"]
    name: str = Field(min_length=1)
    input: str


class RawItem(Part):
    """Any other item of the API, played word for word; its id and call_id are replaced, so that they stay unique."""

    type: Literal["raw"]
    item: dict[str, JsonValue]

    @field_validator("item")
    @classmethod
    def _names_its_type(cls, item: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if not isinstance(item.get("type"), str):
            raise ValueError("a raw item needs a string `type` of the Responses API")
        return item


Item = Annotated[Message | Reasoning | FunctionCall | CustomToolCall | RawItem, Field(discriminator="type")]


def awaits_output(item: Item) -> bool:
    """True when the client has to answer the item with an output in its next request.

    Calls that the client makes carry a call_id; those the provider makes by itself (web search) have none.
    """
    match item:
        case FunctionCall() | CustomToolCall():
            return True
        case RawItem():
            return item.item.get("call_id") is not None
        case _:
            return False


class Usage(Part):
    """Tokens of one answer as the API counts: cached and cache_write are parts of input, reasoning is one of output."""

    input: Tokens = 0
    cached: Tokens = 0
    cache_write: Tokens = 0
    output: Tokens = 0
    reasoning: Tokens = 0

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.cached + self.cache_write > self.input:
            raise ValueError(f"cached and cache_write are parts of input ({self.input}) and cannot exceed it")
        if self.reasoning > self.output:
            raise ValueError(f"reasoning is a part of output ({self.output}) and cannot exceed it")
        return self


class HttpError(Part):
    """An answer that is an HTTP error. `body` replaces the usual error object, which is made of the other fields."""

    status: int = Field(ge=400, le=599)
    message: str = "This error is part of the scenario."
    type: str = "replay_error"
    code: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: dict[str, JsonValue] | str | None = None

    @field_validator("headers")
    @classmethod
    def _headers_are_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of an HTTP header")
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"the value of {name} must be printable ASCII")
        return headers


class Failure(Part):
    """A stream that ends with response.failed."""

    code: str = "server_error"
    message: str


class Answer(Part):
    """What the server says to one request: `items`, and at most one of the four ways to go wrong.

    Delays are in milliseconds: `delay_ms` before the first byte, `item_delay_ms` before each item, `delta_delay_ms`
    before each piece of an item. `drop: N` cuts the connection after N whole items; `incomplete` is the reason given.
    """

    items: tuple[Item, ...] = ()
    usage: Usage | None = None
    delay_ms: DelayMs = 0
    item_delay_ms: DelayMs = 0
    delta_delay_ms: DelayMs = 0
    error: HttpError | None = None
    drop: int | None = Field(default=None, ge=0)
    incomplete: str | None = None
    failed: Failure | None = None

    @model_validator(mode="after")
    def _goes_wrong_in_one_way(self) -> Self:
        ways = [way for way in ("error", "drop", "incomplete", "failed") if getattr(self, way) is not None]
        if len(ways) > 1:
            raise ValueError(f"an answer goes wrong in one way only, not by {' and '.join(ways)}")
        if self.error is not None and (self.items or self.usage is not None):
            raise ValueError("an HTTP error is instead of items and usage: remove them or the error")
        if self.drop is not None and self.drop > len(self.items):
            raise ValueError(f"drop: {self.drop} exceeds the {len(self.items)} items that there are")
        if not ways and not self.items and self.usage is None:
            raise ValueError("an answer needs items or usage, or one of error, drop, incomplete, failed")
        return self

    @property
    def delivered(self) -> tuple[Item, ...]:
        """The items that reach the client whole."""
        return self.items if self.drop is None else self.items[: self.drop]

    @property
    def awaited_outputs(self) -> int:
        """How many tool outputs the client's next request brings because of this answer."""
        return sum(awaits_output(item) for item in self.delivered)


class Turn(Part):
    """The answers to one prompt, in order.

    A turn is only given to a prompt in which the regular expression `match` is found, and to a thread that is new
    (fresh) or goes on (resumed) when `thread` says so.
    """

    note: str = ""
    match: str | None = None
    thread: Literal["any", "fresh", "resumed"] = "any"
    responses: tuple[Answer, ...] = Field(min_length=1)

    @field_validator("match")
    @classmethod
    def _is_a_pattern(cls, match: str | None) -> str | None:
        if match is not None:
            try:
                re.compile(match)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return match


class Scenario(Part):
    """All that a server plays.

    `on_exhausted`: after the last turn, requests are refused (error) or get the last turn again (repeat_last).
    `unfinished`: a turn that was not played to its end (its agent was killed) is left behind (next) or given again
    (again), which needs turns that come one after the other.
    """

    name: str
    description: str = ""
    on_exhausted: Literal["error", "repeat_last"] = "error"
    unfinished: Literal["next", "again"] = "next"
    turns: tuple[Turn, ...] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _is_a_slug(cls, name: str) -> str:
        if not _SLUG.fullmatch(name):
            raise ValueError("a name has 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit")
        return name
