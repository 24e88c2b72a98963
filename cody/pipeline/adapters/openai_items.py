"""An output item of the OpenAI Responses API as items of a Response. Pure.

Source: the item types of openai-python 3.52. Reading is by shape, so that types that are not known here survive:
- `*_call` with a call_id is a call that the client runs, and `*_output` is its output;
- `*_call` without one has been run by the provider (web search, files, images, MCP): a call, and its output at once;
- code_interpreter_call is a script.
Anything else (lists of tools, compactions) says nothing to a reader and gives no item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cody.contracts.responses import (
    ErrorInfo,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputItem,
    Reasoning,
    ScriptExecution,
    ScriptExecutionOutput,
    whole_text,
)
from cody.contracts.stream_events import ItemStart
from cody.pipeline.json_values import json_text, objects_of, text_of
from cody.pipeline.problems import PROVIDER_ERROR

CUSTOM_INPUT_HEAD = '{"input":"'
"""How the arguments of a custom tool's call begin: its input is plain text, and arguments are JSON."""
PART_BREAK = "\n\n"
"""Between the parts of a reasoning summary, each of which has a heading of its own."""

_NO_ARGUMENTS = frozenset(
    {"id", "type", "status", "call_id", "caller", "name", "output", "outputs", "results", "result", "error"}
)
"""Fields of a call that are not what was asked for. `result` is an image: megabytes that belong in no event."""


@dataclass(frozen=True, slots=True)
class ReadItem:
    """`start` begins the first of `items`; the others follow when it is done."""

    start: ItemStart
    items: tuple[OutputItem, ...]
    awaits_output: bool = False
    """A call that the client is to run."""


def read_item(data: dict[str, Any], id: str) -> ReadItem | None:
    """What the item is, as far as it has come; None for a type that gives no item."""
    match text_of(data.get("type")):
        case "message":
            parts = objects_of(data.get("content"))
            texts = [text_of(part.get("text")) or text_of(part.get("refusal")) for part in parts]
            return _plain(Message(id=id, content="".join(texts)))
        case "reasoning":
            parts = objects_of(data.get("summary")) + objects_of(data.get("content"))
            return _plain(Reasoning(id=id, content=PART_BREAK.join(text_of(part.get("text")) for part in parts)))
        case "code_interpreter_call":
            return _script(data, id)
        case "function_call" | "custom_tool_call":
            return _call_of_client(data, id)
        case "mcp_call":
            return _mcp_call(data, id)
        case kind if kind.endswith("_output") and text_of(data.get("call_id")):
            return _plain(_output(data, id, data["call_id"]))
        case kind if kind.endswith("_call") and text_of(data.get("call_id")):
            call = FunctionCall(id=id, name=_tool(kind), arguments=_asked(data), call_id=data["call_id"])
            return ReadItem(_start(call), (call,), awaits_output=True)
        case kind if kind.endswith("_call"):
            call = FunctionCall(id=id, name=_tool(kind), arguments=_asked(data), call_id=id)
            return ReadItem(_start(call), (call, _output(data, f"{id}_output", id)))
        case _:
            return None


def custom_input(text: str) -> str:
    """A piece of a custom tool's input, as it stands inside the JSON text of the arguments."""
    return json_text(whole_text(text))[1:-1]


def _plain(item: OutputItem) -> ReadItem:
    return ReadItem(ItemStart(item_id=item.id, item_type=item.type), (item,))


def _start(call: FunctionCall, arguments: str | None = None) -> ItemStart:
    return ItemStart(item_id=call.id, item_type="function_call", name=call.name, arguments=arguments)


def _call_of_client(data: dict[str, Any], id: str) -> ReadItem:
    if data["type"] == "custom_tool_call":
        head: str | None = CUSTOM_INPUT_HEAD
        arguments = f'{CUSTOM_INPUT_HEAD}{custom_input(text_of(data.get("input")))}"}}'
    else:
        head = None
        arguments = text_of(data.get("arguments"))
    call = FunctionCall(
        id=id, name=text_of(data.get("name")), arguments=arguments, call_id=text_of(data.get("call_id")) or id
    )
    return ReadItem(_start(call, head), (call,), awaits_output=True)


def _mcp_call(data: dict[str, Any], id: str) -> ReadItem:
    name = f"mcp__{text_of(data.get('server_label'))}__{text_of(data.get('name'))}"
    call = FunctionCall(id=id, name=name, arguments=text_of(data.get("arguments")), call_id=id)
    return ReadItem(_start(call), (call, _output(data, f"{id}_output", id)))


def _script(data: dict[str, Any], id: str) -> ReadItem:
    script = ScriptExecution(id=id, code=text_of(data.get("code")))
    logs = "\n".join(text_of(output.get("logs")) for output in objects_of(data.get("outputs")))
    success = data.get("status") == "completed"
    error = None if success else ErrorInfo(code=PROVIDER_ERROR, message=f"the script is {data.get('status')}")
    output = ScriptExecutionOutput(
        id=f"{id}_output", origin="system", script_id=id, result=logs, success=success, error=error
    )
    return ReadItem(ItemStart(item_id=id, item_type="script_execution"), (script, output))


def _output(data: dict[str, Any], id: str, call_id: str) -> FunctionCallOutput:
    """What came of a call; a provider's own tools may tell only that they are done."""
    told = [data.get(name) for name in ("output", "outputs", "results", "error")]
    texts = [value if isinstance(value, str) else json_text(value) for value in told if value is not None]
    success = data.get("error") is None and data.get("status") in (None, "completed")
    return FunctionCallOutput(id=id, origin="system", call_id=call_id, output="\n".join(texts), success=success)


def _tool(kind: str) -> str:
    return kind.removesuffix("_call")


def _asked(data: dict[str, Any]) -> str:
    asked = {name: value for name, value in data.items() if name not in _NO_ARGUMENTS and value is not None}
    return json_text(asked["action"] if set(asked) == {"action"} else asked)
