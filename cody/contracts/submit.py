"""What clients say and hear about Responses: asking a model, threads, aborting. A Response itself is in responses.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from cody.contracts.responses import Response
from cody.contracts.wire import Int, Wire

MAX_PROMPT_CHARS = 500_000
MAX_TOOLS = 128

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
ThreadId = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_.:-]{0,127}$")]


class ToolDefinition(Wire):
    """A function that the model may call. `parameters` is a JSON Schema of an object."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=10_000)] = ""
    parameters: dict[str, JsonValue] = {"type": "object", "properties": {}}


class ToolOutput(Wire):
    """What came of a call that the model made in an earlier turn of the thread."""

    call_id: Name
    output: Annotated[str, Field(max_length=MAX_PROMPT_CHARS)]
    success: bool = True


def _asks_something(schema: dict[str, Any]) -> None:
    """What the validator of SubmitRequest checks, as JSON Schema."""
    of_a_thread = {"properties": {"threadId": {"type": "string"}}, "required": ["threadId"]}
    outputs = {"properties": {"toolOutputs": {"minItems": 1}}, "required": ["toolOutputs"]}
    schema["anyOf"] = [{"properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}, outputs]
    schema["if"], schema["then"] = outputs, of_a_thread


class SubmitRequest(Wire):
    """Body of `POST /api/v2/submit`. A prompt, or the outputs of tools that an earlier turn of the thread asked for."""

    model_config = ConfigDict(json_schema_extra=_asks_something)

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    model: Name
    provider_id: Name
    thread_id: ThreadId | None = None
    """The thread to go on in; null = a new one."""
    turn_id: ThreadId | None = None
    agent_id: Name | None = None
    instructions: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)] | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)] = []
    tool_outputs: Annotated[list[ToolOutput], Field(max_length=MAX_TOOLS)] = []
    max_output_tokens: Annotated[Int, Field(ge=1, le=10_000_000)] | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> SubmitRequest:
        if self.prompt is None and not self.tool_outputs:
            raise ValueError("give a prompt, or toolOutputs of the thread's last turn")
        if self.tool_outputs and self.thread_id is None:
            raise ValueError("toolOutputs belong to a thread: give its threadId")
        return self


class SubmitAnswer(Wire):
    """`run_id` is the id of the Response."""

    run_id: str
    thread_id: str
    turn_id: str


class AbortRequest(Wire):
    reason: Annotated[str, Field(min_length=1, max_length=500)] = "the user asked for it"


class AbortAnswer(Wire):
    run_id: str
    status: Literal["aborted"] = "aborted"


class ThreadAnswer(Wire):
    """A thread's Responses, oldest first."""

    thread_id: str
    responses: list[Response]


class ThreadSummary(Wire):
    """Times in milliseconds since 1970. `status` is that of the newest Response."""

    thread_id: str
    created_at: Int
    updated_at: Int
    responses: Int
    status: str


class ThreadPage(Wire):
    """Those that were answered last come first."""

    threads: list[ThreadSummary]
    next_cursor: str | None = None
