"""Time that a test can step, and wake-ups: nothing in a sync sleeps, it waits for a moment or for a ring."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Clock:
    """The system's time (UTC), plus whatever it was stepped by.

    Who waits has looked at the world first: take `rings`, look, then `wait` with the number taken. A ring in between
    is not missed.
    """

    def __init__(self) -> None:
        self._stepped = timedelta()
        self._waiting: set[asyncio.Future[None]] = set()
        self.rings = 0

    def now(self) -> datetime:
        """The time now."""
        return datetime.now(UTC) + self._stepped

    def step(self, seconds: float) -> None:
        """Let time pass at once; for tests."""
        self._stepped += timedelta(seconds=seconds)
        self.ring()

    def ring(self) -> None:
        """Wake everybody who waits: something happened."""
        self.rings += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, seen: int, until: datetime | None) -> None:
        """Return at the first ring after `seen`, or when it is `until`; None waits for a ring only."""
        if self.rings != seen or (until is not None and until <= self.now()):
            return
        ring = asyncio.get_running_loop().create_future()
        self._waiting.add(ring)
        try:
            await asyncio.wait({ring}, timeout=None if until is None else self._seconds_until(until))
        finally:
            self._waiting.discard(ring)
            ring.cancel()

    def _seconds_until(self, until: datetime) -> float | None:
        return (until - self.now()).total_seconds()


class ManualClock(Clock):
    """Time that stands still until it is stepped: for tests of anything that waits."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        super().__init__()
        self._start = start

    def now(self) -> datetime:
        """The start, plus the steps."""
        return self._start + self._stepped

    def _seconds_until(self, until: datetime) -> float | None:
        return None
