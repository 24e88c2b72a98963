"""HP-01 to HP-10, each from HTTP submit over the provider's wire, Redis and projector to SQL, and over SSE to a client."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Reasoning, Usage
from cody.contracts.submit import ThreadAnswer, ThreadPage
from cody.pipeline.hydrator import Hydrator, events_of, hydrate
from tests.pipeline.serving import Served, SharedServer, kinds, texts
from tests.pipeline.wire_server import sse

HELLO = "Hello – grüß dich 👋🏽!"
ADD = {
    "name": "add",
    "description": "Add two numbers",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
}


async def test_hp_01_and_02_a_message_of_each_provider(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", sse("openai", "message")) as openai,
        shared.wire("anthropic", sse("anthropic", "message")) as anthropic,
        shared.visited() as one,
    ):
        for provider_id in ("openai", "anthropic"):
            response = await one.answered(provider_id, "Say hello")
            assert (response.status, response.finish_reason, response.provider_id) == ("complete", "stop", provider_id)
            assert kinds(response) == ["message of user", "message"]
            assert texts(response) == [HELLO]
            assert texts(response, lambda item: item.origin == "user") == ["Say hello"]
    assert [request.path for request in openai.requests] == ["/responses"]
    assert openai.requests[0].headers["authorization"] == "Bearer sk-openai-not-real"
    assert openai.requests[0].body["model"] == "gpt-5.5"
    assert [request.path for request in anthropic.requests] == ["/v1/messages"]


async def test_hp_03_and_04_reasoning_before_the_message(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", sse("openai", "reasoning_message")),
        shared.wire("anthropic", sse("anthropic", "thinking_message")),
        shared.visited() as one,
    ):
        for provider_id in ("openai", "anthropic"):
            response = await one.answered(provider_id, "Think first", reasoningEffort="high")
            assert kinds(response) == ["message of user", "reasoning", "message"]
            assert all(item.content for item in response.output_items if isinstance(item, Reasoning))
            assert response.status == "complete"


async def test_hp_05_a_call_its_output_and_the_message(shared: SharedServer) -> None:
    """The client runs the tool, and hands its output back in the thread's next turn."""
    async with (
        shared.wire("openai", sse("openai", "function_call"), sse("openai", "after_function_call")) as openai,
        shared.visited() as one,
    ):
        asked = await one.answered(prompt="2 + 40?", tools=[ADD])
        assert (asked.status, asked.finish_reason) == ("complete", "tool_calls")
        call = asked.output_items[-1]
        assert isinstance(call, FunctionCall)
        terms = json.loads(call.arguments)
        outputs = [{"callId": call.call_id, "output": str(terms["a"] + terms["b"])}]
        told = await one.answered(prompt=None, threadId=asked.thread_id, toolOutputs=outputs, tools=[ADD])
        answer = await one.http.get(f"/api/v2/threads/{asked.thread_id}")
    assert kinds(told) == ["function_call_output of user", "message"]
    thread = ThreadAnswer.model_validate_json(answer.content)
    assert [kind for response in thread.responses for kind in kinds(response)] == [
        "message of user",
        *(["function_call"] if kinds(asked)[-2:] == ["message of user", "function_call"] else kinds(asked)[1:]),
        "function_call_output of user",
        "message",
    ]
    sent = openai.requests[1].body["input"]
    assert [item["type"] for item in sent][-2:] == ["function_call", "function_call_output"]
    assert (sent[-1]["call_id"], sent[-1]["output"]) == (call.call_id, "42")
    output = told.output_items[0]
    assert isinstance(output, FunctionCallOutput)
    assert output.success


async def listed(one: Served, **query: str) -> ThreadPage:
    answer = await one.http.get("/api/v2/threads", params=query)
    return ThreadPage.model_validate_json(answer.content)


