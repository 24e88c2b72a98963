"""Exports: all of a run or a thread in JSONL, readable and not to be forged in Markdown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from cody.contracts.responses import FunctionCall, FunctionCallOutput, Message, Response, Usage
from cody.contracts.run import RunSnapshot
from cody.contracts.run_config import RunConfig
from cody.errors import NotFound
from cody.pipeline import export_markdown as markdown
from cody.pipeline.archive import Archive, ResponseRow
from cody.pipeline.export import EVENTS_AT_ONCE, RESPONSES_AT_ONCE, export_run, export_thread, unsealed
from cody.pipeline.run_projector import RunProjector
from tests.pipeline.live_runs import answered, called, live_run, redis_frames, said, until_still


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def lines(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


async def test_a_run_has_every_event_once(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis)
    await run.turn(1)
    await run.emit_many(2 * EVENTS_AT_ONCE + 7)
    await run.turn(1, "completed")
    await run.complete()
    await until_still(projecting)
    found = lines(await whole(await export_run(archive, run.run_id, "jsonl")))
    assert (found[0]["kind"], found[0]["run"]["runId"], found[0]["run"]["status"]) == ("run", run.run_id, "completed")
    assert [(line["kind"], line["turn"]["turn"]) for line in found if line["kind"] == "turn"] == [("turn", 1)]
    events = [line for line in found if line["kind"] == "event"]
    frames = await redis_frames(redis, run.run_id)
    assert [(event["id"], event["event"]) for event in events] == [(one.id, json.loads(one.data)) for one in frames]


async def test_a_run_as_markdown_tells_what_was_done(redis: Redis, archive: Archive, projecting: RunProjector) -> None:
    run = await live_run(redis, epic_id="checkout")
    await run.turn(1)
    await run.emit(said("I will look."), called("ls -la"), answered("total 0\n"))
    await run.turn(1, "completed", duration_ms=61_000)
    await run.turn(2)
    await run.emit(said("# Turn 9: completed", turn=2))
    await run.complete()
    await until_still(projecting)
    text = (await whole(await export_run(archive, run.run_id, "md"))).decode()
    assert text.startswith(f"# Run {run.run_id}: checkout\n\n- Status: completed\n")
    assert "\n## Turn 1: completed, 61 s\n" in text
    assert "\n**Agent**\n\n> I will look.\n" in text
    assert "\n**Call of `exec_command`**\n\n```\nls -la\n```\n" in text
    assert "\n**Output**\n\n```\ntotal 0\n```\n" in text
    assert text.index("## Turn 1") < text.index("ls -la") < text.index("## Turn 2")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        f"# Run {run.run_id}: checkout",
        "## Turn 1: completed, 61 s",
        "## Turn 2: running",
    ]


async def test_what_is_not_there_is_not_found(archive: Archive) -> None:
    for missing in (export_run(archive, "nobody", "jsonl"), export_thread(archive, "nothing", "md")):
        with pytest.raises(NotFound):
            await missing


def answer(id: str, created_at: int) -> Response:
    return Response(
        id=id,
        turn_id=f"turn-{id}",
        thread_id="thread-1",
        model_id="model-1",
        provider_id="openai",
        created_at=created_at,
        updated_at=created_at,
        status="complete",
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
        output_items=(
            Message(id="u", origin="user", content="2 + 40?"),
            FunctionCall(id="c", name="add", arguments='{"a": 2}', call_id="c1"),
            FunctionCallOutput(id="o", call_id="c1", output="```\n# 42", success=False),
            Message(id="m", content="It is 42 – naïve"),
        ),
    )


async def put(archive: Archive, response: Response) -> None:
    row = ResponseRow(
        response_id=response.id,
        run_id=None,
        turn_id=response.turn_id,
        thread_id=response.thread_id,
        agent_id=None,
        model_id=response.model_id,
        provider_id=response.provider_id,
        status=response.status,
        created_at=response.created_at,
        updated_at=response.updated_at,
        response=response.model_dump_json(exclude_none=True),
        reducer_state="{}",
        last_event_id="1-0",
    )
    assert await archive.put_response(row, after_event_id=None)


async def test_a_thread_in_both_formats(archive: Archive) -> None:
    first, second = answer("r1", 1_000), answer("r2", 2_000)
    await put(archive, second)
    await put(archive, first)
    found = lines(await whole(await export_thread(archive, "thread-1", "jsonl")))
    assert found[0] == {"kind": "thread", "threadId": "thread-1", "responses": 2}
    assert [Response.model_validate_json(json.dumps(line["response"])) for line in found[1:]] == [first, second]
    text = (await whole(await export_thread(archive, "thread-1", "md"))).decode()
    assert text.index("## Response r1") < text.index("## Response r2")
    assert "\n**User**\n\n> 2 + 40?\n" in text
    assert "\n**Output (failed)**\n\n````\n```\n# 42\n````\n" in text
    assert "> It is 42 – naïve" in text


def test_sealed_values_do_not_leave() -> None:
    run = RunSnapshot(
        run_id="r", status="completed", created_at="t", updated_at="t", epic_id="e", stream_key="k", working_dir="/r",
        agent="codex", config=RunConfig(working_dir="/r", env={"API_KEY": "sealed:v1:abc", "MODE": "fast"}),
    )  # fmt: skip
    assert unsealed(run).config.env == {"API_KEY": "[sealed]", "MODE": "fast"}


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("a `#>\n~-=")))
def test_no_text_gets_out_of_its_place(text: str) -> None:
    item = {"type": "function_call_output", "output": text}
    block = markdown.event({"type": "turn_item", "item": item}).split("\n\n", 1)[1].rstrip("\n").split("\n")
    fence = block[0]
    assert block[-1] == fence
    assert all(fence not in line for line in block[1:-1])
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    quoted = markdown.event({"type": "turn_item", "item": said}).split("\n\n", 1)[1].rstrip("\n")
    assert all(line.startswith(">") for line in quoted.split("\n"))


@pytest.mark.parametrize(
    "item", [{}, {"type": 3}, {"type": "message", "content": "x"}, {"type": "reasoning", "summary": None}]
)
def test_an_item_of_another_shape_is_shown_and_ends_nothing(item: dict[str, Any]) -> None:
    markdown.event({"type": "turn_item", "item": item})


async def test_a_thread_of_any_length_is_whole(archive: Archive) -> None:
    """Several begin in the same millisecond; one begins while the export is under way."""
    count = 1_000 + 2 * RESPONSES_AT_ONCE + 7
    expected = [f"r{number:05}" for number in range(count)]
    for number, id in enumerate(expected):
        await put(archive, answer(id, 1_000 + number // 9))
    pieces = await export_thread(archive, "thread-1", "jsonl")
    head = json.loads(await anext(pieces))
    await put(archive, answer("later", 9_000))
    found = lines(await whole(pieces))
    assert head == {"kind": "thread", "threadId": "thread-1", "responses": count}
    assert [line["response"]["id"] for line in found] == expected
