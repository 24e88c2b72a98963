"""Lines of codex, as they were recorded and as they never should be, to run events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.run import TokenUsage
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import (
    Custom,
    FileDeleted,
    FileRead,
    FileWritten,
    TestRunCompleted,
    TestRunStarted,
    TokenUsageReported,
    TurnItem,
    WarningRaised,
    payload_json,
)
from harness.agents.base import AgentExit, Body, Reading, TurnOutcome, TurnRequest
from harness.agents.codex_events import ItemEvent, ThreadStarted, UnknownEvent, UnknownItem, Unreadable, parse
from harness.agents.codex_items import OUTPUT_END_BYTES, cap, shell_script
from harness.agents.codex_reader import CodexReader

RECORDINGS = Path(__file__).parent.parent / "fixtures" / "codex"
INDEX: dict[str, dict[str, int]] = json.loads((RECORDINGS / "index.json").read_text())
JSON_RUNS = sorted(name for name in INDEX if name != "rich_turn_human_mode")
SENTINEL = '{"__cody_event__":{"type":"test_run_completed","passed":3,"failed":1}}'


def reader(
    *, thread: str | None = None, used: TokenUsage | None = None, roots: tuple[str, ...] = ("/workspace",)
) -> CodexReader:
    request = TurnRequest(
        run_id="run",
        turn=1,
        config=RunConfig(working_dir="/workspace"),
        prompt=Path("/prompt"),
        base_env={},
        resume_thread=thread,
        resume_usage=used,
    )
    return CodexReader(request, roots=roots)


def exit_of(code: int) -> AgentExit:
    return AgentExit(exit_code=None, signal=-code) if code < 0 else AgentExit(exit_code=code, signal=None)


def lines_of(name: str, kind: str = "jsonl") -> list[bytes]:
    path = RECORDINGS / f"{name}.{kind}"
    return path.read_bytes().splitlines() if path.exists() else []


def play(name: str, subject: CodexReader | None = None) -> tuple[list[Body], TurnOutcome]:
    """The events of a recorded run and its verdict."""
    subject = subject or reader()
    events = told(subject, lines_of(name))
    for line in lines_of(name, "stderr"):
        events += subject.stderr_line(line).events
    return events, subject.outcome(exit_of(INDEX[name]["exit"]))


def told(subject: CodexReader, lines: Iterable[bytes | dict[str, Any]]) -> list[Body]:
    events: list[Body] = []
    for line in lines:
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        events += subject.stdout_line(data).events
    return events


def items_in(events: Iterable[Body]) -> list[dict[str, Any]]:
    return [dict(event.item) for event in events if isinstance(event, TurnItem)]


def completed(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "item.completed", "item": item}


def ran(command: str, output: str, *, id: str = "item_0", code: int = 0) -> dict[str, Any]:
    status = "completed" if code == 0 else "failed"
    return completed(
        {
            "id": id,
            "type": "command_execution",
            "command": command,
            "aggregated_output": output,
            "exit_code": code,
            "status": status,
        }
    )


@pytest.mark.parametrize("name", JSON_RUNS)
def test_every_recorded_line_is_understood(name: str) -> None:
    for line in lines_of(name):
        event = parse(line)
        assert event is not None
        assert not isinstance(event, UnknownEvent | Unreadable)
        assert not (isinstance(event, ItemEvent) and isinstance(event.item, UnknownItem))


@pytest.mark.parametrize(
    ("name", "code", "retryable"),
    [
        ("rich_turn", None, False),
        ("rich_turn_workspace_write", None, False),
        ("todo_list", None, False),
        ("mcp_tool_call", None, False),
        ("retry_429_then_ok", None, False),
        ("retry_drop_then_ok", None, False),
        ("unknown_model_warning", None, False),
        ("resume_first_turn", None, False),
        ("large_command_output", None, False),
        ("long_command_polled", None, False),
        ("error_401", "agent_auth", False),
        ("error_429_usage_limit", "agent_rate_limited", True),
        ("error_500", "agent_provider_error", True),
        ("error_drop_after_item", "agent_stream_dropped", True),
        ("not_a_git_repo", "agent_usage_error", False),
        ("killed_by_sigterm", "agent_killed", True),
    ],
)
def test_recorded_runs_end_as_they_did(name: str, code: str | None, retryable: bool) -> None:
    _, outcome = play(name)
    assert (outcome.error.code if outcome.error else None) == code
    assert (outcome.error.retryable if outcome.error else False) == retryable


def test_a_rich_turn_becomes_items_files_and_tests_in_order() -> None:
    events, outcome = play("rich_turn")
    kinds = [event.item["type"] if isinstance(event, TurnItem) else event.type for event in events]
    assert kinds == [
        "reasoning",
        "message",
        *("function_call", "function_call_output", "test_run_completed"),
        *("function_call", "function_call_output"),
        *("function_call", "function_call_output", "file_written"),
        *("function_call", "function_call_output", "file_written", "file_deleted", "file_written"),
        "message",
        "token_usage",
    ]
    files = [event for event in events if isinstance(event, FileWritten | FileDeleted)]
    assert files == [
        FileWritten(path="new.txt", source="agent"),
        FileWritten(path="a.txt", source="agent"),
        FileDeleted(path="b.txt", source="agent"),
        FileWritten(path="sub/c.txt", source="agent"),
    ]
    assert [event for event in events if isinstance(event, TestRunCompleted)] == [TestRunCompleted(passed=3, failed=1)]
    assert outcome.last_message == "All done. Final answer."
    assert outcome.usage == TokenUsage(
        input_tokens=4700, cached_input_tokens=3000, output_tokens=150, reasoning_tokens=20, total_tokens=4850
    )
    assert outcome.thread_id == "01a1fabc-f253-7040-b614-2a391686b3b2"
    assert outcome.events == ()


def test_items_have_the_shape_of_the_responses_api() -> None:
    events, _ = play("rich_turn")
    items = items_in(events)
    assert items[0] == {
        "type": "reasoning",
        "id": "item_0",
        "summary": [{"type": "summary_text", "text": "**Looking around**\n\nFirst I look.\n**Second part**\n\nMore."}],
    }
    assert items[1] == {
        "type": "message",
        "id": "item_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "I will run commands.", "annotations": []}],
    }
    assert items[4] == {
        "type": "function_call",
        "id": "item_3",
        "call_id": "item_3",
        "name": "exec_command",
        "arguments": '{"cmd":"/bin/bash -lc \'echo failing; exit 3\'"}',
        "status": "in_progress",
    }
    assert items[5] == {
        "type": "function_call_output",
        "id": "item_3_output",
        "call_id": "item_3",
        "output": "failing\n",
        "status": "completed",
        "exit_code": 3,
        "truncated": False,
    }
    assert json.loads(items[6]["arguments"]) == {"changes": [{"path": "/workspace/new.txt", "kind": "add"}]}
    assert (items[6]["name"], items[7]["output"]) == ("apply_patch", "A /workspace/new.txt\n")


def test_an_mcp_call_is_a_function_call_with_its_text_as_output() -> None:
    events, _ = play("mcp_tool_call")
    opened, closed, _ = items_in(events)
    assert (opened["name"], json.loads(opened["arguments"])) == ("mcp__mini__add", {"a": 1, "b": 2})
    assert (closed["call_id"], closed["output"], closed["status"]) == (opened["call_id"], "3", "completed")


def test_a_failed_mcp_call_says_why() -> None:
    call = {
        "id": "item_0",
        "type": "mcp_tool_call",
        "server": "s",
        "tool": "t",
        "arguments": None,
        "result": None,
        "error": {"message": "no such tool"},
        "status": "failed",
    }
    opened, closed = items_in(told(reader(), [completed(call)]))
    assert opened["arguments"] == "{}"
    assert (closed["output"], closed["status"]) == ("no such tool", "incomplete")


def test_each_state_of_a_plan_is_told_once() -> None:
    events, _ = play("todo_list")
    plans = [item for item in items_in(events) if item.get("name") == "update_plan"]
    assert [json.loads(plan["arguments"])["plan"] for plan in plans] == [
        [{"step": "one", "status": "pending"}, {"step": "two", "status": "pending"}],
        [{"step": "one", "status": "completed"}, {"step": "two", "status": "pending"}],
    ]
    assert len({plan["call_id"] for plan in plans}) == 2
    answered = {item["call_id"] for item in items_in(events) if item["type"] == "function_call_output"}
    assert answered == {plan["call_id"] for plan in plans}


def test_a_web_search_is_a_call_and_its_output() -> None:
    search = {"id": "item_7", "type": "web_search", "query": "redis streams"}
    opened, closed = items_in(told(reader(), [{"type": "item.started", "item": search}, completed(search)]))
    assert (opened["name"], opened["arguments"]) == ("web_search", '{"query":"redis streams"}')
    assert (closed["call_id"], closed["status"]) == ("item_7", "completed")


def test_a_command_that_was_never_seen_to_start_has_its_call_before_its_output() -> None:
    kinds = [item["type"] for item in items_in(told(reader(), [ran("echo hi", "hi\n")]))]
    assert kinds == ["function_call", "function_call_output"]


def test_a_call_that_the_turns_end_cut_off_is_closed_as_incomplete() -> None:
    _, outcome = play("killed_by_sigterm")
    (closed,) = items_in(outcome.events)
    assert (closed["type"], closed["call_id"], closed["status"]) == ("function_call_output", "item_0", "incomplete")
    assert outcome.error is not None
    assert "SIGTERM" in outcome.error.message


def test_retries_are_warnings_and_the_turn_still_completes() -> None:
    events, outcome = play("retry_429_then_ok")
    (warning,) = [event for event in events if isinstance(event, WarningRaised)]
    assert warning.code == "agent_retrying"
    assert "429 Too Many Requests" in warning.message
    assert outcome.error is None


def test_an_error_item_is_a_warning() -> None:
    events, outcome = play("unknown_model_warning")
    assert [event.code for event in events if isinstance(event, WarningRaised)] == ["agent_warning"]
    assert outcome.error is None


def test_the_text_of_a_command_is_never_taken_for_its_output() -> None:
    assert not any(isinstance(event, TestRunCompleted) for event in told(reader(), [ran(f"cat <<< '{SENTINEL}'", "")]))


def test_a_test_summary_in_a_commands_output_is_reported() -> None:
    output = "tests/test_a.py ..F.s\n=========== 1 failed, 3 passed, 1 skipped in 0.12s ===========\n"
    events = told(reader(), [ran("/bin/bash -lc 'pytest -q'", output, code=1)])
    assert TestRunStarted(command="pytest -q") in events
    (tests,) = [event for event in events if isinstance(event, TestRunCompleted)]
    assert (tests.passed, tests.failed, tests.skipped, tests.command) == (3, 1, 1, "pytest -q")


def test_a_reported_test_run_is_not_counted_twice() -> None:
    output = f"=========== 1 failed, 3 passed in 0.12s ===========\n{SENTINEL}\n"
    events = told(reader(), [ran("/bin/bash -lc 'pytest -q'", output)])
    assert [event for event in events if isinstance(event, TestRunCompleted)] == [TestRunCompleted(passed=3, failed=1)]


def test_a_test_run_starts_once_for_a_started_and_completed_command() -> None:
    done = ran("/bin/bash -lc 'pytest -q'", "")
    started = {"type": "item.started", "item": {**done["item"], "exit_code": None, "status": "in_progress"}}
    events = told(reader(), [started, done])
    assert [event for event in events if isinstance(event, TestRunStarted)] == [TestRunStarted(command="pytest -q")]


def test_all_sentinels_of_an_output_are_told_in_order() -> None:
    output = f'{SENTINEL}\nnoise\n{{"__cody_event__":{{"type":"file_read","path":"x"}}}}\n'
    events = told(reader(), [ran("true", output)])
    assert events[-2:] == [TestRunCompleted(passed=3, failed=1), FileRead(path="x", source="sentinel")]


def test_a_failed_patch_changes_no_file() -> None:
    changes = [{"path": "/workspace/a", "kind": "update"}]
    item = {"id": "item_0", "type": "file_change", "changes": changes, "status": "failed"}
    events = told(reader(), [completed(item)])
    assert [item["status"] for item in items_in(events)] == ["in_progress", "incomplete"]
    assert not any(isinstance(event, FileWritten) for event in events)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/workspace/a", "a"),
        ("/workspace/sub/../b", "b"),
        ("/real/workspace/c", "c"),
        ("/workspaces/d", "/workspaces/d"),
        ("/workspace/../etc/passwd", "/etc/passwd"),
        ("relative/e", "relative/e"),
    ],
)
def test_paths_are_relative_to_the_working_dir_when_inside(path: str, expected: str) -> None:
    item = {
        "id": "i",
        "type": "file_change",
        "changes": [{"path": path, "kind": "add"}, {"path": "", "kind": "add"}, {"path": "x", "kind": "chmod"}],
        "status": "completed",
    }
    events = told(reader(roots=("/workspace", "/real/workspace")), [completed(item)])
    assert [event for event in events if isinstance(event, FileWritten)] == [FileWritten(path=expected, source="agent")]


def test_usage_of_a_resumed_thread_is_what_this_turn_added() -> None:
    _, first = play("resume_first_turn")
    assert first.usage.total_tokens == 312
    subject = reader(thread=first.thread_id, used=first.thread_usage)
    events, second = play("resume_second_turn", subject)
    own = TokenUsage(input_tokens=600, cached_input_tokens=500, output_tokens=18, reasoning_tokens=0, total_tokens=618)
    assert second.usage == own
    assert [event for event in events if isinstance(event, TokenUsageReported)] == [
        TokenUsageReported(**own.model_dump())
    ]
    assert second.thread_usage is not None
    assert second.thread_usage.input_tokens == 900


def test_usage_never_falls_below_zero() -> None:
    _, first = play("rich_turn")
    thread = "01a1fac6-f568-7ca1-a08e-45487d5d0347"
    _, outcome = play("resume_after_sigterm", reader(thread=thread, used=first.usage))
    assert outcome.error is None
    assert outcome.usage == TokenUsage()


def test_a_resumed_turn_that_failed_leaves_the_threads_usage_as_it_was() -> None:
    used = TokenUsage(input_tokens=300, output_tokens=12, total_tokens=312)
    _, outcome = play("error_500", reader(thread="01a1fabf-6de8-7b90-b3d2-2c0e4f414623", used=used))
    assert outcome.thread_usage == used
    assert outcome.usage == TokenUsage()


def test_a_new_thread_in_the_place_of_the_resumed_one_fails_the_turn() -> None:
    used = TokenUsage(input_tokens=100_000, output_tokens=1000, total_tokens=101_000)
    events, outcome = play("rich_turn", reader(thread="01a1fac3-9497-7690-9c2a-ec9aa3889d67", used=used))
    assert [event.code for event in events if isinstance(event, WarningRaised)] == ["resume_mismatch"]
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.retryable) == ("resume_mismatch", False)
    assert outcome.usage.total_tokens == 4850, "a new thread counts from zero"
    assert outcome.thread_id == "01a1fabc-f253-7040-b614-2a391686b3b2"


def test_unreadable_lines_are_shown_warned_of_once_and_counted() -> None:
    subject = reader()
    first = subject.stdout_line(b'{"type":"item.completed","item":{"id"')
    second = subject.stdout_line(b'{"type":"turn.completed","usage":{}}', truncated=True)
    assert (first.is_output, second.is_output) == (True, True)
    assert [event.type for event in (*first.events, *second.events)] == ["warning"]
    assert subject.stdout_line(b"cut plain text", truncated=True) == Reading(is_output=True)
    (count,) = subject.outcome(AgentExit(exit_code=0, signal=None)).events
    assert isinstance(count, WarningRaised)
    assert (count.code, "2 lines" in count.message) == ("agent_line_unreadable", True)


def test_plain_lines_are_output_and_sentinels_among_them_are_not() -> None:
    subject = reader()
    for read, is_life in ((subject.stdout_line, True), (subject.stderr_line, False)):
        assert read(b"warming up") == Reading(is_output=True, is_life=is_life)
        assert read(b'{"no":"type"}') == Reading(is_output=True, is_life=is_life)
        assert read(SENTINEL.encode()) == Reading([TestRunCompleted(passed=3, failed=1)], is_life=is_life)


def test_what_is_not_known_is_kept() -> None:
    item = {"id": "item_0", "type": "hologram", "beams": 3}
    events = told(reader(), [{"type": "thread.renamed", "to": "x"}, {"type": "item.updated", "item": item}])
    assert [(event.name, json.loads(str(event.data["json"]))) for event in events if isinstance(event, Custom)] == [
        ("codex.thread.renamed", {"type": "thread.renamed", "to": "x"}),
        ("codex.item.hologram", {"phase": "updated", "item": item}),
    ]


def test_long_output_keeps_both_ends_and_whole_characters() -> None:
    text = "é" * 20_000 + "end"
    (_, closed) = items_in(told(reader(), [ran("true", text)]))
    assert closed["truncated"] is True
    assert closed["output_bytes"] == len(text.encode())
    assert closed["output"].endswith("end")
    kept = closed["output"].encode()
    assert 2 * OUTPUT_END_BYTES - 8 < len(kept) < 2 * OUTPUT_END_BYTES + 64
    assert "\ufffd" not in closed["output"]


def test_long_arguments_stay_json() -> None:
    item = {"id": "i", "type": "mcp_tool_call", "server": "s", "tool": "t", "arguments": {"x": "y" * 200_000}}
    (opened, _) = items_in(told(reader(), [completed(item)]))
    arguments = json.loads(opened["arguments"])
    assert (arguments["truncated"], arguments["bytes"] > 200_000) == (True, True)


@given(st.text(), st.integers(1, 64))
def test_capped_text_is_itself_or_both_its_ends(text: str, end_bytes: int) -> None:
    capped, truncated = cap(text, end_bytes)
    if not truncated:
        assert capped == text
    else:
        head, _, tail = capped.partition("\n... ")
        assert text.startswith(head)
        assert text.endswith(tail.partition(" bytes omitted ...\n")[2])


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("/bin/bash -lc 'pytest -q'", "pytest -q"),
        ('/bin/zsh -lc "echo \\"a\\" && b"', 'echo "a" && b'),
        ("bash -c ls", "ls"),
        ("/bin/bash -lc 'unclosed", "/bin/bash -lc 'unclosed"),
        ("/bin/bash -lc echo two", "/bin/bash -lc echo two"),
        ("pytest -q", "pytest -q"),
    ],
)
def test_the_script_of_a_shell_command(command: str, script: str) -> None:
    assert shell_script(command) == script


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
EVENT_TYPES = ["thread.started", "turn.started", "turn.completed", "turn.failed", "error", "item.started"]
ITEM_TYPES = ["agent_message", "reasoning", "command_execution", "file_change", "mcp_tool_call", "web_search"]
ITEM_FIELDS = ["text", "command", "aggregated_output", "exit_code", "status", "changes", "items", "message", "query"]
MORE_FIELDS = ["server", "tool", "arguments", "result", "error", "path", "kind", "completed"]
ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from([*ITEM_TYPES, "todo_list", "error", "new"]) | JSON, "id": st.just("i") | JSON},
    optional=dict.fromkeys(ITEM_FIELDS + MORE_FIELDS, JSON),
)
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from([*EVENT_TYPES, "item.updated", "item.completed", "new"]) | JSON},
    optional={"item": ITEMS | JSON, "usage": JSON, "error": JSON, "message": JSON, "thread_id": JSON},
)


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS | JSON, max_size=6))
def test_no_json_on_stdout_breaks_the_reader(lines: list[Any]) -> None:
    subject = reader(thread="01a1fac3-9497-7690-9c2a-ec9aa3889d67")
    events: list[Body] = []
    for line in lines:
        events += subject.stdout_line(json.dumps(line).encode()).events
    outcome = subject.outcome(AgentExit(exit_code=0, signal=None))
    for event in (*events, *outcome.events):
        assert payload_json(event)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary() | st.binary().map(lambda tail: b"{" + tail), max_size=6), st.booleans())
def test_no_bytes_break_the_reader(lines: list[bytes], truncated: bool) -> None:
    subject = reader()
    readings = [subject.stdout_line(line, truncated=truncated) for line in lines]
    readings += [subject.stderr_line(line, truncated=truncated) for line in lines]
    for reading in readings:
        assert reading.is_output or reading.events
    assert {field.name for field in fields(subject.outcome(AgentExit(None, None)))} >= {"error", "usage"}


def test_deep_json_is_unreadable_not_fatal() -> None:
    deep = b'{"type":"x","a":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert isinstance(parse(deep), Unreadable)
    nested = b"[" * 500 + b"]" * 500
    call = b'{"type":"item.completed","item":{"type":"mcp_tool_call","id":"i","arguments":%b,"result":%b}}'
    for line in (b'{"type":"x","a":%b}' % nested, call % (nested, nested)):
        events = reader().stdout_line(line).events
        assert events
        assert all(payload_json(event) for event in events)


def test_fields_of_the_wrong_shape_are_empty() -> None:
    assert parse(b'{"type":"thread.started","thread_id":7}') == ThreadStarted("")
    assert isinstance(parse(b'{"type":"item.completed","item":[]}'), UnknownEvent)
    huge = {"input_tokens": 10**18, "output_tokens": -5, "cached_input_tokens": True, "reasoning_output_tokens": "9"}
    subject = reader()
    told(subject, [{"type": "turn.completed", "usage": huge}])
    usage = subject.outcome(AgentExit(0, None)).usage
    assert (usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens) == (0, 0, 0)
    assert 0 < usage.input_tokens < 2**53
