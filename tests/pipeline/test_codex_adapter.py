"""A turn of `codex exec --json`, read from recordings of the real program, as a Response."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.responses import ErrorItem, FunctionCall, FunctionCallOutput, Message, Response, Usage
from cody.contracts.stream_events import ItemDone, ItemStart, Payload
from cody.pipeline.adapters.codex import CodexAdapter
from cody.pipeline.adapters.codex_items import OUTPUT_END_BYTES
from tests.pipeline.answering import reduced, translated, types
from tests.pipeline.events import START

RECORDINGS = Path(__file__).resolve().parents[1] / "fixtures" / "codex"


def lines(name: str) -> list[bytes]:
    return (RECORDINGS / f"{name}.jsonl").read_bytes().splitlines(keepends=True)


def payloads(*events: dict[str, Any]) -> list[Payload]:
    return translated(CodexAdapter(START), [json.dumps(event).encode() for event in events])


def recorded(name: str) -> Response:
    return reduced(translated(CodexAdapter(START), lines(name)))


def done(**item: Any) -> dict[str, Any]:
    return {"type": "item.completed", "item": {"id": "item_0", **item}}


COMPLETED = {"type": "turn.completed", "usage": {"input_tokens": 10, "output_tokens": 2}}


def test_a_rich_turn() -> None:
    response = recorded("rich_turn")
    assert types(response) == [
        "reasoning",
        "message",
        *("function_call", "function_call_output") * 4,
        "message",
    ]
    assert (response.status, response.finish_reason) == ("complete", "stop")
    assert response.usage == Usage(prompt_tokens=4700, completion_tokens=150, total_tokens=4850)
    items = {item.id: item for item in response.output_items}
    assert items["item_3"] == FunctionCall(
        id="item_3",
        name="exec_command",
        arguments='{"cmd":"/bin/bash -lc \'echo failing; exit 3\'"}',
        call_id="item_3",
    )
    assert items["item_3_output"] == FunctionCallOutput(
        id="item_3_output", origin="system", call_id="item_3", output="failing\n", success=False
    )
    patch, patched = items["item_5"], items["item_5_output"]
    assert isinstance(patch, FunctionCall)
    assert patch.name == "apply_patch"
    assert json.loads(patch.arguments)["changes"][1] == {"path": "/workspace/b.txt", "kind": "delete"}
    assert isinstance(patched, FunctionCallOutput)
    assert (patched.success, patched.output) == (
        True,
        "M /workspace/a.txt\nD /workspace/b.txt\nA /workspace/sub/c.txt\n",
    )
    assert items["item_6"] == Message(id="item_6", content="All done. Final answer.")


def test_a_call_is_seen_while_it_runs() -> None:
    adapter = CodexAdapter(START)
    told = [payload for line in lines("killed_by_sigterm") for payload in adapter.feed(line)]
    assert told[-1] == ItemStart(
        item_id="item_0",
        item_type="function_call",
        name="exec_command",
        arguments='{"cmd":"/bin/bash -lc \'sleep 7301\'"}',
    )


def test_a_killed_turn_ends_in_an_error() -> None:
    response = recorded("killed_by_sigterm")
    assert response.status == "error"
    assert response.error is not None
    assert response.error.code == "stream_dropped"
    assert types(response) == ["function_call"]


@pytest.mark.parametrize("name", ["error_401", "error_429_usage_limit", "error_500", "error_drop_after_item"])
def test_a_failed_turn_says_why(name: str) -> None:
    response = recorded(name)
    failed = json.loads(lines(name)[-1])
    assert response.status == "error"
    assert response.error is not None
    assert (response.error.code, response.error.message) == ("agent_failed", failed["error"]["message"])


@pytest.mark.parametrize("name", ["retry_429_then_ok", "retry_drop_then_ok"])
def test_an_error_that_was_overcome_is_an_item(name: str) -> None:
    response = recorded(name)
    assert response.status == "complete"
    assert types(response) == ["error"] * (len(lines(name)) - 4) + ["message"]
    assert isinstance(response.output_items[0], ErrorItem)
    assert response.output_items[0].message.startswith("Reconnecting...")


def test_a_warning_is_an_item() -> None:
    warning, answer = recorded("unknown_model_warning").output_items
    assert isinstance(warning, ErrorItem)
    assert warning.code == "agent_warning"
    assert answer == Message(id="item_1", content="fine")


def test_a_call_of_an_mcp_tool() -> None:
    call, output, _ = recorded("mcp_tool_call").output_items
    assert call == FunctionCall(id="item_0", name="mcp__mini__add", arguments='{"a":1,"b":2}', call_id="item_0")
    assert output == FunctionCallOutput(id="item_0_output", origin="system", call_id="item_0", output="3", success=True)


def test_each_state_of_the_plan_is_a_call() -> None:
    response = recorded("todo_list")
    plans = [json.loads(item.arguments)["plan"] for item in response.output_items if isinstance(item, FunctionCall)]
    assert [[step["status"] for step in plan] for plan in plans] == [["pending", "pending"], ["completed", "pending"]]
    assert len({item.id for item in response.output_items}) == len(response.output_items)


def test_a_large_output_is_cut_and_says_so() -> None:
    text = "head" + "x" * 10**6 + "tail"
    item = done(type="command_execution", command="c", aggregated_output=text, exit_code=0, status="completed")
    output = reduced(payloads(item, COMPLETED)).output_items[1]
    assert isinstance(output, FunctionCallOutput)
    assert output.output.startswith("head")
    assert output.output.endswith("tail")
    assert f"... {len(text) - 2 * OUTPUT_END_BYTES} bytes omitted ..." in output.output
    assert len(output.output) < 2 * OUTPUT_END_BYTES + 100


def test_a_command_that_outlives_the_turn_has_an_output_that_failed() -> None:
    started = {"type": "item.started", "item": {"id": "item_0", "type": "command_execution", "command": "sleep 9"}}
    response = reduced(payloads(started, COMPLETED))
    assert response.status == "complete"
    assert response.output_items[1] == FunctionCallOutput(
        id="item_0_output", origin="system", call_id="item_0", output="", success=False
    )


def test_a_web_search_shows_what_it_searched_for_in_the_end() -> None:
    started = {"type": "item.started", "item": {"id": "item_0", "type": "web_search", "query": ""}}
    told = payloads(started, done(type="web_search", query="valkey streams"), COMPLETED)
    call = next(payload.final_item for payload in told if isinstance(payload, ItemDone))
    assert call == FunctionCall(
        id="item_0", name="web_search", arguments='{"query":"valkey streams"}', call_id="item_0"
    )


def test_usage_of_a_resumed_thread_is_that_of_the_turn() -> None:
    first = CodexAdapter(START)
    assert reduced(translated(first, lines("resume_first_turn"))).usage == Usage(
        prompt_tokens=300, completion_tokens=12, total_tokens=312
    )
    second = CodexAdapter(START, thread_usage=first.thread_usage)
    usage = reduced(translated(second, lines("resume_second_turn"))).usage
    said = json.loads(lines("resume_second_turn")[-1])["usage"]
    assert usage is not None
    assert usage.prompt_tokens == said["input_tokens"] - 300
    assert usage.completion_tokens == said["output_tokens"] - 12


def test_usage_below_that_of_the_thread_is_of_a_new_one() -> None:
    before = Usage(prompt_tokens=1000, completion_tokens=50, total_tokens=1050)
    adapter = CodexAdapter(START, thread_usage=before)
    usage = reduced(translated(adapter, [json.dumps(COMPLETED).encode()])).usage
    assert usage == Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDINGS.glob("*.jsonl")))
def test_every_recording_ends(name: str) -> None:
    response = recorded(name)
    assert response.status == ("complete" if b'"turn.completed"' in b"".join(lines(name)) else "error")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"Reading prompt from stdin...",
        b'{"type":"item.completed","item":{"id":"item_0","type":"agent_mess',
        b"[" * 3000,
        b'{"a":' * 3000,
        b"null",
        b'{"type":7}',
        b'{"type":"item.completed"}',
        b'{"type":"item.completed","item":[]}',
        b'{"type":"item.completed","item":{"id":"x","type":"hologram"}}',
        b'{"type":"thread.forked"}',
        b"\xff\xfe",
    ],
)
def test_a_line_that_says_nothing_changes_nothing(line: bytes) -> None:
    adapter = CodexAdapter(START)
    assert adapter.start() == [START]
    assert adapter.feed(line) == []


def test_nothing_comes_after_the_end() -> None:
    adapter = CodexAdapter(START)
    translated(adapter, lines("resume_first_turn"))
    assert adapter.ended
    assert adapter.feed(json.dumps(done(type="agent_message", text="late")).encode()) == []
    assert adapter.end() == []


KNOWN = st.sampled_from(
    (
        "agent_message",
        "reasoning",
        "command_execution",
        "file_change",
        "mcp_tool_call",
        "web_search",
        "todo_list",
        "error",
    )
)
FIELDS = (
    "id text command aggregated_output exit_code status changes items message server tool arguments result error query"
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("path", "text", "message", "content")), inner)
    ),
    max_leaves=5,
)
ITEMS = st.fixed_dictionaries({"type": KNOWN}, optional=dict.fromkeys(FIELDS.split(), ANYTHING))
TYPES = st.sampled_from(
    ("item.started", "item.updated", "item.completed", "error", "turn.completed", "turn.failed", "turn.started")
)
EVENTS = st.fixed_dictionaries(
    {"type": TYPES},
    optional={"item": ITEMS | ANYTHING, "message": ANYTHING, "error": ANYTHING, "usage": ANYTHING},
)


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=8))
def test_no_line_raises_and_the_answer_always_ends(events: list[dict[str, Any]]) -> None:
    reduced(payloads(*events))
