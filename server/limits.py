"""How much one caller may ask for: requests by a token bucket, what stays open by counts. Others are not slowed down by it."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from server.problems import HttpError

REQUESTS_PER_SECOND = 500.0
BURST = 2_000.0
STREAMS = 10_000
"""As many dashboards as a team can open, with room; each costs some 14 KB."""
LONG_ANSWERS = 1_000
"""Files on their way to one caller at a time: each has a connection, and most an open file."""
MAX_CALLERS = 10_000


class TooManyRequests(HttpError):
    code = "too_many_requests"
    status = 429


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    streams: int = 0


class Counted:
    """An answer that is counted while it is sent."""

    def __init__(self, answer: ASGIApp, closed: Callable[[], None]) -> None:
        self._answer = answer
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            self._closed()


class Counts:
    """How many of something each caller has open."""

    def __init__(self, most: int, what: str) -> None:
        """`what` they are, for people."""
        self._most = most
        self._what = what
        self._open: Counter[str] = Counter()

    def open(self, name: str) -> Callable[[], None]:
        """Count one until the answer is called; raises TooManyRequests."""
        if self._open[name] >= self._most:
            raise TooManyRequests(f"{name} has {self._open[name]} {self._what} open", headers={"Retry-After": "10"})
        self._open[name] += 1

        def closed() -> None:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]

        return closed


class Limits:
    """One bucket a caller."""

    def __init__(
        self,
        *,
        per_second: float = REQUESTS_PER_SECOND,
        burst: float = BURST,
        streams: int = STREAMS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._streams = streams
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def admit(self, name: str) -> None:
        """Count a request; raises TooManyRequests, which says when to come back."""
        bucket, now = self._bucket(name), self._clock()
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)
        bucket.at = now
        if bucket.tokens < 1:
            wait_s = max(1, round((1 - bucket.tokens) / self._per_second))
            raise TooManyRequests(
                f"more than {self._per_second:g} requests a second from {name}", headers={"Retry-After": str(wait_s)}
            )
        bucket.tokens -= 1

    def open_stream(self, name: str) -> Callable[[], None]:
        """Count a stream until the answer is called; raises TooManyRequests."""
        bucket = self._bucket(name)
        if bucket.streams >= self._streams:
            raise TooManyRequests(f"{name} has {bucket.streams} streams open", headers={"Retry-After": "10"})
        bucket.streams += 1

        def closed() -> None:
            bucket.streams -= 1

        return closed

    def _bucket(self, name: str) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, self._clock())
            if len(self._buckets) > MAX_CALLERS:
                idle = next((one for one, held in self._buckets.items() if not held.streams and one != name), None)
                if idle is not None:
                    del self._buckets[idle]
        return bucket