async def test_hp_06_the_second_turn_carries_the_first(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", sse("openai", "message"), sse("openai", "second_turn")) as openai,
        shared.wire("anthropic", sse("anthropic", "message"), sse("anthropic", "second_turn")) as anthropic,
        shared.visited() as one,
    ):
        answered_last_first: list[str] = []
        for provider_id, wire in (("openai", openai), ("anthropic", anthropic)):
            first = await one.submit(provider_id, "What is your name?")
            # At once: the first turn is neither projected nor over.
            second = await one.submit(provider_id, "And mine?", threadId=first.thread_id)
            assert second.thread_id == first.thread_id
            assert second.turn_id != first.turn_id
            assert (await one.ended(second.run_id)).status == "complete"
            assert (await one.ended(first.run_id)).status == "complete"
            body = wire.requests[1].body
            said = body["input"] if provider_id == "openai" else body["messages"]
            assert [message["role"] for message in said] == ["user", "assistant", "user"]
            text = json.dumps(said, ensure_ascii=False)
            assert text.index("What is your name?") < text.index(HELLO) < text.index("And mine?")
            answered_last_first.insert(0, first.thread_id)
        pages = [await listed(one, limit="1")]
        while pages[-1].next_cursor is not None:
            pages.append(await listed(one, limit="1", cursor=pages[-1].next_cursor))
        whole = await listed(one, limit="100")
    assert whole.next_cursor is None
    assert [page.threads for page in pages] == [[thread] for thread in whole.threads]
    assert len({thread.thread_id for thread in whole.threads}) == len(pages)
    assert [(thread.thread_id, thread.responses, thread.status) for thread in whole.threads[:2]] == [
        (thread_id, 2, "complete") for thread_id in answered_last_first
    ]


async def test_hp_07_usage(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", sse("openai", "message")),
        shared.wire("anthropic", sse("anthropic", "cached_usage")),
        shared.visited() as one,
    ):
        for provider_id in ("openai", "anthropic"):
            usage = (await one.answered(provider_id)).usage
            assert isinstance(usage, Usage)
            assert usage.prompt_tokens > 0
            assert usage.completion_tokens > 0
            assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_hp_08_a_lone_function_call(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", sse("openai", "function_call")),
        shared.wire("anthropic", sse("anthropic", "tool_use")),
        shared.visited() as one,
    ):
        for provider_id in ("openai", "anthropic"):
            response = await one.answered(provider_id, "2 + 40?", tools=[ADD])
            call = response.output_items[-1]
            assert isinstance(call, FunctionCall)
            assert call.name == "add"
            assert set(json.loads(call.arguments)) == {"a", "b"}
            assert response.finish_reason == "tool_calls"


async def test_hp_09_a_stream_that_is_cut_at_half_and_resumed(shared: SharedServer) -> None:
    async with shared.wire("openai", sse("openai", "message")), shared.visited() as one:
        told = await one.submit()
        hydrator, seen = Hydrator(), []
        async with aclosing(events_of(one.http, told.run_id)) as events:
            async for event_id, event in events:
                seen.append(event_id)
                hydrator.feed(event, event_id=event_id)
                if event.type == "item_delta":
                    break
        persisted = await one.persisted(told.run_id)
        async with aclosing(events_of(one.http, told.run_id, last_event_id=hydrator.last_event_id)) as events:
            async for event_id, event in events:
                seen.append(event_id)
                hydrator.feed(event, event_id=event_id)
        assert hydrator.response == persisted
        assert seen == [f"{number}-0" for number in range(1, len(seen) + 1)]
        # Once more behind the end: nothing comes but the end itself.
        async with aclosing(events_of(one.http, told.run_id, last_event_id=seen[-1])) as events:
            assert [event_id async for event_id, _ in events] == []
        assert await hydrate(one.http, told.run_id, hydrator=hydrator) == persisted


async def test_hp_10_two_concurrent_turns_do_not_mix(shared: SharedServer) -> None:
    async with (
        shared.wire("openai", sse("openai", "message")),
        shared.wire("anthropic", sse("anthropic", "thinking_message")),
        shared.visited() as one,
    ):
        first, second = await asyncio.gather(
            one.answered("openai", "I am the first"), one.answered("anthropic", "I am the second")
        )
    assert (first.provider_id, second.provider_id) == ("openai", "anthropic")
    assert first.thread_id != second.thread_id
    assert texts(first) == [HELLO]
    assert kinds(second) == ["message of user", "reasoning", "message"]
    assert texts(first, lambda item: item.origin == "user") == ["I am the first"]
    assert texts(second, lambda item: item.origin == "user") == ["I am the second"]
