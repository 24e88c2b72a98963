"""The Responses API's event stream: its order, its fields, and that it says what the scenario holds."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.replay.recording import AnswerReader, EventReader, item_from_wire
from harness.replay.scenario import (
    Answer,
    CustomToolCall,
    Failure,
    FunctionCall,
    Item,
    Message,
    RawItem,
    Reasoning,
    Usage,
)
from harness.replay.wire import Stamp, beats, whole, wire_item

_STAMP = Stamp("k", created_at=1_790_000_000, model="gpt-5.5")
_ITEMS: tuple[Item, ...] = (
    Reasoning(type="reasoning", summary=("First.", "Second, which is longer than a delta may be.")),
    Message(type="message", text="Hello from the scenario, in more than one delta. 😀", phase="commentary"),
    FunctionCall(type="function_call", name="exec_command", arguments={"cmd": "echo a long command that is cut"}),
    CustomToolCall(type="custom_tool_call", name="apply_patch", input="*** Begin Patch\n*** End Patch\n"),
    RawItem(type="raw", item={"type": "web_search_call", "status": "completed", "action": {"query": "x"}}),
)
_ANSWER = Answer(items=_ITEMS, usage=Usage(input=10, cached=4, cache_write=1, output=6, reasoning=2))


def _events(answer: Answer) -> list[dict[str, Any]]:
    return EventReader().feed(b"".join(beat.data for beat in beats(answer, _STAMP)))


def test_events_come_in_the_order_of_the_api() -> None:
    kinds = [event["type"].removeprefix("response.") for event in _events(_ANSWER)]
    once = [kind for at, kind in enumerate(kinds) if at == 0 or kinds[at - 1] != kind]
    summary = [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]
    assert once == [
        *["created", "in_progress"],
        *["output_item.added", *summary, *summary, "output_item.done"],
        *["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"],
        *["output_item.done"],
        *["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"],
        *["output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"],
        *["output_item.added", "output_item.done"],
        "completed",
    ]


def test_events_are_numbered_and_named_on_the_wire() -> None:
    text = b"".join(beat.data for beat in beats(_ANSWER, _STAMP)).decode()
    frames = [frame.split("\n") for frame in text.removesuffix("\n\n").split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name for name, _ in frames] == [f"event: {event['type']}" for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_deltas_add_up_to_what_their_item_says() -> None:
    pieces: dict[int, str] = defaultdict(str)
    for event in _events(_ANSWER):
        if event["type"].endswith(".delta"):
            pieces[event["output_index"]] += event["delta"]
    assert pieces[0] == "First.Second, which is longer than a delta may be."
    assert pieces[1] == "Hello from the scenario, in more than one delta. 😀"
    assert json.loads(pieces[2]) == {"cmd": "echo a long command that is cut"}
    assert pieces[3] == "*** Begin Patch\n*** End Patch\n"


def test_a_long_item_is_sent_in_a_bounded_number_of_deltas() -> None:
    long = Answer(items=(Message(type="message", text="x" * 1_000_000),), usage=Usage())
    assert len(_events(long)) <= 220


def test_the_last_event_holds_the_items_and_the_usage() -> None:
    response = _events(_ANSWER)[-1]["response"]
    assert (response["id"], response["status"], response["model"]) == ("resp_k", "completed", "gpt-5.5")
    assert [item["type"] for item in response["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
        "web_search_call",
    ]
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    }


def test_ids_are_unique_within_an_answer_and_between_answers() -> None:
    def ids(stamp: Stamp) -> list[str]:
        made = [wire_item(item, stamp, index) for index, item in enumerate(_ITEMS)]
        return [item[name] for item in made for name in ("id", "call_id") if name in item]

    both = ids(_STAMP) + ids(Stamp("other", 0, "gpt-5.5"))
    assert len(both) == len(set(both)) == 14


def test_a_raw_call_gets_a_call_id_of_its_own() -> None:
    raw = RawItem(type="raw", item={"type": "local_shell_call", "id": "old", "call_id": "old", "action": {}})
    assert wire_item(raw, _STAMP, 3) == {
        "type": "local_shell_call",
        "id": "item_k_3",
        "call_id": "call_k_3",
        "action": {},
    }


def test_an_answer_can_end_incomplete_or_failed() -> None:
    message = Message(type="message", text="half")
    incomplete = _events(Answer(items=(message,), incomplete="max_output_tokens"))[-1]
    assert incomplete["type"] == "response.incomplete"
    assert incomplete["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    failed = _events(Answer(failed=Failure(code="server_error", message="boom")))[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "boom"}


def test_a_cut_comes_after_whole_items_and_ends_the_stream() -> None:
    cut = list(beats(Answer(items=_ITEMS, drop=2), _STAMP))
    kinds = [event["type"] for event in EventReader().feed(b"".join(beat.data for beat in cut))]
    assert kinds.count("response.output_item.done") == kinds.count("response.output_item.added") == 2
    assert [beat.cut for beat in cut] == [False] * (len(cut) - 1) + [True]


def test_pauses_stand_where_the_scenario_puts_them() -> None:
    items = (Message(type="message", text="a"), Message(type="message", text="b"))
    pauses = [beat.pause_ms for beat in beats(Answer(items=items, item_delay_ms=500, delta_delay_ms=3), _STAMP)]
    assert pauses[:3] == [0, 0, 500]
    assert pauses.count(500) == 2
    assert pauses.count(3) == len(pauses) - 5


def test_without_a_stream_the_answer_is_the_last_event_s_response() -> None:
    assert json.loads(whole(_ANSWER, _STAMP)) == _events(_ANSWER)[-1]["response"]


_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
_items = st.one_of(
    st.builds(Message, type=st.just("message"), text=_texts, phase=st.none() | st.just("final_answer")),
    st.builds(Reasoning, type=st.just("reasoning"), summary=st.lists(_texts, max_size=3).map(tuple)),
    st.builds(
        FunctionCall,
        type=st.just("function_call"),
        name=st.just("exec_command"),
        arguments=st.dictionaries(_texts, _texts | st.integers(-9, 9) | st.none(), min_size=1, max_size=3)
        | st.just("not { json"),
        namespace=st.none() | st.just("mcp"),
    ),
    st.builds(CustomToolCall, type=st.just("custom_tool_call"), name=st.just("apply_patch"), input=_texts),
)
_answers = st.builds(Answer, items=st.lists(_items, min_size=1, max_size=4).map(tuple), usage=st.just(Usage(input=3)))


@given(answer=_answers, size=st.integers(1, 400))
def test_what_is_sent_reads_back_as_what_was_written(answer: Answer, size: int) -> None:
    """The encoder against the recorder's reader, with the bytes cut anywhere."""
    sent = b"".join(beat.data for beat in beats(answer, _STAMP))
    events, reader, read = EventReader(), AnswerReader(0.0), None
    for start in range(0, len(sent), size):
        for event in events.feed(sent[start : start + size]):
            read = reader.take(event, 0.0) or read
    assert read == answer


def test_items_without_a_shape_of_their_own_are_kept_raw() -> None:
    refusal = {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "refusal", "refusal": "no"}]}
    item = item_from_wire(refusal)
    assert isinstance(item, RawItem)
    assert item.item == {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
