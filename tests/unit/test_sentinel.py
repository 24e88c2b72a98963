"""Events that an agent prints: what is taken, what is kept without meaning, what stays plain output."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.contracts.run_events import (
    Custom,
    FileDeleted,
    FileRead,
    FileWritten,
    RunEventBody,
    TestRunCompleted,
    TestRunStarted,
    TokenUsageReported,
    WarningRaised,
)
from harness.output import LineSplitter
from harness.sentinel import MAX_CUSTOM_BYTES, find_in_text, parse

USAGE = '{"__cody_event__": {"type": "token_usage", "inputTokens": 10}}'
USED_10 = TokenUsageReported(input_tokens=10, total_tokens=10)
MAY_COME_OF_IT = (
    TokenUsageReported,
    TestRunStarted,
    TestRunCompleted,
    FileWritten,
    FileRead,
    FileDeleted,
    WarningRaised,
    Custom,
)
"""All that a line may become: nothing here starts, ends, pauses or completes anything."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def line(payload: Any) -> bytes:
    return json.dumps({"__cody_event__": payload}).encode()


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"type": "token_usage", "inputTokens": 10}, USED_10),
        (
            {"type": "token_usage", "inputTokens": 5, "cachedInputTokens": 4, "outputTokens": 3, "reasoningTokens": 2},
            TokenUsageReported(
                input_tokens=5, cached_input_tokens=4, output_tokens=3, reasoning_tokens=2, total_tokens=8
            ),
        ),
        (
            {"type": "token_usage", "inputTokens": 5, "outputTokens": 3, "totalTokens": 11},
            TokenUsageReported(input_tokens=5, output_tokens=3, total_tokens=11),
        ),
        ({"type": "token_usage", "totalTokens": 2.0}, TokenUsageReported(total_tokens=2)),
        ({"type": "test_run_started", "command": "pytest -q"}, TestRunStarted(command="pytest -q")),
        ({"type": "test_run_completed", "passed": 3, "failed": 1}, TestRunCompleted(passed=3, failed=1)),
        (
            {"type": "test_run_completed", "passed": 3, "failed": 0, "skipped": 2, "durationMs": 40, "framework": "x"},
            TestRunCompleted(passed=3, failed=0, skipped=2, duration_ms=40, framework="x"),
        ),
        ({"type": "file_written", "path": "a/b.py"}, FileWritten(path="a/b.py")),
        ({"type": "file_read", "path": "a/b.py"}, FileRead(path="a/b.py")),
        ({"type": "file_deleted", "path": "a/b.py"}, FileDeleted(path="a/b.py")),
        (
            {"type": "warning", "code": "disk", "message": "nearly full"},
            WarningRaised(code="disk", message="nearly full"),
        ),
        ({"type": "file_written", "path": "a", "lines": 4, "by": {"who": "x"}}, FileWritten(path="a")),
    ],
)
def test_a_known_type_becomes_its_event(payload: dict[str, Any], event: RunEventBody) -> None:
    assert parse(line(payload)) == event


def test_a_payload_cannot_choose_its_turn_or_its_source() -> None:
    event = parse(line({"type": "file_written", "path": "a", "source": "agent", "turn": 7, "runId": "r", "seq": 1}))
    assert event == FileWritten(path="a", source="sentinel", turn=None)


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "token_usage"},
        {"type": "token_usage", "usage": {"input": 3}},
        {"type": "token_usage", "inputTokens": "10"},
        {"type": "token_usage", "inputTokens": -1},
        {"type": "token_usage", "inputTokens": True},
        {"type": "token_usage", "inputTokens": 2.5},
        {"type": "token_usage", "inputTokens": None},
        {"type": "token_usage", "inputTokens": 10**13},
        {"type": "test_run_completed", "passed": 3},
        {"type": "test_run_completed", "passed": 3, "failed": 1, "durationMs": "40"},
        {"type": "test_run_started"},
        {"type": "test_run_started", "command": ["pytest"]},
        {"type": "file_written"},
        {"type": "file_written", "path": ""},
        {"type": "file_written", "path": 3},
        {"type": "file_written", "path": "a\x00b"},
        {"type": "file_read", "path": "x" * 4097},
        {"type": "warning", "message": "no code"},
        {"type": 3},
        {"type": ""},
        {"type": "x" * 257},
        {"type": ["token_usage"]},
        {"inputTokens": 3},
        {"type": "note", "text": "x" * MAX_CUSTOM_BYTES},
        [],
        "token_usage",
        None,
        3,
    ],
)
def test_a_malformed_sentinel_stays_plain_output(payload: Any) -> None:
    assert parse(line(payload)) is None
    assert find_in_text(line(payload).decode()) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"hello",
        b"[" + USAGE.encode() + b"]",
        b'{"event": "__cody_event__"}',
        b'{"a": ' + USAGE.encode() + b"}",
        USAGE.encode()[:-1],
        USAGE.encode() + b"x",
        b'{"__cody_event__": {"type": "note", "n": NaN}}',
        b'{"__cody_event__": {"type": "note", "n": 1e999}}',
        b'{"__cody_event__": {"type": "note", "s": "\\ud800"}}',
        b'{"__cody_event__": {"type": "note", "s": "\xff"}}',
        b'{"__cody_event__": {"type": "note", "d": ' + b"[" * 40 + b"]" * 40 + b"}}",
        b'{"__cody_event__": {"type": "note", "d": ' + b"[" * 9000 + b"]" * 9000 + b"}}",
        b'{"__cody_event__": {"type": "note"}, "pad": "' + b"x" * 70_000 + b'"}',
    ],
)
def test_what_is_no_sentinel_line_is_none(text: bytes) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "kind",
    [
        "run_completed",
        "run_cancelled",
        "completion_detected",
        "turn_completed",
        "subprocess_output",
        "custom",
        "my.step",
    ],
)
def test_a_type_without_a_meaning_is_kept_and_has_no_power(kind: str) -> None:
    event = parse(line({"type": kind, "source": "stop_file", "deep": {"a": [1, None]}}))
    assert event == Custom(name=kind, data={"source": "stop_file", "deep": {"a": [1, None]}})


