"""The shapes of the pipeline on the wire: their names, what readers tolerate, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cody.contracts.responses import ItemType, Message, OutputItem, Response, ResponseStatus, whole_text
from cody.contracts.schema import schemas
from cody.contracts.stream_events import (
    TERMINAL_EVENT_TYPES,
    TERMINAL_PAYLOADS,
    ItemDone,
    MalformedEvent,
    StreamEvent,
    read_stream_event,
    stream_event_json,
)
from tests.pipeline.events import START, event_of
from tests.pipeline.strategies import events, responses

ROOT = Path(__file__).resolve().parents[2]
ITEM_FIELDS = {
    "message": {"content"},
    "reasoning": {"content"},
    "function_call": {"name", "arguments", "call_id"},
    "function_call_output": {"call_id", "output", "success"},
    "script_execution": {"code"},
    "script_execution_output": {"script_id", "result", "success", "error"},
    "error": {"code", "message", "details"},
}
NAMES = {"response_id", "turn_id", "thread_id", "agent_id", "model_id", "provider_id", "created_at"}
RESPONSE_FIELDS = NAMES - {"response_id"} | {
    "id",
    "updated_at",
    "status",
    "output_items",
    "usage",
    "finish_reason",
    "error",
}
PAYLOAD_FIELDS: dict[str, set[str]] = {
    "response_start": NAMES,
    "item_start": {"item_id", "item_type", "initial_content", "name", "arguments", "code"},
    "item_delta": {"item_id", "delta_content"},
    "item_done": {"item_id", "final_item"},
    "item_error": {"item_id", "error"},
    "item_cancelled": {"item_id", "reason"},
    "script_execution_start": {"script_id", "code"},
    "script_execution_done": {"script_id", "item_id", "result", "success"},
    "script_execution_error": {"script_id", "item_id", "error"},
    "response_done": {"response_id", "status", "usage", "finish_reason"},
    "response_error": {"response_id", "error"},
    "usage_update": {"usage"},
    "heartbeat": set(),
    "turn_aborted_by_user": {"turn_id", "reason"},
}


def with_strangers(value: Any) -> Any:
    """The JSON as a newer writer may send it: a field that nobody knows in every object of the contract."""
    match value:
        case dict():
            kept = {name: inner if name == "details" else with_strangers(inner) for name, inner in value.items()}
            return kept | {"x_new_field": {"of": ["a", "newer", "version"]}}
        case list():
            return [with_strangers(entry) for entry in value]
        case _:
            return value


@pytest.mark.parametrize("item", get_args(get_args(OutputItem)[0]), ids=lambda item: str(item.__name__))
def test_items_have_the_fields_of_the_contract(item: Any) -> None:
    fields = item.model_fields
    assert set(fields) - {"id", "type", "origin", "correlation_id"} == ITEM_FIELDS[fields["type"].default]


@pytest.mark.parametrize("event", get_args(StreamEvent), ids=lambda event: str(event.__name__))
def test_events_have_the_fields_of_the_contract(event: Any) -> None:
    fields = event.model_fields
    assert set(fields) == {"event_id", "timestamp", "trace_context", "run_id", "type", "payload"}
    payload = fields["payload"].annotation
    assert set(payload.model_fields) == PAYLOAD_FIELDS[fields["type"].default]
    assert (fields["type"].default in TERMINAL_EVENT_TYPES) == (payload in TERMINAL_PAYLOADS)


def test_nothing_of_the_contract_is_missing() -> None:
    assert set(Response.model_fields) == RESPONSE_FIELDS
    assert set(get_args(ResponseStatus)) == {"queued", "in_progress", "complete", "error", "aborted"}
    assert set(get_args(ItemType)) == set(ITEM_FIELDS)
    assert {event.model_fields["type"].default for event in get_args(StreamEvent)} == set(PAYLOAD_FIELDS)


def test_an_event_on_the_wire() -> None:
    event = event_of(START, 0)
    assert json.loads(stream_event_json(event)) == {
        "event_id": str(UUID(int=1)),
        "timestamp": 1_700_000_000_000,
        "trace_context": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        "run_id": "resp-1",
        "type": "response_start",
        "payload": {
            "response_id": "resp-1",
            "turn_id": "turn-1",
            "thread_id": "thread-1",
            "model_id": "model-1",
            "provider_id": "provider-1",
            "created_at": 1_700_000_000_000,
        },
    }


@settings(deadline=None)
@given(events)
def test_an_event_comes_back_as_it_was(event: StreamEvent) -> None:
    assert read_stream_event(stream_event_json(event)) == event
    newer = with_strangers(json.loads(stream_event_json(event)))
    assert read_stream_event(json.dumps(newer)) == event


@settings(deadline=None)
@given(responses)
def test_a_response_comes_back_as_it_was(response: Response) -> None:
    assert Response.model_validate_json(response.model_dump_json(exclude_none=True)) == response
    stored = json.loads(response.model_dump_json())
    assert Response.model_validate(stored) == response, "out of a JSON column of SQL"
    assert Response.model_validate(with_strangers(stored)) == response


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "item_exploded"}, "item_exploded"),
        ({"payload": {"item_id": "a"}}, "delta_content"),
        ({"payload": {"item_id": "", "delta_content": "x"}}, "item_id"),
        ({"payload": {"item_id": 7, "delta_content": "x"}}, "item_id"),
        ({"event_id": "seven"}, "event_id"),
        ({"timestamp": "now"}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 253_402_300_800_000}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"trace_context": {"traceparent": "nonsense"}}, "traceparent"),
        ({"run_id": None}, "run_id"),
    ],
)
def test_what_is_no_event_is_refused_by_the_name_of_its_fault(change: dict[str, Any], named: str) -> None:
    good = json.loads(stream_event_json(event_of(START, 0)))
    good |= {"type": "item_delta", "payload": {"item_id": "a", "delta_content": "x"}}
    assert read_stream_event(json.dumps(good)).type == "item_delta"
    with pytest.raises(MalformedEvent, match=named):
        read_stream_event(json.dumps(good | change))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{", b'{"type": "heartbeat"}', b"\xff"])
def test_bytes_that_are_no_event_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvent):
        read_stream_event(data)


def test_an_integer_as_json_schema_means_it() -> None:
    good = json.loads(stream_event_json(event_of(START, 0))) | {"timestamp": 2.0}
    assert read_stream_event(json.dumps(good)).timestamp == 2


def test_a_final_item_is_the_item_that_is_done() -> None:
    with pytest.raises(ValidationError, match="differs"):
        ItemDone(item_id="a", final_item=Message(id="b", content=""))


@pytest.mark.parametrize(
    ("text", "whole"),
    [("plain", "plain"), ("é😀", "é😀"), ("\ud83d\ude00", "😀"), ("a\ud83d", "a\ufffd"), ("\ude00b", "\ufffdb")],
)
def test_half_an_emoji_never_gets_into_an_item(text: str, whole: str) -> None:
    assert whole_text(text) == whole
    assert Message(id="m", content=text).content == whole
    assert json.loads(Message(id="m", content=text).model_dump_json())["content"] == whole


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_written_and_whole_text_is_left_alone(text: str) -> None:
    whole = whole_text(text)
    whole.encode()
    assert whole_text(whole) == whole


def test_the_schemas_in_the_docs_are_those_of_the_models() -> None:
    folder = ROOT / "docs" / "schemas"
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert kept == schemas(), "run `make schemas`"


def test_the_schema_tells_events_apart_by_type() -> None:
    schema = json.loads(schemas()["stream_event.json"])
    mapping = schema["discriminator"]["mapping"]
    assert set(mapping) == set(PAYLOAD_FIELDS)
    for reference in mapping.values():
        assert "type" in schema["$defs"][reference.rpartition("/")[2]]["required"]
