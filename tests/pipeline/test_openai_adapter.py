"""OpenAI's wire, read by OpenAI's SDK from a loopback server, as a Response."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.responses import ResponseStreamEvent

from cody.contracts.responses import (
    FunctionCall,
    FunctionCallOutput,
    Message,
    Reasoning,
    Response,
    ScriptExecution,
    ScriptExecutionOutput,
    Usage,
)
from cody.contracts.stream_events import ItemDelta, ItemStart, Payload, ResponseError
from cody.pipeline.adapters.openai import OpenAIAdapter
from cody.pipeline.model_request import user_message
from tests.pipeline.answering import deltas, reduced, translated, types
from tests.pipeline.asking import ADD, KEY, ask, request
from tests.pipeline.events import START
from tests.pipeline.wire_server import WireServer, sse


async def played(name: str) -> list[Payload]:
    async with WireServer(sse("openai", name)) as wire:
        return await ask("openai", wire)


async def answer(name: str) -> Response:
    return reduced(await played(name))


async def test_a_message() -> None:
    """HP-01 and HP-07."""
    async with WireServer(sse("openai", "message")) as wire:
        payloads = await ask("openai", wire, request("Say hello", instructions="Be kind."))
    response = reduced(payloads)
    assert (response.status, response.finish_reason) == ("complete", "stop")
    assert response.usage == Usage(prompt_tokens=21, completion_tokens=9, total_tokens=30)
    (message,) = response.output_items
    assert message == Message(id=message.id, content="Hello – grüß dich 👋🏽!")
    assert deltas(payloads, message.id) == ["Hel", "lo", " –", " grüß", " dich", " 👋🏽", "!"]
    (asked,) = wire.requests
    assert (asked.method, asked.path, asked.headers["authorization"]) == ("POST", "/responses", f"Bearer {KEY}")
    assert asked.body == {
        "model": "model-1",
        "input": [{"type": "message", "role": "user", "content": "Say hello"}],
        "instructions": "Be kind.",
        "store": False,
        "stream": True,
    }


async def test_reasoning_and_a_message() -> None:
    """HP-03."""
    async with WireServer(sse("openai", "reasoning_message")) as wire:
        payloads = await ask("openai", wire, request(reasoning_effort="medium"))
    response = reduced(payloads)
    reasoning, message = response.output_items
    assert isinstance(reasoning, Reasoning)
    assert reasoning.content == "**Adding numbers**\n\nTwo and two.\n\n**Checking**\n\nIt is four."
    assert "".join(deltas(payloads, reasoning.id)) == reasoning.content
    assert isinstance(message, Message)
    assert message.content == "The sum is 4."
    assert wire.requests[0].body["reasoning"] == {"effort": "medium", "summary": "auto"}


async def test_a_lone_function_call() -> None:
    """HP-08."""
    async with WireServer(sse("openai", "function_call")) as wire:
        payloads = await ask("openai", wire, request("2 + 40?", tools=(ADD,)))
    response = reduced(payloads)
    (call,) = response.output_items
    arguments = '{"a":2,"b":40}'
    assert call == FunctionCall(id=call.id, name="add", arguments=arguments, call_id="call_Qm4Zr7TtVw1XkY2b")
    assert ItemStart(item_id=call.id, item_type="function_call", name="add") in payloads
    assert "".join(deltas(payloads, call.id)) == arguments
    assert response.finish_reason == "tool_calls"
    (tool,) = wire.requests[0].body["tools"]
    assert tool == {
        "type": "function",
        "name": "add",
        "description": "Add two numbers",
        "parameters": ADD.parameters,
        "strict": False,
    }


async def test_the_output_of_a_call_is_sent_with_the_call() -> None:
    """HP-05, as two answers of a thread."""
    async with WireServer(sse("openai", "function_call"), sse("openai", "after_function_call")) as wire:
        first = reduced(await ask("openai", wire, request("2 + 40?")))
        output = FunctionCallOutput(id="o", call_id="call_Qm4Zr7TtVw1XkY2b", output="42", success=True)
        history = (user_message("u", "2 + 40?"), *first.output_items, output)
        second = reduced(await ask("openai", wire, request(None, history=history)))
    assert [item.content for item in second.output_items if isinstance(item, Message)] == ["2 + 40 = 42."]
    assert wire.requests[1].body["input"] == [
        {"type": "message", "role": "user", "content": "2 + 40?"},
        {
            "type": "function_call",
            "call_id": "call_Qm4Zr7TtVw1XkY2b",
            "name": "add",
            "arguments": '{"a":2,"b":40}',
        },
        {"type": "function_call_output", "call_id": "call_Qm4Zr7TtVw1XkY2b", "output": "42"},
    ]


async def test_the_second_turn_carries_the_first() -> None:
    """HP-06."""
    async with WireServer(sse("openai", "reasoning_message"), sse("openai", "second_turn")) as wire:
        first = reduced(await ask("openai", wire, request("I am Ada. 2 + 2?")))
        history = (user_message("u", "I am Ada. 2 + 2?"), *first.output_items)
        second = reduced(await ask("openai", wire, request("Who am I?", history=history)))
    assert types(second) == ["message"]
    assert wire.requests[1].body["input"] == [
        {"type": "message", "role": "user", "content": "I am Ada. 2 + 2?"},
        {"type": "message", "role": "assistant", "content": "The sum is 4."},
        {"type": "message", "role": "user", "content": "Who am I?"},
    ]


async def test_parallel_calls_keep_their_own_arguments() -> None:
    payloads = await played("parallel_calls")
    response = reduced(payloads)
    assert [(item.call_id, item.arguments) for item in response.output_items if isinstance(item, FunctionCall)] == [
        ("call_A1", '{"a":1,"b":2}'),
        ("call_B2", '{"a":3,"b":4}'),
    ]
    told = [payload.item_id for payload in payloads if isinstance(payload, ItemDelta)]
    assert told == ["fc_a68f1a0c9", "fc_b68f1a0c9"] * 2, "interleaved, as they came"


async def test_a_refusal_is_a_message() -> None:
    payloads = await played("refusal")
    (message,) = reduced(payloads).output_items
    assert isinstance(message, Message)
    assert message.content == "I'm sorry, I can't help with that."
    assert "".join(deltas(payloads, message.id)) == message.content


@pytest.mark.parametrize(
    ("name", "reason", "text"),
    [
        ("incomplete_max_output_tokens", "max_output_tokens", "Once upon a"),
        ("incomplete_content_filter", "content_filter", "The recipe"),
    ],
)
async def test_an_answer_that_was_cut_is_complete_and_says_why(name: str, reason: str, text: str) -> None:
    response = await answer(name)
    assert (response.status, response.finish_reason) == ("complete", reason)
    assert [item.content for item in response.output_items if isinstance(item, Message)] == [text]
    assert response.usage is not None


@pytest.mark.parametrize(
    ("name", "code", "retryable", "used"),
    [
        ("failed", "provider_error", True, 18),
        ("failed_rate_limit", "rate_limited", True, None),
        ("error_event", "provider_error", True, None),
    ],
)
async def test_a_failed_answer_ends_in_an_error_and_keeps_what_came(
    name: str, code: str, retryable: bool, used: int | None
) -> None:
    response = await answer(name)
    assert response.status == "error"
    assert response.error is not None
    assert response.error.details is not None
    assert (response.error.code, response.error.details["retryable"]) == (code, retryable)
    assert [item.content for item in response.output_items if isinstance(item, Message)] == ["Let me"]
    assert (response.usage.total_tokens if response.usage else None) == used


async def test_a_custom_tools_input_is_json_at_every_moment() -> None:
    payloads = await played("custom_tool_call")
    (call,) = reduced(payloads).output_items
    patch = '*** Begin Patch\n*** Add File: a.txt\n+say "hi"\t☕\n*** End Patch'
    assert isinstance(call, FunctionCall)
    assert (call.name, call.call_id) == ("apply_patch", "call_P4tch")
    assert json.loads(call.arguments) == {"input": patch}
    start = next(p for p in payloads if isinstance(p, ItemStart))
    streamed = (start.arguments or "") + "".join(deltas(payloads, call.id))
    assert streamed + '"}' == call.arguments


async def test_tools_that_the_provider_runs_are_calls_with_outputs() -> None:
    payloads = await played("hosted_tools")
    response = reduced(payloads)
    assert response.output_items[:-1] == (
        FunctionCall(
            id="ws_68f1a0d4",
            name="web_search",
            arguments='{"type":"search","queries":["valkey streams"],"query":"valkey streams"}',
            call_id="ws_68f1a0d4",
        ),
        FunctionCallOutput(id="ws_68f1a0d4_output", origin="system", call_id="ws_68f1a0d4", output="", success=True),
        ScriptExecution(id="ci_68f1a0d4", code="print(6*7)"),
        ScriptExecutionOutput(
            id="ci_68f1a0d4_output", origin="system", script_id="ci_68f1a0d4", result="42\n", success=True
        ),
        FunctionCall(id="mcp_68f1a0d4", name="mcp__mini__add", arguments='{"a":1,"b":2}', call_id="mcp_68f1a0d4"),
        FunctionCallOutput(id="mcp_68f1a0d4_output", origin="system", call_id="mcp_68f1a0d4", output="3", success=True),
    )
    assert types(response)[-1] == "message"
    assert response.finish_reason == "stop", "nothing waits for the client"
    assert deltas(payloads, "ci_68f1a0d4") == ["print(", "6*7", ")"]


DELTA = {"type": "response.output_text.delta", "item_id": "m", "content_index": 0, "output_index": 0}
TEXT = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "😀"}]}


def built(data: dict[str, Any]) -> ResponseStreamEvent:
    """An event as the SDK builds it from the wire: by its type, without validation."""
    return cast("ResponseStreamEvent", construct_type(value=data, type_=ResponseStreamEvent))


def told(*events: dict[str, Any]) -> list[Payload]:
    return translated(OpenAIAdapter(START), [built(event) for event in events])


def test_a_server_that_leaves_events_out_is_understood() -> None:
    """codex makes do with response.output_item.done and response.completed; some servers leave output_item.added out."""
    done = {"type": "response.output_item.done", "output_index": 0, "item": TEXT}
    completed = {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [TEXT]}}
    for events in (
        [DELTA | {"delta": "x"}, done, completed],
        [DELTA | {"delta": "x"}, completed],
        [done, completed],
        [completed],
    ):
        response = reduced(told(*events))
        assert response.status == "complete"
        assert response.output_items == (Message(id="m", content="😀"),)
        assert response.usage is None


def test_half_an_emoji_in_a_delta_is_mended() -> None:
    payloads = told(DELTA | {"delta": "\ud83d"}, DELTA | {"delta": "\ude00"})
    assert deltas(payloads, "m") == ["\ufffd", "\ufffd"]
    reduced(payloads)


def test_a_call_without_an_id_is_known_by_its_call_id() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"}
    events = [{"type": f"response.output_item.{phase}", "output_index": 0, "item": call} for phase in ("added", "done")]
    response = reduced(told(*events, {"type": "response.completed", "response": {"status": "completed"}}))
    assert response.output_items == (FunctionCall(id="call_1", name="add", arguments="{}", call_id="call_1"),)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "local_shell_call", "id": "x", "call_id": "c", "status": "completed", "action": {"command": ["ls"]}},
        {"type": "apply_patch_call", "id": "x", "call_id": "c", "status": "completed", "operation": {"path": "a"}},
        {"type": "flux_capacitor_call", "id": "x", "call_id": "c", "status": "completed", "jigawatts": 1.21},
    ],
)
def test_a_call_that_the_client_is_to_run_waits_for_it(item: dict[str, Any]) -> None:
    completed = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
    response = reduced(told(completed))
    (call,) = response.output_items
    assert isinstance(call, FunctionCall)
    assert (call.name, call.call_id) == (item["type"].removesuffix("_call"), "c")
    assert json.loads(call.arguments)
    assert response.finish_reason == "tool_calls"


def test_an_image_is_not_carried_in_events() -> None:
    image = {"type": "image_generation_call", "id": "i", "status": "completed", "result": "A" * 10**6, "size": "1x1"}
    completed = {"type": "response.completed", "response": {"status": "completed", "output": [image]}}
    response = reduced(told(completed))
    assert types(response) == ["function_call", "function_call_output"]
    assert len(response.model_dump_json()) < 2000


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        7,
        {},
        {"type": None},
        DELTA,
        DELTA | {"delta": 7},
        DELTA | {"delta": "x", "item_id": ""},
    ],
)
def test_a_chunk_that_can_not_be_read_ends_the_answer(data: Any) -> None:
    adapter = OpenAIAdapter(START)
    last = adapter.feed(built(data))[-1]
    assert isinstance(last, ResponseError)
    assert last.error.code == "malformed_chunk"
    assert adapter.feed(built(DELTA | {"delta": "late"})) == []


def test_a_negative_count_ends_the_answer_as_no_tokens() -> None:
    usage = {"input_tokens": -1, "output_tokens": 10**30, "total_tokens": "many"}
    completed = {"type": "response.completed", "response": {"status": "completed", "usage": usage}}
    assert reduced(told(completed)).usage == Usage(prompt_tokens=0, completion_tokens=10**15, total_tokens=10**15)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("type", "text", "reason")), inner),
    max_leaves=4,
)
ITEM_TYPES = (
    "message",
    "reasoning",
    "function_call",
    "custom_tool_call",
    "web_search_call",
    "code_interpreter_call",
    "mcp_call",
    "local_shell_call",
    "function_call_output",
    "image_generation_call",
    "hologram",
)
ITEM_FIELDS = (
    "id",
    "call_id",
    "name",
    "arguments",
    "input",
    "content",
    "summary",
    "status",
    "output",
    "outputs",
    "code",
    "action",
)
FUZZED_ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(ITEM_TYPES)}, optional=dict.fromkeys(ITEM_FIELDS, VALUES | st.sampled_from(("a", "b")))
)
EVENT_TYPES = (
    "error",
    "response.created",
    "response.output_item.added",
    "response.output_item.done",
    "response.output_text.delta",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.custom_tool_call_input.delta",
    "response.function_call_arguments.delta",
    "response.completed",
    "response.incomplete",
    "response.failed",
)
FUZZED_EVENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(EVENT_TYPES)},
    optional={
        "item": FUZZED_ITEMS | VALUES,
        "item_id": st.sampled_from(("a", "b")) | VALUES,
        "output_index": st.integers(0, 2) | VALUES,
        "delta": st.text(st.characters(exclude_categories=()), max_size=5) | VALUES,
        "code": VALUES,
        "message": VALUES,
        "response": st.fixed_dictionaries(
            {},
            optional={
                "status": st.sampled_from(("completed", "incomplete", "failed")) | VALUES,
                "output": st.lists(FUZZED_ITEMS | VALUES, max_size=3) | VALUES,
                "usage": VALUES,
                "error": VALUES,
                "incomplete_details": VALUES,
            },
        )
        | VALUES,
    },
)


@settings(deadline=None, max_examples=300)
@given(st.lists(FUZZED_EVENTS, max_size=8))
def test_whatever_a_server_sends_the_answer_ends_once_and_nothing_is_refused(events: list[dict[str, Any]]) -> None:
    reduced(told(*events))
