"""Anthropic's wire, read by Anthropic's SDK from a loopback server, as a Response."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from anthropic._models import construct_type
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, Reasoning, Response, Usage
from cody.contracts.stream_events import ItemDone, ItemStart, Payload, ResponseError, UsageUpdate
from cody.pipeline.adapters.anthropic import AnthropicAdapter
from cody.pipeline.model_request import user_message
from tests.pipeline.answering import deltas, reduced, translated, types
from tests.pipeline.asking import ADD, KEY, ask, request
from tests.pipeline.events import START
from tests.pipeline.wire_server import WireServer, sse


async def played(name: str) -> list[Payload]:
    async with WireServer(sse("anthropic", name)) as wire:
        return await ask("anthropic", wire)


async def answer(name: str) -> Response:
    return reduced(await played(name))


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


async def test_a_message() -> None:
    """HP-02 and HP-07."""
    async with WireServer(sse("anthropic", "message")) as wire:
        payloads = await ask("anthropic", wire, request("Say hello", instructions="Be kind."))
    response = reduced(payloads)
    assert (response.status, response.finish_reason, response.usage) == ("complete", "stop", usage(25, 14))
    (message,) = response.output_items
    assert message == Message(id="msg_01Hx8kV2mQd5_0", content="Hello – grüß dich 👋🏽!")
    assert deltas(payloads, message.id) == ["Hello", " – grüß", " dich 👋🏽", "!"]
    assert [p.usage for p in payloads if isinstance(p, UsageUpdate)] == [usage(25, 1), usage(25, 14)]
    (asked,) = wire.requests
    assert (asked.method, asked.path, asked.headers["authorization"]) == ("POST", "/v1/messages", f"Bearer {KEY}")
    assert asked.body == {
        "model": "model-1",
        "max_tokens": 16_384,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello"}]}],
        "system": "Be kind.",
        "stream": True,
    }


async def test_thinking_and_a_message() -> None:
    """HP-04."""
    async with WireServer(sse("anthropic", "thinking_message")) as wire:
        payloads = await ask("anthropic", wire, request(reasoning_effort="low", max_output_tokens=500))
    reasoning, message = reduced(payloads).output_items
    assert reasoning == Reasoning(id="msg_01Jd7rT4nWe6_0", content="Two and two… that is four.")
    assert deltas(payloads, reasoning.id) == ["Two and two", "… that is", " four."], "the signature is not text"
    assert message == Message(id="msg_01Jd7rT4nWe6_1", content="The sum is 4.")
    body = wire.requests[0].body
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert (body["output_config"], body["max_tokens"]) == ({"effort": "low"}, 500)


async def test_a_lone_function_call() -> None:
    """HP-08."""
    async with WireServer(sse("anthropic", "tool_use")) as wire:
        payloads = await ask("anthropic", wire, request("2 + 40?", tools=(ADD,)))
    response = reduced(payloads)
    call = FunctionCall(
        id="toolu_01T1x1fJ34qAmk2t", name="add", arguments='{"a": 2, "b": 40}', call_id="toolu_01T1x1fJ34qAmk2t"
    )
    assert response.output_items == (call,)
    assert response.finish_reason == "tool_calls"
    assert ItemStart(item_id=call.id, item_type="function_call", name="add") in payloads
    assert deltas(payloads, call.id) == ['{"a"', ': 2, "b": ', "40}"]
    assert wire.requests[0].body["tools"] == [
        {"name": "add", "description": "Add two numbers", "input_schema": ADD.parameters}
    ]


async def test_the_output_of_a_call_is_sent_with_the_call() -> None:
    """HP-05, as two answers of a thread."""
    async with WireServer(sse("anthropic", "tool_use"), sse("anthropic", "after_tool_use")) as wire:
        first = reduced(await ask("anthropic", wire, request("2 + 40?", tools=(ADD,))))
        output = FunctionCallOutput(id="o", call_id="toolu_01T1x1fJ34qAmk2t", output="no idea", success=False)
        history = (user_message("u", "2 + 40?"), *first.output_items, output)
        second = reduced(await ask("anthropic", wire, request(None, history=history, reasoning_effort="high")))
    assert [item.content for item in second.output_items if isinstance(item, Message)] == ["2 + 40 = 42."]
    body = wire.requests[1].body
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "2 + 40?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "toolu_01T1x1fJ34qAmk2t", "name": "add", "input": {"a": 2, "b": 40}}
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_01T1x1fJ34qAmk2t",
                    "content": "no idea",
                    "is_error": True,
                }
            ],
        },
    ]
    assert "thinking" not in body, "the thinking before the call can't be sent back"


async def test_the_second_turn_carries_the_first() -> None:
    """HP-06."""
    async with WireServer(sse("anthropic", "thinking_message"), sse("anthropic", "second_turn")) as wire:
        first = reduced(await ask("anthropic", wire, request("I am Ada. 2 + 2?")))
        history = (user_message("u", "I am Ada. 2 + 2?"), *first.output_items)
        second = reduced(await ask("anthropic", wire, request("Who am I?", history=history)))
    assert types(second) == ["message"]
    assert wire.requests[1].body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "I am Ada. 2 + 2?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "The sum is 4."}]},
        {"role": "user", "content": [{"type": "text", "text": "Who am I?"}]},
    ]


async def test_parallel_calls_beside_a_message() -> None:
    response = await answer("parallel_tools")
    message, *calls = response.output_items
    assert isinstance(message, Message)
    assert [(call.id, call.arguments) for call in calls if isinstance(call, FunctionCall)] == [
        ("toolu_01A", '{"a": 1, "b": 2}'),
        ("toolu_01B", '{"a": 3, "b": 4}'),
        ("toolu_01C", "{}"),
    ]


@pytest.mark.parametrize(("name", "counted"), [("cached_usage", usage(2003, 5)), ("old_usage", usage(99, 4))])
async def test_what_the_cache_gave_is_part_of_the_prompt(name: str, counted: Usage) -> None:
    """Older servers tell the output's count only in message_delta: what message_start told still holds."""
    assert (await answer(name)).usage == counted


