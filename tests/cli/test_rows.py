"""What the view says about each event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cody.cli.rows import Row, Seen, call_in_progress, rows
from cody.contracts.run_events import RunEvent, read_event

RUN = "00000000-0000-4000-8000-000000000000"


def event(type: str, *, at_s: float = 0.0, **fields: Any) -> RunEvent:
    ts = f"2026-01-31T09:00:{at_s:06.3f}Z"
    return read_event({"type": type, "ts": ts, "runId": RUN, "seq": 1, "turn": 2, **fields})


def call(name: str, arguments: object, *, at_s: float = 0.0) -> RunEvent:
    item = {"type": "function_call", "call_id": "c1", "name": name, "arguments": json.dumps(arguments)}
    return event("turn_item", at_s=at_s, item=item)


def output(text: str, *, at_s: float = 0.0, **fields: Any) -> RunEvent:
    return event(
        "turn_item", at_s=at_s, item={"type": "function_call_output", "call_id": "c1", "output": text, **fields}
    )


def shown(found: list[Row]) -> list[str]:
    return [f"{row.mark} {row.text.plain}".strip() for row in found]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (event("run_queued", epicId="e"), f"· run {RUN} is queued, epic e"),
        (event("run_paused", reason="rate_limit"), "‖ paused (rate_limit)"),
        (event("run_completed", source="stop_file"), "✔ run completed by the stop file"),
        (
            event("run_failed", error={"code": "rate_limit", "message": "429", "retryable": True}),
            "✘ run failed: rate_limit: 429 (trying again may help)",
        ),
        (
            event(
                "turn_completed",
                tokenUsage={"inputTokens": 12_345, "cachedInputTokens": 900, "outputTokens": 20, "totalTokens": 12_365},
                durationMs=61_000,
                exitCode=0,
            ),
            "✔ turn 2 completed in 1 m 01 s · 12.3k tokens in (900 cached), 20 out",
        ),
        (
            event("turn_failed", exitCode=1, durationMs=100, error={"code": "agent_failed", "message": "exit 1"}),
            "✘ turn 2 failed after 0.1 s: agent_failed: exit 1",
        ),
        (
            event("output_dropped", stream="stdout", bytes=2048, logOffset=5),
            f"… 2.0 KiB of stdout not shown: cody logs {RUN} --turn 2",
        ),
        (event("test_run_started", command="pytest"), "▷ tests: pytest"),
        (
            event("test_run_completed", passed=6, failed=0, durationMs=1200, framework="pytest"),
            "✔ tests: 6 passed in 1.2 s (pytest)",
        ),
        (event("test_run_completed", passed=6, failed=1, skipped=2), "✘ tests: 6 passed, 1 failed, 2 skipped"),
        (event("warning", code="slow", message="the disk"), "! slow: the disk"),
        (event("custom", name="my.event", data={"a": 1}), '· my.event {"a":1}'),
    ],
)
def test_one_sentence(given: RunEvent, text: str) -> None:
    assert shown(rows(given, Seen())) == [text]


def test_a_command_and_how_it_ended() -> None:
    seen = Seen()
    begun = call("exec_command", {"cmd": "/bin/bash -lc 'pytest -q'"})
    assert shown(rows(begun, seen)) == ["$ pytest -q"]
    assert call_in_progress(seen) == "pytest -q"
    ended = output("..\n2 passed\n", at_s=3.5, exit_code=0, status="completed")
    assert shown(rows(ended, seen)) == ["└ exit 0 after 3.5 s"]
    assert call_in_progress(seen) is None


def test_a_command_that_fails_shows_the_end_of_its_output() -> None:
    seen = Seen()
    rows(call("exec_command", {"cmd": "make"}), seen)
    found = shown(rows(output("".join(f"line {n}\n" for n in range(50)), exit_code=2), seen))
    assert found[0] == "└ exit 2 after 0.0 s"
    assert found[-1] == "┊ line 49"
    assert len(found) < 15


def test_a_patch_is_told_by_its_files_unless_it_fails() -> None:
    patch = call("apply_patch", {"changes": [{"path": "a.py", "kind": "update"}]})
    seen = Seen()
    assert rows(patch, seen) == []
    assert rows(output("M a.py", status="completed"), seen) == []
    rows(patch, seen)
    assert shown(rows(output("no such line", status="incomplete"), seen))[0].startswith(
        "└ the patch was not applied: a.py"
    )


def test_a_file_that_both_agent_and_watcher_report_is_shown_once_a_turn() -> None:
    seen = Seen()
    assert shown(rows(event("file_written", path="a.py", source="agent"), seen)) == ["+ a.py"]
    assert rows(event("file_written", path="a.py", source="watch"), seen) == []
    assert shown(rows(event("file_deleted", path="a.py", source="watch"), seen)) == ["- a.py"]
    rows(event("turn_started", pid=1, responseId="r"), seen)
    assert shown(rows(event("file_written", path="a.py", source="watch"), seen)) == ["+ a.py"]


def test_the_log_is_shown_as_it_grows() -> None:
    grown = event("log_updated", log="codys-log.md", path="e/codys-log.md", appendedBytes=20, tail="## Turn\n- done\n")
    assert shown(rows(grown, Seen())) == ["≡ e/codys-log.md grew by 20 B", "┊ ## Turn", "┊ - done"]


def test_each_line_of_output_is_a_row_and_none_is_obeyed() -> None:
    found = rows(event("subprocess_output", stream="stderr", text="\x1b[2Jone\n[bold]two[/bold]\n"), Seen())
    assert shown(found) == ["┆ ␛[2Jone", "┆ [bold]two[/bold]"]


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"type": None},
        {"type": "message", "content": "text"},
        {"type": "message", "content": [None, {"text": 1}]},
        {"type": "function_call", "name": 1, "arguments": "{" * 100_000},
        {"type": "function_call", "name": "exec_command", "arguments": "[1]"},
        {"type": "function_call", "name": "exec_command", "arguments": '{"cmd": ["a", 1]}'},
        {"type": "function_call", "name": "update_plan", "arguments": '{"plan": [1, {"step": 2}]}'},
        {"type": "function_call", "name": "apply_patch", "arguments": '{"changes": [1, {}]}'},
        {"type": "function_call_output", "output": {"a": 1}, "exit_code": "x"},
        {"type": "\x1b[2J"},
    ],
)
def test_an_item_of_any_shape_is_survived(item: dict[str, Any]) -> None:
    for row in rows(event("turn_item", item=item), Seen()):
        assert "\x1b" not in row.text.plain


def test_calls_that_are_never_answered_take_no_more_memory() -> None:
    seen = Seen()
    for number in range(1000):
        item = {"type": "function_call", "call_id": str(number), "name": "exec_command", "arguments": '{"cmd": "x"}'}
        rows(event("turn_item", item=item), seen)
    assert len(seen.calls) < 500
