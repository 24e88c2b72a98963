"""HP-05 as one Response: the model calls, Cody runs the tool, the model goes on; two requests on the real wire."""

from __future__ import annotations

import json
import re
from contextlib import aclosing

import pytest

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, Response, Usage
from cody.contracts.stream_events import Payload
from cody.pipeline.model_request import Tool
from cody.pipeline.providers.registry import open_provider
from cody.pipeline.providers.tool_loop import ToolResult, stream_with_tools
from tests.pipeline.answering import reduced, types
from tests.pipeline.asking import ADD, KEY, request
from tests.pipeline.wire_server import Reply, WireServer, http_error, sse

CALLS = {"openai": ("function_call", "after_function_call"), "anthropic": ("tool_use", "after_tool_use")}


class Adding:
    tools: tuple[Tool, ...] = (ADD,)

    async def run(self, call: FunctionCall) -> ToolResult:
        terms = json.loads(call.arguments)
        return ToolResult(str(terms["a"] + terms["b"]))


class Broken(Adding):
    async def run(self, call: FunctionCall) -> ToolResult:
        raise OSError(f"{call.name} fell over")


async def answered(provider_id: str, wire: WireServer, toolbox: Adding, *, max_requests: int = 20) -> Response:
    provider = await open_provider(provider_id, api_key=KEY, base_url=wire.url)
    stream = stream_with_tools(provider, request("2 + 40?"), toolbox, max_requests=max_requests)
    try:
        async with aclosing(stream) as payloads:
            said: list[Payload] = [payload async for payload in payloads]
    finally:
        await provider.aclose()
    return reduced(said)


@pytest.mark.parametrize(("provider_id", "tokens"), [("openai", (153, 29)), ("anthropic", (839, 75))])
async def test_a_call_its_output_and_the_message(provider_id: str, tokens: tuple[int, int]) -> None:
    async with WireServer(*(sse(provider_id, name) for name in CALLS[provider_id])) as wire:
        response = await answered(provider_id, wire, Adding())
    assert types(response) == ["function_call", "function_call_output", "message"]
    call, output, _ = response.output_items
    assert isinstance(call, FunctionCall)
    assert output == FunctionCallOutput(
        id=f"{call.id}_output", origin="system", call_id=call.call_id, output="42", success=True
    )
    assert (response.status, response.finish_reason) == ("complete", "stop")
    assert response.usage == Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1], total_tokens=sum(tokens))
    assert len(wire.requests) == 2
    sent = json.dumps(wire.requests[1].body)
    assert call.call_id in sent
    assert '"42"' in sent
    assert "2 + 40?" in sent


def with_one_id(reply: Reply) -> Reply:
    """The reply of a server that calls the first item of each answer the same."""
    return Reply(re.sub(rb'"(id|item_id)":\s*"(fc|msg)_[^"]*"', rb'"\1":"item_0"', reply.body))


async def test_items_of_several_answers_with_one_id_are_told_apart() -> None:
    replies = [with_one_id(sse("openai", name)) for name in ("function_call", "function_call", "after_function_call")]
    assert all(reply.body.count(b'"item_0"') > 3 for reply in replies)
    async with WireServer(*replies) as wire:
        response = await answered("openai", wire, Adding())
    assert types(response) == [*["function_call", "function_call_output"] * 2, "message"]
    assert [item.id for item in response.output_items if item.type != "function_call_output"] == [
        "item_0",
        "item_0_2",
        "item_0_3",
    ]
    message = response.output_items[-1]
    assert isinstance(message, Message)
    assert "42" in message.content


async def test_calls_of_one_answer_are_all_run() -> None:
    async with WireServer(sse("openai", "parallel_calls"), sse("openai", "after_function_call")) as wire:
        response = await answered("openai", wire, Adding())
    assert [item.output for item in response.output_items if isinstance(item, FunctionCallOutput)] == ["3", "7"]
    kinds = [item["type"] for item in wire.requests[1].body["input"]]
    assert kinds == ["message", *["function_call"] * 2, *["function_call_output"] * 2]


async def test_a_tool_that_breaks_is_told_to_the_model() -> None:
    async with WireServer(sse("openai", "function_call"), sse("openai", "after_function_call")) as wire:
        response = await answered("openai", wire, Broken())
    output = response.output_items[1]
    assert isinstance(output, FunctionCallOutput)
    assert (output.success, output.output) == (False, "the tool failed")
    assert response.status == "complete"


async def test_an_error_of_the_second_request_ends_the_answer() -> None:
    async with WireServer(sse("openai", "function_call"), http_error("openai", "500")) as wire:
        response = await answered("openai", wire, Adding())
    assert response.status == "error"
    assert types(response) == ["function_call", "function_call_output"]


async def test_a_model_that_calls_in_circles_is_stopped() -> None:
    async with WireServer(sse("openai", "function_call"), sse("openai", "parallel_calls")) as wire:
        response = await answered("openai", wire, Adding(), max_requests=2)
    assert len(wire.requests) == 2
    assert (response.status, response.finish_reason) == ("complete", "tool_calls")
    assert types(response) == ["function_call", "function_call_output", "function_call", "function_call"]
