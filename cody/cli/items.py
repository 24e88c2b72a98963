"""What an item of the agent's answer says, read leniently: any field may be anything, since the agent wrote it. Pure.

Shape: items of the OpenAI Responses API as Cody's agents write them. Calls of the shell are named exec_command and have
`cmd`; their outputs carry `exit_code` beside the API's own fields; a plan is a call of update_plan.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from cody.cli.amounts import moment

ItemKind = Literal["message", "reasoning", "command", "patch", "tool", "plan", "output", "other"]
SHELL_TOOLS = frozenset({"exec_command", "shell", "local_shell", "Bash"})


@dataclass(frozen=True, slots=True)
class Item:
    """`text` is the message, the command, the call or its output; not yet safe to print."""

    kind: ItemKind
    text: str
    at_s: float
    """When it was reported, in seconds since 1970."""
    call_id: str = ""
    exit_code: int | None = None
    completed: bool = True
    plan: tuple[tuple[str, bool], ...] = ()
    """(step, done)."""


def read_item(item: Mapping[str, JsonValue], ts: str) -> Item:
    """The item as far as it is understood; never raises."""
    at = moment(ts)
    at_s = at.timestamp() if at else 0.0
    match item.get("type"):
        case "message":
            return Item("message", _texts(item.get("content")), at_s)
        case "reasoning":
            return Item("reasoning", _titled(_texts(item.get("summary")) or _texts(item.get("content"))), at_s)
        case "function_call" | "custom_tool_call":
            return _call(item, at_s)
        case "function_call_output" | "custom_tool_call_output":
            return _output(item, at_s)
        case kind:
            return Item("other", str(kind), at_s)


def _call(item: Mapping[str, JsonValue], at_s: float) -> Item:
    name = _text(item.get("name")) or "a tool"
    call_id = _text(item.get("call_id"))
    arguments = _arguments(item)
    if name in SHELL_TOOLS:
        command = arguments.get("cmd", arguments.get("command"))
        return Item("command", shell_script(_command(command)), at_s, call_id)
    if name == "update_plan":
        steps = arguments.get("plan")
        return Item("plan", name, at_s, call_id, plan=tuple(_steps(steps if isinstance(steps, list) else [])))
    changes = arguments.get("changes")
    if name == "apply_patch" and isinstance(changes, list):
        paths = [_text(change.get("path")) for change in changes if isinstance(change, dict)]
        return Item("patch", ", ".join(paths), at_s, call_id)
    details = " ".join(f"{key}={_inline(value)}" for key, value in arguments.items())
    return Item("tool", f"{name} {details}".rstrip(), at_s, call_id)


def _output(item: Mapping[str, JsonValue], at_s: float) -> Item:
    exit_code = item.get("exit_code")
    return Item(
        "output",
        _text(item.get("output")) or _texts(item.get("output")),
        at_s,
        _text(item.get("call_id")),
        exit_code=exit_code if isinstance(exit_code, int) else None,
        completed=item.get("status") != "incomplete",
    )


def _titled(text: str) -> str:
    """Reasoning begins with a title in bold, as Markdown has it: `**Reading the code** The tests ...`."""
    return re.sub(r"^\s*\*\*(.+?)\*\*\s*", r"\1: ", text, count=1).removesuffix(": ")


def shell_script(command: str) -> str:
    """The script of `/bin/bash -lc 'SCRIPT'`, as codex wraps what the model asked for; else `command` as it is."""
    shell, _, rest = command.partition(" ")
    flag, _, quoted = rest.partition(" ")
    if not shell.endswith("sh") or flag not in {"-c", "-lc"}:
        return command
    try:
        words = shlex.split(quoted)
    except ValueError:
        return command
    return words[0] if len(words) == 1 else command


def _arguments(item: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    given = item.get("arguments", item.get("input"))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return {"input": given}
    return given if isinstance(given, dict) else {}


def _command(value: JsonValue) -> str:
    if isinstance(value, list):
        return shlex.join(str(part) for part in value)
    return _text(value)


def _steps(entries: Sequence[JsonValue]) -> list[tuple[str, bool]]:
    known = [entry for entry in entries if isinstance(entry, dict)]
    return [(_text(entry.get("step")), entry.get("status") == "completed") for entry in known]


def _texts(value: JsonValue) -> str:
    """The texts of a list of content parts."""
    parts = value if isinstance(value, list) else []
    return "\n".join(_text(part.get("text")) for part in parts if isinstance(part, dict))


def _inline(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""
