"""How many events of a run Redis keeps: at most the contract's number, fewer when they are so large that it would be too much."""

from __future__ import annotations

from cody.store.keys import EVENTS_MAXLEN

STREAM_BYTES = 256 << 20
"""Payloads of one run in Redis, about. The archive has them all; a reader who is further back is told so (410)."""
KEPT_EVENTS = 1_000
"""Kept whatever their size: the largest event is bounded too."""
WINDOW_EVENTS = 1_000
"""Over about so many of the last events the mean is taken."""


class StreamBound:
    """Learns how large this run's events are. Not exact, and it need not be: it holds memory to the order of STREAM_BYTES."""

    def __init__(self, stream_bytes: int = STREAM_BYTES) -> None:
        self._stream_bytes = stream_bytes
        self._mean_bytes = 0.0

    def add(self, events: int, size: int) -> None:
        """So many events with so many bytes of payload were written."""
        if events:
            share = min(1.0, events / WINDOW_EVENTS)
            self._mean_bytes += (size / events - self._mean_bytes) * share

    @property
    def keep(self) -> int:
        """How many events to keep, the newest."""
        if self._mean_bytes * EVENTS_MAXLEN <= self._stream_bytes:
            return EVENTS_MAXLEN
        return max(KEPT_EVENTS, int(self._stream_bytes / self._mean_bytes))
