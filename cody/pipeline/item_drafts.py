"""An item while it is being made: how it begins, and where the text of its deltas goes. Pure."""

from __future__ import annotations

from cody.contracts.responses import (
    ErrorInfo,
    ErrorItem,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputItem,
    Reasoning,
    ScriptExecution,
    ScriptExecutionOutput,
)
from cody.contracts.stream_events import ItemStart


def begun(start: ItemStart) -> OutputItem:
    """The item as item_start tells it; what only item_done tells is, until then, the item's own id, or false."""
    id, text = start.item_id, start.initial_content or ""
    match start.item_type:
        case "message":
            return Message(id=id, content=text)
        case "reasoning":
            return Reasoning(id=id, content=text)
        case "function_call":
            return FunctionCall(id=id, name=start.name or "", arguments=start.arguments or "", call_id=id)
        case "function_call_output":
            return FunctionCallOutput(id=id, call_id=id, output=text, success=False)
        case "script_execution":
            return ScriptExecution(id=id, code=start.code or text)
        case "script_execution_output":
            return ScriptExecutionOutput(id=id, script_id=id, result=text, success=False)
        case "error":
            return ErrorItem(id=id, code="error", message=text)


def extended(item: OutputItem, text: str) -> OutputItem:
    """The item with `text` at the end of what its deltas make up."""
    match item:
        case Message() | Reasoning():
            return item.model_copy(update={"content": item.content + text})
        case FunctionCall():
            return item.model_copy(update={"arguments": item.arguments + text})
        case FunctionCallOutput():
            return item.model_copy(update={"output": item.output + text})
        case ScriptExecution():
            return item.model_copy(update={"code": item.code + text})
        case ScriptExecutionOutput():
            return item.model_copy(update={"result": item.result + text})
        case ErrorItem():
            return item.model_copy(update={"message": item.message + text})


def broken_off(item_id: str, error: ErrorInfo) -> ErrorItem:
    """The item that stands after one that broke off, and tells why."""
    return ErrorItem(
        id=f"{item_id}_error",
        origin="system",
        correlation_id=item_id,
        code=error.code,
        message=error.message,
        details=error.details,
    )
