"""Publishers and projectors of Responses on the suite's Redis."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from cody.contracts.responses import ErrorInfo, Message, Response, Usage
from cody.contracts.stream_events import ItemDelta, ItemDone, ItemStart, Payload, ResponseDone, ResponseStart
from cody.pipeline.archive import Archive
from cody.pipeline.response_projector import ResponsePace, ResponseProjector
from cody.store import keys
from cody.store.response_events import ResponseEvents
from cody.store.response_news import ResponseNewsReader

FAST = ResponsePace(gather_s=0.0, block_ms=50)
ERROR = ErrorInfo(code="provider_error", message="the provider fell over")


def opening(response_id: str | None = None, *, thread_id: str = "thread-1", turn_id: str = "turn-1") -> ResponseStart:
    return ResponseStart(
        response_id=response_id or str(uuid.uuid4()),
        turn_id=turn_id,
        thread_id=thread_id,
        model_id="model-1",
        provider_id="provider-1",
        created_at=1_700_000_000_000,
    )


def message(text: str, *, id: str = "msg-1", pieces: int = 3) -> list[Payload]:
    """A message that comes in so many deltas."""
    size = -(-len(text) // pieces)
    deltas = [ItemDelta(item_id=id, delta_content=text[at : at + size]) for at in range(0, len(text), size)]
    return [
        ItemStart(item_id=id, item_type="message"),
        *deltas,
        ItemDone(item_id=id, final_item=Message(id=id, content=text)),
    ]


def done(response_id: str) -> ResponseDone:
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    return ResponseDone(response_id=response_id, status="complete", usage=usage, finish_reason="stop")


@asynccontextmanager
async def response_projector(
    url: str, redis: Redis, archive: Archive, *, pace: ResponsePace = FAST
) -> AsyncIterator[ResponseProjector]:
    """One that is not running yet."""
    news = ResponseNewsReader(url, redis)
    try:
        yield ResponseProjector(ResponseEvents(redis), news, archive, pace=pace)
    finally:
        await news.aclose()


@asynccontextmanager
async def projecting(*projectors: ResponseProjector) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in projectors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in results), results


async def persisted(archive: Archive, response_id: str) -> Response | None:
    row = await archive.response(response_id)
    return None if row is None else Response.model_validate_json(row.response)


async def is_terminal(archive: Archive, response_id: str) -> bool:
    found = await persisted(archive, response_id)
    return found is not None and found.is_terminal


async def is_done(redis: Redis, archive: Archive, response_id: str) -> bool:
    """The row has its end, and all of the stream is acknowledged: that comes after the row."""
    if not await is_terminal(archive, response_id):
        return False
    groups = await redis.xinfo_groups(keys.response_events(response_id))
    return all((one["pending"], one["lag"]) == (0, 0) for one in groups)
