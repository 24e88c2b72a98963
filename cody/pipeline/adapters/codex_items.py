"""An item of `codex exec --json` as items of a Response. Pure.

Source: stdout of codex 0.169.0 and 0.163.0. What codex does is a call of the tool that it offers to the model, and what
came of it the call's output. Texts are bounded: what is cut is whole in the turn's log.
"""

from __future__ import annotations

from typing import Any

from cody.contracts.responses import FunctionCall, FunctionCallOutput, whole_text
from cody.pipeline.json_values import json_text, object_of, objects_of, text_of

OUTPUT_END_BYTES = 8 * 1024
"""What is kept of a tool's output at either end: a summary stands at the end, its cause at the start."""
MESSAGE_END_BYTES = 64 * 1024
"""The same for what the model says: far beyond any real answer, yet an event stays small enough for every reader."""
MAX_ARGUMENTS = 64 * 1024
"""Characters of JSON: past it the arguments are replaced by their beginning, since cut JSON would be none."""

_LETTER = {"add": "A", "update": "M", "delete": "D"}


def capped(text: str, end_bytes: int) -> str:
    """`text`, or its first and last `end_bytes` (UTF-8) around a line that tells how much is left out."""
    if len(text) <= end_bytes // 2:  # at most four bytes a character: surely short enough for both ends
        return text
    data = whole_text(text).encode()
    if len(data) <= 2 * end_bytes:
        return text
    head, tail = data[:end_bytes].decode("utf-8", "ignore"), data[-end_bytes:].decode("utf-8", "ignore")
    omitted = len(data) - len(head.encode()) - len(tail.encode())
    return f"{head}\n... {omitted} bytes omitted ...\n{tail}"


def tool_call(data: dict[str, Any], id: str) -> FunctionCall | None:
    """The call that the item is, as it begins; None when it is no call."""
    match text_of(data.get("type")):
        case "command_execution":
            return _call(id, "exec_command", {"cmd": capped(text_of(data.get("command")), OUTPUT_END_BYTES)})
        case "file_change":
            changes = [{"path": text_of(c.get("path")), "kind": text_of(c.get("kind"))} for c in _changes(data)]
            return _call(id, "apply_patch", {"changes": changes})
        case "mcp_tool_call":
            name = f"mcp__{text_of(data.get('server'))}__{text_of(data.get('tool'))}"
            return _call(id, name, {} if data.get("arguments") is None else data["arguments"])
        case "web_search":
            return _call(id, "web_search", {"query": text_of(data.get("query"))})
        case _:
            return None


def tool_output(data: dict[str, Any], call_id: str) -> FunctionCallOutput:
    """What came of the call. `success` is that of the command or tool: false for an exit code other than 0."""
    completed = data.get("status") == "completed"
    match data["type"]:
        case "command_execution":
            code = data.get("exit_code")
            return output_of(call_id, text_of(data.get("aggregated_output")), success=completed and code in (0, None))
        case "file_change":
            lines = (f"{_LETTER.get(text_of(c.get('kind')), '?')} {text_of(c.get('path'))}\n" for c in _changes(data))
            return output_of(call_id, "".join(lines), success=completed)
        case "mcp_tool_call":
            error = text_of(object_of(data.get("error")).get("message")) or text_of(data.get("error"))
            return output_of(call_id, error or _mcp_text(data.get("result")), success=completed and not error)
        case _:
            return output_of(call_id, "", success=True)


def output_of(call_id: str, text: str, *, success: bool) -> FunctionCallOutput:
    kept = capped(text, OUTPUT_END_BYTES)
    return FunctionCallOutput(id=f"{call_id}_output", origin="system", call_id=call_id, output=kept, success=success)


def plan_call(data: dict[str, Any], id: str) -> FunctionCall:
    """One state of the to-do list, as the call of update_plan that made it."""
    steps = [
        {"step": text_of(entry.get("text")), "status": "completed" if entry.get("completed") is True else "pending"}
        for entry in objects_of(data.get("items"))
    ]
    return _call(id, "update_plan", {"plan": steps})


def _changes(data: dict[str, Any]) -> list[dict[str, Any]]:
    return objects_of(data.get("changes"))


def _call(id: str, name: str, arguments: Any) -> FunctionCall:
    text = json_text(arguments)
    if len(text) > MAX_ARGUMENTS:
        text = json_text({"truncated": True, "bytes": len(text.encode()), "head": text[:OUTPUT_END_BYTES]})
    return FunctionCall(id=id, name=name, arguments=text, call_id=id)


def _mcp_text(result: Any) -> str:
    """The text blocks of an MCP result; other blocks (images, resources) by their type only."""
    if not isinstance(result, dict) or not isinstance(result.get("content"), list):
        return "" if result is None else json_text(result)
    blocks = (block if isinstance(block, dict) else {} for block in result["content"])
    return "\n".join(text_of(block.get("text")) or f"[{block.get('type', 'content')}]" for block in blocks)
