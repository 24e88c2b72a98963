"""How many events of a run Redis keeps: the contract's number, fewer when they are so large that it would be too much.

What the archive does not have yet is kept beyond that: Redis is the only place that has it. An archive that is far behind is
spared what can be left out (`backlog`), and one that is further behind than that is not waited for (`limit`). For an archive
that nobody keeps there is neither.
"""

from __future__ import annotations

from cody.store.keys import EVENTS_MAXLEN, UNARCHIVED_MAXLEN

STREAM_BYTES = 256 << 20
"""Payloads of one run in Redis, about. The archive has them all; a reader who is further back is told so (410)."""
BACKLOG_EVENTS = 4 * EVENTS_MAXLEN
"""So many sentinels in two seconds are archived whole: small events cost little while they wait."""
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
        return self._within(EVENTS_MAXLEN, 1)

    @property
    def backlog(self) -> int:
        """So many events behind, the archive is spared output and custom events."""
        return self._within(BACKLOG_EVENTS, 2)

    @property
    def limit(self) -> int:
        """How many of the newest events to keep if the archive does not have them."""
        return self._within(UNARCHIVED_MAXLEN, 3)

    def _within(self, events: int, shares: int) -> int:
        """So many events, fewer when they are larger than so many times STREAM_BYTES."""
        size = shares * self._stream_bytes
        if self._mean_bytes * events <= size:
            return events
        return max(shares * KEPT_EVENTS, int(size / self._mean_bytes))
