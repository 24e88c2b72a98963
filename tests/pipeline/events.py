"""Events for tests: a stream of payloads stamped with a clock that ticks and ids that count."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from uuid import UUID

from cody.contracts.stream_events import Payload, ResponseStart, StreamEvent, TraceContext, stream_event

TRACE = TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
START = ResponseStart(
    response_id="resp-1",
    turn_id="turn-1",
    thread_id="thread-1",
    model_id="model-1",
    provider_id="provider-1",
    created_at=1_700_000_000_000,
)


def event_of(payload: Payload, number: int, run_id: str = START.response_id) -> StreamEvent:
    """The `number`th event of a stream, `number` milliseconds after its start."""
    return stream_event(
        payload,
        event_id=UUID(int=number + 1),
        timestamp=START.created_at + number,
        trace_context=TRACE,
        run_id=run_id,
    )


def stream_of(payloads: Iterable[Payload]) -> list[StreamEvent]:
    return [event_of(payload, number) for number, payload in enumerate(payloads)]


def ticking(start: int) -> Callable[[], int]:
    """A clock that is one millisecond later each time it is read."""
    return itertools.count(start).__next__