async def test_thinking_that_is_redacted_is_marked() -> None:
    reasoning, message = (await answer("redacted_thinking")).output_items
    assert isinstance(reasoning, Reasoning)
    assert reasoning.content == "[redacted]"
    assert isinstance(message, Message)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("max_tokens", "max_output_tokens"), ("refusal", "refusal"), ("stop_sequence", "stop")],
)
async def test_why_an_answer_stopped(name: str, reason: str) -> None:
    response = await answer(name)
    assert (response.status, response.finish_reason) == ("complete", reason)
    assert types(response) == ["message"]


async def test_tools_that_the_server_runs_are_calls_with_outputs() -> None:
    payloads = await played("server_tools")
    response = reduced(payloads)
    searched, found, again, refused, message = response.output_items
    assert searched == FunctionCall(
        id="srvtoolu_01W", name="web_search", arguments='{"query": "valkey streams"}', call_id="srvtoolu_01W"
    )
    assert isinstance(found, FunctionCallOutput)
    assert (found.call_id, found.success) == ("srvtoolu_01W", True)
    assert json.loads(found.output)[0]["url"] == "https://valkey.example/streams"
    assert again.id == "srvtoolu_01X"
    assert isinstance(refused, FunctionCallOutput)
    assert (refused.call_id, refused.success) == ("srvtoolu_01X", False)
    assert "max_uses_exceeded" in refused.output
    assert isinstance(message, Message)
    assert message.content == "Streams are logs."
    assert response.finish_reason == "stop"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [("error_overloaded", "provider_error", ["Let me"]), ("error_first", "rate_limited", [])],
)
async def test_an_error_in_the_stream(name: str, code: str, text: list[str]) -> None:
    response = await answer(name)
    assert response.status == "error"
    assert response.error is not None
    assert response.error.code == code
    assert (response.error.details or {})["retryable"] is True
    assert [item.content for item in response.output_items if isinstance(item, Message)] == text


