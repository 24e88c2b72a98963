"""Runs, turns and Responses as Markdown for people. Pure.

What agents and models wrote stands in quotes and fences: none of it can pass for a heading of the document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cody.contracts.responses import (
    ErrorItem,
    FunctionCall,
    FunctionCallOutput,
    Message,
    OutputItem,
    Reasoning,
    Response,
    ScriptExecution,
    ScriptExecutionOutput,
)
from cody.contracts.run import RunSnapshot, TurnRecord
from cody.contracts.wire import utc_text

MAX_OUTPUT_CHARS = 4_000
"""Of one command's output; all of it is in the JSONL."""


def run_head(run: RunSnapshot) -> str:
    """The document's beginning."""
    stats = run.stats
    facts = [
        ("Status", f"{run.status}{f' ({run.reason})' if run.reason else ''}"),
        ("Folder", run.working_dir),
        ("Agent", " ".join(word for word in (run.agent, run.config.model) if word)),
        ("Started", run.started_at or "not yet"),
        ("Finished", run.finished_at or "not yet"),
        ("Turns", str(stats.turns)),
        ("Tokens", f"{stats.tokens} ({stats.input_tokens} in, {stats.output_tokens} out)"),
        ("Files written", str(stats.files_written)),
        ("Tests", f"{stats.tests_passed} passed, {stats.tests_failed} failed"),
    ]
    if run.error is not None:
        facts.append(("Error", f"{run.error.code}: {run.error.message}"))
    if run.completion.detected:
        facts.append(("Completed by", " ".join(filter(None, (run.completion.source, run.completion.line)))))
    return f"# Run {run.run_id}: {_inline(run.epic_id)}\n\n{_facts(facts)}\n"


def turn_head(turn: TurnRecord) -> str:
    took = "" if turn.duration_ms is None else f", {turn.duration_ms / 1000:.0f} s"
    head = f"\n## Turn {turn.turn}: {turn.status}{took}\n"
    return head if turn.error is None else f"{head}\n{_quote(f'{turn.error.code}: {turn.error.message}')}\n"


def event(found: Mapping[str, Any]) -> str:
    """What an event of a run tells a reader; empty for the many that are not worth a line."""
    match found:
        case {"type": "turn_item", "item": dict(item)}:
            return _turn_item(item)
        case {"type": "file_written" | "file_deleted" as kind, "path": str(path)}:
            return f"\n- {'wrote' if kind == 'file_written' else 'deleted'} `{_inline(path)}`\n"
        case {"type": "test_run_completed", "passed": passed, "failed": failed}:
            return f"\n- tests: {passed} passed, {failed} failed\n"
        case {"type": "warning", "code": code, "message": message}:
            return f"\n- warning {_inline(str(code))}: {_inline(str(message))}\n"
        case {"type": "run_paused" | "run_resumed" | "run_cancelled" | "run_failed" | "run_recovered" as kind}:
            return f"\n- {kind.replace('_', ' ')} at {found.get('ts', '?')}\n"
        case _:
            return ""


def thread_head(thread_id: str) -> str:
    return f"# Thread {_inline(thread_id)}\n"


def response(answer: Response) -> str:
    """One turn of a thread."""
    facts = [
        ("Model", f"{answer.model_id} ({answer.provider_id})"),
        ("Status", " ".join(filter(None, (answer.status, answer.finish_reason and f"({answer.finish_reason})")))),
        ("Begun", utc_text(answer.created_at)),
    ]
    if answer.usage is not None:
        usage = answer.usage
        facts.append(("Tokens", f"{usage.total_tokens} ({usage.prompt_tokens} in, {usage.completion_tokens} out)"))
    if answer.error is not None:
        facts.append(("Error", f"{answer.error.code}: {answer.error.message}"))
    items = "".join(_item(item) for item in answer.output_items)
    return f"\n## Response {_inline(answer.id)}\n\n{_facts(facts)}\n{items}"


def _item(item: OutputItem) -> str:
    match item:
        case Message(origin=origin, content=text):
            return _part({"user": "User", "system": "System"}.get(origin, "Agent"), _quote(text))
        case Reasoning(content=text):
            return _part("Reasoning", _quote(text))
        case FunctionCall(name=name, arguments=arguments):
            return _part(f"Call of `{_inline(name)}`", _fence(arguments))
        case FunctionCallOutput(output=output, success=success):
            return _part("Output" if success else "Output (failed)", _fence(output))
        case ScriptExecution(code=code):
            return _part("Script", _fence(code))
        case ScriptExecutionOutput(result=result, success=success):
            return _part("Result" if success else "Result (failed)", _fence(result))
        case ErrorItem(code=code, message=text):
            return _part("Error", _quote(f"{code}: {text}"))


def _turn_item(item: Mapping[str, Any]) -> str:
    """An item in the shape of OpenAI's Responses API, as agents' adapters make it; anything else is shown as JSON."""
    match item:
        case {"type": "message", "content": list(parts)}:
            text = "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)
            return _part("User" if item.get("role") == "user" else "Agent", _quote(text))
        case {"type": "reasoning"}:
            parts = [*(item.get("summary") or []), *(item.get("content") or [])]
            text = "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)
            return _part("Reasoning", _quote(text)) if text else ""
        case {"type": "function_call", "name": str(name), "arguments": str(arguments)}:
            return _part(f"Call of `{_inline(name)}`", _fence(_command(arguments)))
        case {"type": "function_call_output", "output": str(output)}:
            return _part("Output", _fence(output))
        case _:
            return _part("Item", _fence(json.dumps(item, ensure_ascii=False, indent=2)))


def _command(arguments: str) -> str:
    """The command that is called, where it is one; else the arguments as they are."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    command = found.get("cmd", found.get("command")) if isinstance(found, dict) else None
    return command if isinstance(command, str) else arguments


def _part(title: str, body: str) -> str:
    return f"\n**{title}**\n\n{body}\n"


def _facts(facts: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {_inline(value)}" for name, value in facts)


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip("\n").splitlines()) or ">"


def _fence(text: str) -> str:
    """A block that the text can't end: its fence is longer than any run of backticks in it."""
    if len(text) > MAX_OUTPUT_CHARS:
        half = MAX_OUTPUT_CHARS // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    marks = "`" * max(3, longest + 1)
    newline = "" if text.endswith("\n") else "\n"
    return f"{marks}\n{text}{newline}{marks}"


def _inline(text: str) -> str:
    """On one line, and without what would end a code span."""
    return " ".join(text.split()).replace("`", "'")
