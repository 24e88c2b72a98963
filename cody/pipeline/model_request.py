"""What a model is asked: the thread so far, the new prompt, and which tools it may call. No provider's format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from cody.contracts.responses import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputItem,
    ScriptExecution,
    ScriptExecutionOutput,
    Shape,
    Text,
)
from cody.contracts.stream_events import ResponseStart
from cody.pipeline.json_values import json_text

NO_OUTPUT = "(no output was recorded)"
"""Stands for the output of a call that has none: providers refuse a call without one."""

Effort = Literal["low", "medium", "high"]


class Tool(Shape):
    """A function that the model may call. `parameters` is a JSON Schema of an object."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Text = ""
    parameters: dict[str, JsonValue]


class ModelRequest(Shape):
    """One request. `history` are the items of the thread, oldest first, what the user said (origin user) among them."""

    opening: ResponseStart
    """Names the Response that the answer becomes; its model_id is the model that is asked."""
    prompt: Text | None = None
    """What the user says now; None to go on from the outputs that end the history."""
    history: Annotated[tuple[OutputItem, ...], Field(strict=False)] = ()
    instructions: Text | None = None
    tools: Annotated[tuple[Tool, ...], Field(strict=False)] = ()
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    reasoning_effort: Effort | None = None
    """Asks for reasoning, and to be shown it; None = the model's own default."""

    @model_validator(mode="after")
    def _asks_something(self) -> ModelRequest:
        if not self.prompt and not self.history:
            raise ValueError("neither a prompt nor a history")
        return self

    def going_on(self, items: Sequence[OutputItem]) -> ModelRequest:
        """The request after this one in the same answer: what was said, and came, is history."""
        said = () if self.prompt is None else (user_message(self.opening.turn_id, self.prompt),)
        return self.model_copy(update={"prompt": None, "history": (*self.history, *said, *items)})


def user_message(id: str, text: str) -> Message:
    """What a user said, as an item of a thread's history."""
    return Message(id=id, origin="user", content=text)


Said = Message | FunctionCall | FunctionCallOutput


def sendable(history: Sequence[OutputItem]) -> list[Said]:
    """The history as every provider takes it: messages that say something, and calls followed by their outputs.

    Calls that came together stay together, and each gets exactly one output: one that came late is moved up, a missing
    one is stood in for, one without a call is left out. Scripts are calls. Reasoning is left out, since it counts only
    with the provider's own signature, which is not kept; so are errors.
    """
    spoken = [item for item in map(_spoken, history) if item is not None]
    taken: set[int] = set()
    sent: list[Said] = []
    at = 0
    while at < len(spoken):
        item = spoken[at]
        if not isinstance(item, FunctionCall):
            if isinstance(item, Message):
                sent.append(item)
            at += 1
            continue
        start = at
        while at < len(spoken) and isinstance(spoken[at], FunctionCall):
            at += 1
        calls = [call for call in spoken[start:at] if isinstance(call, FunctionCall)]
        sent += [*calls, *(_output_of(call, spoken, at, taken) for call in calls)]
    return sent


def _output_of(call: FunctionCall, spoken: Sequence[Said], after: int, taken: set[int]) -> FunctionCallOutput:
    for position in range(after, len(spoken)):
        match spoken[position]:
            case FunctionCallOutput(call_id=call.call_id) as output if position not in taken:
                taken.add(position)
                return output
    return FunctionCallOutput(
        id=f"{call.id}_output", origin="system", call_id=call.call_id, output=NO_OUTPUT, success=False
    )


def _spoken(item: OutputItem) -> Said | None:
    match item:
        case Message():
            return item if item.content.strip() else None
        case FunctionCall() | FunctionCallOutput():
            return item
        case ScriptExecution(id=id):
            return FunctionCall(id=id, name="script_execution", arguments=json_text({"code": item.code}), call_id=id)
        case ScriptExecutionOutput(id=id, script_id=script_id):
            text = item.result if item.error is None else f"{item.result}\n{item.error.message}".strip()
            return FunctionCallOutput(id=id, origin="system", call_id=script_id, output=text, success=item.success)
        case _:
            return None
