"""What a line of `codex exec --json` says, typed. Pure.

Source: stdout of codex 0.169.0 (recorded) and 0.163.0 (the wheel `openai-codex-cli-bin`), which agree. The format has
no version, so reading is lenient: a missing or misshapen field becomes its empty value, an event or item of a type not
known here survives as Unknown*, and nothing that can be on the line raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from cody.contracts.run import TokenUsage
from cody.contracts.telemetry import MAX_COUNT

Phase = Literal["started", "updated", "completed"]

_PHASES: dict[str, Phase] = {"item.started": "started", "item.updated": "updated", "item.completed": "completed"}


@dataclass(frozen=True, slots=True)
class AgentMessage:
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class CommandExecution:
    """`output` is stdout and stderr together, whole only when the command has completed (codex caps it at 1 MiB)."""

    id: str
    command: str
    output: str
    exit_code: int | None
    status: str


@dataclass(frozen=True, slots=True)
class PathChange:
    path: str
    kind: str
    """add, update or delete."""


@dataclass(frozen=True, slots=True)
class FileChange:
    id: str
    changes: tuple[PathChange, ...]
    status: str


@dataclass(frozen=True, slots=True)
class McpToolCall:
    id: str
    server: str
    tool: str
    arguments: Any
    result: Any
    error: str
    status: str


@dataclass(frozen=True, slots=True)
class WebSearch:
    id: str
    query: str


@dataclass(frozen=True, slots=True)
class TodoEntry:
    text: str
    completed: bool


@dataclass(frozen=True, slots=True)
class TodoList:
    id: str
    entries: tuple[TodoEntry, ...]


@dataclass(frozen=True, slots=True)
class ErrorItem:
    """A warning of codex: the turn goes on."""

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class UnknownItem:
    id: str
    type: str
    raw: dict[str, Any]


CodexItem = (
    AgentMessage
    | Reasoning
    | CommandExecution
    | FileChange
    | McpToolCall
    | WebSearch
    | TodoList
    | ErrorItem
    | UnknownItem
)


@dataclass(frozen=True, slots=True)
class ThreadStarted:
    thread_id: str


@dataclass(frozen=True, slots=True)
class TurnStarted:
    pass


@dataclass(frozen=True, slots=True)
class ItemEvent:
    phase: Phase
    item: CodexItem


@dataclass(frozen=True, slots=True)
class TurnCompleted:
    usage: TokenUsage
    """Cumulative for the thread."""


@dataclass(frozen=True, slots=True)
class TurnFailed:
    message: str


@dataclass(frozen=True, slots=True)
class ErrorReported:
    """An error that is not the end: codex may retry, and the turn may still complete."""

    message: str


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    type: str
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that begins as an object and is not JSON: cut off, or another program's."""

    reason: str


CodexEvent = (
    ThreadStarted | TurnStarted | ItemEvent | TurnCompleted | TurnFailed | ErrorReported | UnknownEvent | Unreadable
)


def parse(line: bytes) -> CodexEvent | None:
    """The event of a line; None when the line is no event of codex: text, or JSON without a string `type`."""
    if line[:1] != b"{":
        return None
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Unreadable(str(error))
    kind = data.get("type")
    if not isinstance(kind, str):
        return None
    match kind:
        case "thread.started":
            return ThreadStarted(_text(data.get("thread_id")))
        case "turn.started":
            return TurnStarted()
        case "turn.completed":
            return TurnCompleted(_usage(data.get("usage")))
        case "turn.failed":
            return TurnFailed(_message(data.get("error")))
        case "error":
            return ErrorReported(_message(data))
        case "item.started" | "item.updated" | "item.completed" if isinstance(data.get("item"), dict):
            return ItemEvent(_PHASES[kind], _item(data["item"]))
        case _:
            return UnknownEvent(kind, data)


def _item(data: dict[str, Any]) -> CodexItem:
    id, kind = _text(data.get("id")), _text(data.get("type"))
    match kind:
        case "agent_message":
            return AgentMessage(id, _text(data.get("text")))
        case "reasoning":
            return Reasoning(id, _text(data.get("text")))
        case "command_execution":
            return CommandExecution(
                id,
                _text(data.get("command")),
                _text(data.get("aggregated_output")),
                _integer(data.get("exit_code")),
                _text(data.get("status")),
            )
        case "file_change":
            changes = (PathChange(_text(c.get("path")), _text(c.get("kind"))) for c in _objects(data.get("changes")))
            return FileChange(id, tuple(changes), _text(data.get("status")))
        case "mcp_tool_call":
            return McpToolCall(
                id,
                _text(data.get("server")),
                _text(data.get("tool")),
                data.get("arguments"),
                data.get("result"),
                _message(data.get("error")),
                _text(data.get("status")),
            )
        case "web_search":
            return WebSearch(id, _text(data.get("query")))
        case "todo_list":
            entries = (TodoEntry(_text(e.get("text")), e.get("completed") is True) for e in _objects(data.get("items")))
            return TodoList(id, tuple(entries))
        case "error":
            return ErrorItem(id, _message(data))
        case _:
            return UnknownItem(id, kind, data)


def _usage(data: Any) -> TokenUsage:
    counts = data if isinstance(data, dict) else {}
    given, produced = _count(counts.get("input_tokens")), _count(counts.get("output_tokens"))
    return TokenUsage(
        input_tokens=given,
        cached_input_tokens=_count(counts.get("cached_input_tokens")),
        output_tokens=produced,
        reasoning_tokens=_count(counts.get("reasoning_output_tokens")),
        total_tokens=given + produced,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _message(value: Any) -> str:
    """The text of an error: `{"message": text}`, or the text itself."""
    return _text(value.get("message")) if isinstance(value, dict) else _text(value)


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: Any) -> int:
    return min(max(_integer(value) or 0, 0), MAX_COUNT)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
