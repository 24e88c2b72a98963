"""What a client makes of a stream: equal to the fold, over repeats, and from the archive when the beginning is gone."""

from __future__ import annotations

import json
import uuid
from contextlib import aclosing

import pytest

from cody.contracts.stream_events import ItemDelta, stream_event_json
from cody.errors import NotFound, StreamTrimmed
from cody.pipeline.hydrator import Hydrator, events_of, hydrate
from cody.pipeline.reducer import fold
from cody.store import keys
from cody.store.response_events import ResponseEvents
from tests.conftest import Wait
from tests.pipeline.events import START, event_of, stream_of
from tests.pipeline.publishing import done, message
from tests.pipeline.serving import served
from tests.pipeline.wire_server import WireServer, sse

EVENTS = stream_of([START, *message("Hello"), done(START.response_id)])


def test_repeated_events_change_nothing() -> None:
    hydrator = Hydrator()
    for number in range(len(EVENTS)):
        for again in EVENTS[max(0, number - 2) : number + 1]:
            hydrator.feed(again, event_id=f"{number}-0")
    folded = fold(None, EVENTS)
    assert folded.state is not None
    assert hydrator.response == folded.state.response
    assert hydrator.last_event_id == f"{len(EVENTS) - 1}-0"
    assert hydrator.refused == []


def test_what_can_not_be_applied_is_kept_aside() -> None:
    hydrator = Hydrator()
    assert hydrator.feed(event_of(ItemDelta(item_id="m", delta_content="x"), 0)) is None
    hydrator.feed(EVENTS[0])
    hydrator.feed(event_of(ItemDelta(item_id="m", delta_content="x"), 9))
    assert [error.code for error in hydrator.refused] == ["event_before_start", "unknown_item"]
    assert hydrator.response is not None


async def test_an_event_of_an_unknown_type_is_kept_aside_as_the_projector_does() -> None:
    newer = json.loads(stream_event_json(EVENTS[1])) | {"type": "item_annotated", "event_id": str(uuid.uuid4())}
    events = [stream_event_json(one) for one in EVENTS]
    events.insert(2, json.dumps(newer).encode())
    hydrator = Hydrator()
    async with served() as one:
        async with one.server.redis() as redis:
            store = ResponseEvents(redis)
            await store.publish(START.response_id, events, publisher="newer", lease_ms=15_000, first=1, ends=True)
        assert await hydrate(one.http, START.response_id, hydrator=hydrator) == await one.persisted(START.response_id)
    assert [error.code for error in hydrator.refused] == ["malformed_event"]
    assert hydrator.last_event_id == f"{len(events)}-0"


async def test_a_stream_whose_beginning_is_gone_is_410_and_the_response_comes_from_the_archive(
    eventually: Wait,
) -> None:
    async with WireServer(sse("openai", "message")) as wire, served(openai=wire) as one:
        response = await one.answered()
        async with one.server.redis() as redis:
            key = keys.response_events(response.id)
            await redis.xtrim(key, minid="5-0", approximate=False)
            with pytest.raises(StreamTrimmed):
                async with aclosing(events_of(one.http, response.id, last_event_id="2-0")) as events:
                    await anext(events)
            # From the oldest that is kept: the rest alone makes no Response.
            assert await hydrate(one.http, response.id) == response
            await redis.delete(key)
        answer = await one.http.get(f"/api/v2/stream/{response.id}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "stream_trimmed")
        assert await hydrate(one.http, response.id) == response
        with pytest.raises(NotFound):
            await hydrate(one.http, "nobody")
