"""An item of codex as items of the OpenAI Responses API, and as changes of files. Pure.

A call of a tool is a `function_call` and, when it has ended, a `function_call_output`; names and arguments are those of
the tools that codex offers to the model. Fields that the API does not have (`exit_code`, `truncated`, `output_bytes`)
stand beside its own. Texts are bounded: what is cut is whole in the turn's log.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import JsonValue

from cody.contracts.run_events import FileDeleted, FileWritten
from harness.agents.codex_events import (
    AgentMessage,
    CommandExecution,
    FileChange,
    McpToolCall,
    PathChange,
    Reasoning,
    TodoEntry,
    TodoList,
    WebSearch,
)

ResponsesItem = dict[str, JsonValue]

OUTPUT_END_BYTES = 8 * 1024
"""What is kept of a tool's output at either end: a summary stands at the end, its cause at the start."""
MAX_ARGUMENTS = 64 * 1024
"""Characters of JSON: past it the arguments are replaced by their beginning, since cut JSON would be none."""
MESSAGE_END_BYTES = 64 * 1024
"""The same for what the model says: far beyond any real answer, yet an event stays small enough for every reader."""

_LETTER = {"add": "A", "update": "M", "delete": "D"}


def cap(text: str, end_bytes: int) -> tuple[str, bool]:
    """`text`, or its first and last `end_bytes` (UTF-8) around a marker; True when it was cut."""
    if len(text) <= end_bytes // 2:  # at most four bytes a character: surely short enough for both ends
        return text, False
    data = text.encode("utf-8", "replace")
    if len(data) <= 2 * end_bytes:
        return text, False
    head = data[:end_bytes].decode("utf-8", "ignore")
    tail = data[-end_bytes:].decode("utf-8", "ignore")
    omitted = len(data) - len(head.encode()) - len(tail.encode())
    return f"{head}\n... {omitted} bytes omitted ...\n{tail}", True


def said(item: AgentMessage | Reasoning) -> ResponsesItem:
    """What the model said (`message`) or thought (`reasoning`)."""
    text, truncated = cap(item.text, MESSAGE_END_BYTES)
    extra: ResponsesItem = {"truncated": True} if truncated else {}
    if isinstance(item, Reasoning):
        return {"type": "reasoning", "id": item.id, "summary": [{"type": "summary_text", "text": text}], **extra}
    content: list[JsonValue] = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": item.id, "role": "assistant", "status": "completed", "content": content, **extra}


def call(item: CommandExecution | FileChange | McpToolCall | WebSearch) -> ResponsesItem:
    """The tool call that the item is, as it begins."""
    match item:
        case CommandExecution():
            return _function_call(item.id, "exec_command", {"cmd": cap(item.command, OUTPUT_END_BYTES)[0]})
        case FileChange():
            changes = [{"path": change.path, "kind": change.kind} for change in item.changes]
            return _function_call(item.id, "apply_patch", {"changes": changes})
        case McpToolCall():
            return _function_call(item.id, f"mcp__{item.server}__{item.tool}", item.arguments)
        case WebSearch():
            return _function_call(item.id, "web_search", {"query": item.query})


def output(item: CommandExecution | FileChange | McpToolCall | WebSearch) -> ResponsesItem:
    """What came of the call. `status` is `completed` when it ran to its end, a failing command included."""
    match item:
        case CommandExecution():
            ran = item.exit_code is not None or item.status == "completed"
            return _function_output(item.id, item.output, completed=ran) | {"exit_code": item.exit_code}
        case FileChange():
            lines = (f"{_LETTER.get(change.kind, '?')} {change.path}\n" for change in item.changes)
            return _function_output(item.id, "".join(lines), completed=item.status == "completed")
        case McpToolCall():
            text = item.error or _mcp_text(item.result)
            return _function_output(item.id, text, completed=not item.error and item.status == "completed")
        case WebSearch():
            return _function_output(item.id, "", completed=True)


def unfinished(id: str) -> ResponsesItem:
    """The output of a call that had not ended when the turn did: codex never reports one."""
    return _function_output(id, "", completed=False)


def plan(item: TodoList, revision: int) -> tuple[ResponsesItem, ResponsesItem]:
    """One state of the to-do list, as the call of update_plan that made it; codex gives all revisions the same id."""
    id = f"{item.id}_{revision}"
    arguments = {"plan": [{"step": entry.text, "status": _step_status(entry)} for entry in item.entries]}
    return _function_call(id, "update_plan", arguments), _function_output(id, "Plan updated", completed=True)


def file_changes(item: FileChange, roots: Sequence[str]) -> list[FileWritten | FileDeleted]:
    """The files that a patch changed, paths relative to the root that they are in; none when the patch failed."""
    if item.status != "completed":
        return []
    events = (_file_change(change, roots) for change in item.changes)
    return [event for event in events if event is not None]


def shell_script(command: str) -> str:
    """What the model asked for: codex shows `/bin/bash -lc 'SCRIPT'`. Anything else comes back as it is."""
    shell, _, rest = command.partition(" ")
    flag, _, quoted = rest.partition(" ")
    if not shell.endswith("sh") or flag not in {"-c", "-lc"}:
        return command
    try:
        words = shlex.split(quoted)
    except ValueError:
        return command
    return words[0] if len(words) == 1 else command


def json_text(value: Any) -> str:
    """What was read from JSON, as JSON again; `null` when nested deeper than orjson writes (254; it reads 1024)."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return "null"


def _function_call(id: str, name: str, arguments: Any) -> ResponsesItem:
    text = json_text(arguments if arguments is not None else {})
    if len(text) > MAX_ARGUMENTS:
        text = json_text({"truncated": True, "bytes": len(text.encode()), "head": text[:OUTPUT_END_BYTES]})
    return {
        "type": "function_call",
        "id": id,
        "call_id": id,
        "name": name,
        "arguments": text,
        "status": "in_progress",
    }


def _function_output(id: str, text: str, *, completed: bool) -> ResponsesItem:
    kept, truncated = cap(text, OUTPUT_END_BYTES)
    extra: ResponsesItem = {"output_bytes": len(text.encode("utf-8", "replace"))} if truncated else {}
    return {
        "type": "function_call_output",
        "id": f"{id}_output",
        "call_id": id,
        "output": kept,
        "status": "completed" if completed else "incomplete",
        "truncated": truncated,
        **extra,
    }


def _mcp_text(result: Any) -> str:
    """The text blocks of an MCP result; other blocks (images, resources) by their type only."""
    if not isinstance(result, dict) or not isinstance(result.get("content"), list):
        return "" if result is None else json_text(result)
    blocks = []
    for block in result["content"]:
        known = block if isinstance(block, dict) else {}
        text = known.get("text")
        blocks.append(text if isinstance(text, str) else f"[{known.get('type', 'content')}]")
    return "\n".join(blocks)


def _step_status(entry: TodoEntry) -> str:
    return "completed" if entry.completed else "pending"


def _file_change(change: PathChange, roots: Sequence[str]) -> FileWritten | FileDeleted | None:
    if not change.path:
        return None
    path = _relative(os.path.normpath(change.path), roots)
    match change.kind:
        case "add" | "update":
            return FileWritten(path=path, source="agent")
        case "delete":
            return FileDeleted(path=path, source="agent")
        case _:
            return None


def _relative(path: str, roots: Sequence[str]) -> str:
    for root in roots:
        inside = path.removeprefix(root.rstrip("/") + "/")
        if inside != path:
            return inside
    return path
