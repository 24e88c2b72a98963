"""From an adapter's payloads to the Response that they make, as publisher and projector do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from cody.contracts.responses import Response
from cody.contracts.stream_events import (
    TERMINAL_PAYLOADS,
    ItemDelta,
    Payload,
    ResponseStart,
    StreamEvent,
    read_stream_event,
    stream_event_json,
)
from cody.pipeline.adapters.base import Adapter
from cody.pipeline.reducer import fold
from cody.pipeline.stamping import Stamper
from tests.pipeline.events import START, TRACE, ticking

_Chunk = TypeVar("_Chunk")


def translated(adapter: Adapter[_Chunk], chunks: Iterable[_Chunk]) -> list[Payload]:
    """All that the adapter tells of a stream, its end included."""
    payloads = adapter.start()
    for chunk in chunks:
        payloads += adapter.feed(chunk)
    return payloads + adapter.end()


def reduced(payloads: Iterable[Payload]) -> Response:
    """The Response; fails unless the payloads are one whole answer, over the wire and back, with nothing refused."""
    said = list(payloads)
    assert isinstance(said[0], ResponseStart)
    assert [payload for payload in said if isinstance(payload, ResponseStart)] == said[:1]
    assert [payload for payload in said if isinstance(payload, TERMINAL_PAYLOADS)] == said[-1:]
    result = fold(None, [read_stream_event(stream_event_json(event)) for event in stamped(said, said[0])])
    assert not result.refused
    assert result.state is not None
    assert result.state.response.is_terminal
    return result.state.response


def stamped(payloads: Iterable[Payload], opening: ResponseStart = START) -> list[StreamEvent]:
    stamper = Stamper(
        run_id=opening.response_id,
        now_ms=ticking(opening.created_at),
        new_id=counting(),
        trace=lambda: TRACE,
    )
    return [stamper.stamp(payload) for payload in payloads]


def counting() -> Callable[[], UUID]:
    numbers = ticking(1)
    return lambda: UUID(int=numbers())


def deltas(payloads: Iterable[Payload], item_id: str) -> list[str]:
    return [p.delta_content for p in payloads if isinstance(p, ItemDelta) and p.item_id == item_id]


def types(response: Response) -> list[str]:
    return [item.type for item in response.output_items]
