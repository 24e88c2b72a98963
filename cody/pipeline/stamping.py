"""Envelopes: what turns an adapter's payloads into events of one Response."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from cody.contracts.stream_events import Payload, StreamEvent, TraceContext, stream_event


@dataclass(frozen=True, slots=True)
class Stamper:
    """Stamps payloads with what its sources give at that moment. An event is stamped once: a retry sends it again."""

    run_id: str
    now_ms: Callable[[], int]
    new_id: Callable[[], UUID]
    trace: Callable[[], TraceContext]

    def stamp(self, payload: Payload) -> StreamEvent:
        return stream_event(
            payload,
            event_id=self.new_id(),
            timestamp=self.now_ms(),
            trace_context=self.trace(),
            run_id=self.run_id,
        )
