"""What clients say and hear about Responses: asking a model, threads, aborting. A Response itself is in responses.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from cody.contracts.responses import Response, run_of_turn
from cody.contracts.tool_names import TOOL_NAMES, ToolName, ToolSandbox
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


def _kind_of_tool(value: object) -> str:
    return "name" if isinstance(value, str) else "definition"


OfferedTool = Annotated[
    Annotated[ToolName, Tag("name")] | Annotated[ToolDefinition, Tag("definition")], Discriminator(_kind_of_tool)
]
"""A name: Cody carries its calls out and the answer goes on. A definition: the caller does, and the answer ends there."""


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
    own_tools = {"properties": {"tools": {"contains": {"type": "string"}}}, "required": ["tools"]}
    workspace = {"properties": {"workingDir": {"type": "string"}}, "required": ["workingDir"]}
    none = {"properties": {"workingDir": {"type": "null"}, "sandbox": {"type": "null"}}}
    schema["allOf"] = [{"if": outputs, "then": of_a_thread}, {"if": own_tools, "then": workspace, "else": none}]


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
    tools: Annotated[list[OfferedTool], Field(max_length=MAX_TOOLS)] = []
    """What the model may call: Cody's own tools by name, the caller's by their definition."""
    tool_outputs: Annotated[list[ToolOutput], Field(max_length=MAX_TOOLS)] = []
    max_output_tokens: Annotated[Int, Field(ge=1, le=10_000_000)] | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    working_dir: Annotated[str, Field(pattern=r"^/[^\x00]*$", max_length=4096)] | None = None
    """The absolute path of the folder that Cody's own tools work in."""
    sandbox: ToolSandbox | None = None
    """Of Cody's own tools; null = workspace-write."""

    @property
    def own_tools(self) -> frozenset[ToolName]:
        """The tools that Cody carries out."""
        return frozenset(tool for tool in self.tools if isinstance(tool, str))

    @property
    def definitions(self) -> list[ToolDefinition]:
        """The tools that the caller carries out."""
        return [tool for tool in self.tools if isinstance(tool, ToolDefinition)]

    @model_validator(mode="after")
    def _asks_something(self) -> SubmitRequest:
        if self.prompt is None and not self.tool_outputs:
            raise ValueError("give a prompt, or toolOutputs of the thread's last turn")
        if self.tool_outputs and self.thread_id is None:
            raise ValueError("toolOutputs belong to a thread: give its threadId")
        if self.turn_id is not None and run_of_turn(self.turn_id) is not None:
            raise ValueError(f"turnId {self.turn_id} names a turn of a run: leave it out, or choose another form")
        if self.own_tools and self.working_dir is None:
            raise ValueError("tools that Cody carries out work in a folder: give workingDir")
        if not self.own_tools and (self.working_dir is not None or self.sandbox is not None):
            raise ValueError(f"workingDir and sandbox are for Cody's own tools: name some ({', '.join(TOOL_NAMES)})")
        if both := self.own_tools.intersection(tool.name for tool in self.definitions):
            raise ValueError(f"tools: {', '.join(sorted(both))} is named and defined: one of both")
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