@given(
    kind=st.text(max_size=12) | st.sampled_from(["run_completed", "token_usage"]),
    fields=st.dictionaries(st.text(), json_values),
)
def test_no_forged_line_becomes_an_event_of_the_run_itself(kind: str, fields: dict[str, Any]) -> None:
    forged = line({**fields, "type": kind})
    for event in [parse(forged), *find_in_text(forged.decode())]:
        assert event is None or isinstance(event, MAY_COME_OF_IT)


@given(st.binary() | st.binary().map(lambda tail: b'{"__cody_event__": {"type": "a", ' + tail))
def test_no_bytes_make_it_fail(text: bytes) -> None:
    parse(text)
    find_in_text(text.decode(errors="surrogateescape"))


def test_blanks_and_a_carriage_return_around_it_do_not_matter() -> None:
    assert parse(f" \t{USAGE} \r".encode()) == USED_10
    assert parse(memoryview(USAGE.encode())) == USED_10
    assert find_in_text(f" {USAGE}\r\n") == [USED_10]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (f"hi\n{USAGE}\nbye\n", 1),
        (USAGE, 1),
        (f"foo{USAGE}\n", 1),
        (f"{USAGE}done\n", 1),
        (f"foo{USAGE}{USAGE}\n", 2),
        (f"{USAGE} {USAGE}\n{USAGE}", 3),
        (f'{{"__cody_event__": {{"type": "note", "text": "cut o{USAGE}\n', 1),
        (f'{{"__cody_event__": {{"type": "note", "n": {USAGE}\n', 1),
        ('{"at": 3, "__cody_event__": {"type": "token_usage", "inputTokens": 10}}\n', 1),
        (f"50 %\r{USAGE}\n", 1),
        (f"print('{USAGE}')\n", 0),
        (f"run `{USAGE}` to report\n", 0),
        (f'{{"nested": {USAGE}}}\n', 0),
        (f"it's {USAGE}\n", 1),
        (f'{{"__cody_event__": {{"type": "file_read"}}}}{USAGE}\n', 1),
        ("no sentinel, only the word __cody_event__\n", 0),
    ],
)
def test_a_commands_output_is_searched_also_within_lines(text: str, count: int) -> None:
    assert find_in_text(text) == [USED_10] * count


def test_the_sentinels_of_a_recorded_command_are_found_in_its_output() -> None:
    recording = Path(__file__).parent.parent / "fixtures" / "codex" / "large_command_output.jsonl"
    records = [json.loads(text) for text in recording.read_text(encoding="utf-8").splitlines()]
    (output,) = [
        record["item"]["aggregated_output"]
        for record in records
        if record["type"] == "item.completed" and record["item"]["type"] == "command_execution"
    ]
    assert find_in_text(output) == [TestRunCompleted(passed=3, failed=1)] * output.count("__cody_event__")
    assert find_in_text(output)


def test_braces_and_quotes_inside_strings_do_not_end_a_glued_sentinel() -> None:
    payload = {"type": "note", "text": 'a } b { c " d \\ e \\" }}'}
    assert find_in_text("glued:" + line(payload).decode() + "tail") == [
        Custom(name="note", data={"text": payload["text"]})
    ]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        '{"__cody_event__":' * 60_000,
        '{"__cody_event__":{"a":' * 45_000,
        '{"__cody_event__":{' * 50_000,
        '{"__cody_event__":{"a":"' + '\\"' * 500_000,
        ('{"__cody_event__":{"a":"' + '\\"' * 100) * 4_500,
        '{"__cody_event__":' + "[" * 1_000_000,
        '{"__cody_event__":{"a":' + "{" * 1_000_000,
        "{ " * 500_000 + '"__cody_event__"',
    ],
    ids=["keys", "nested", "open", "escapes", "strings", "arrays", "braces", "blanks"],
)
def test_a_mebibyte_made_to_be_slow_is_read_in_bounded_time_and_what_follows_is_found(text: str) -> None:
    assert find_in_text(f"{text}\n{USAGE}\n") == [USED_10]


@given(st.lists(st.integers(0, 400), max_size=12))
def test_a_sentinel_that_chunks_cut_is_found(cuts: list[int]) -> None:
    data = f"before\n{USAGE}\nbetween {USAGE}\r\n{USAGE}\r\nafter\n".encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    splitter = LineSplitter()
    lines = [line for a, b in pairwise(places) for line in splitter.feed(data[a:b])]
    assert [parse(line.data) for line in lines] == [None, USED_10, None, USED_10, None]