def built(data: Any) -> RawMessageStreamEvent:
    """An event as the SDK builds it from the wire: by its type, without validation."""
    return cast("RawMessageStreamEvent", construct_type(value=data, type_=RawMessageStreamEvent))


def told(*events: dict[str, Any]) -> list[Payload]:
    return translated(AnthropicAdapter(START), [built(event) for event in events])


BEGUN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}


def delta(text: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def test_an_emoji_that_was_parted_is_whole_in_the_end() -> None:
    stop = {"type": "content_block_stop", "index": 0}
    payloads = told(BEGUN, delta("\ud83d"), delta("\ude00"), stop)
    assert ItemDone(item_id="resp-1_0", final_item=Message(id="resp-1_0", content="😀")) in payloads
    assert deltas(payloads, "resp-1_0") == ["\ufffd", "\ufffd"]


def test_a_block_that_was_not_stopped_is_done_when_the_message_is() -> None:
    payloads = told(BEGUN, delta("Hi"), {"type": "message_stop"})
    assert ItemDone(item_id="resp-1_0", final_item=Message(id="resp-1_0", content="Hi")) in payloads
    response = reduced(payloads)
    assert (response.status, response.finish_reason, response.usage) == ("complete", "stop", None)
    assert response.output_items == (Message(id="resp-1_0", content="Hi"),)


@pytest.mark.parametrize(
    "data",
    [None, [], "text", {}, delta("x"), {"type": "content_block_stop", "index": 0}, {"type": "content_block_start"}],
)
def test_a_chunk_that_can_not_be_read_ends_the_answer(data: Any) -> None:
    adapter = AnthropicAdapter(START)
    last = adapter.feed(built(data))[-1]
    assert isinstance(last, ResponseError)
    assert last.error.code == "malformed_chunk"
    assert adapter.feed(built(BEGUN)) == []


TEXTS = st.text(st.characters(exclude_categories=()), max_size=5)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("type", "text", "id")), inner),
    max_leaves=4,
)
BLOCK_TYPES = (
    "text",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "server_tool_use",
    "web_search_tool_result",
    "mcp_tool_result",
    "hologram",
)
BLOCKS = st.fixed_dictionaries(
    {"type": st.sampled_from(BLOCK_TYPES)},
    optional=dict.fromkeys(("id", "tool_use_id", "name", "text", "thinking", "input", "content"), VALUES),
)
DELTAS = st.fixed_dictionaries(
    {"type": st.sampled_from(("text_delta", "thinking_delta", "input_json_delta", "signature_delta", "light_delta"))},
    optional={"text": TEXTS | VALUES, "thinking": TEXTS, "partial_json": TEXTS, "stop_reason": VALUES},
)
EVENT_TYPES = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "message_hologram",
)
COUNTS = st.dictionaries(st.sampled_from(("input_tokens", "output_tokens", "cache_read_input_tokens")), VALUES)
EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(EVENT_TYPES)},
    optional={
        "index": st.integers(0, 2) | VALUES,
        "content_block": BLOCKS | VALUES,
        "delta": DELTAS | VALUES,
        "usage": COUNTS | VALUES,
        "message": st.fixed_dictionaries({}, optional={"id": VALUES, "usage": COUNTS | VALUES}) | VALUES,
    },
)


@settings(deadline=None, max_examples=300)
@given(st.lists(EVENTS, max_size=8))
def test_whatever_a_server_sends_the_answer_ends_once(events: list[dict[str, Any]]) -> None:
    payloads = told(*events)
    ids = [payload.item_id for payload in payloads if isinstance(payload, ItemStart)]
    if len(ids) == len(set(ids)):  # a server that uses an id twice gets the second item refused
        reduced(payloads)
