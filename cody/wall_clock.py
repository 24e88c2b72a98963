"""The time of day, for people and for what outlives a process. A step of the clock moves it: nothing waits by it."""

from __future__ import annotations

import time

from cody.contracts.wire import utc_text


def now_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def now_text() -> str:
    """Now as ISO 8601 in UTC with milliseconds."""
    return utc_text(now_ms())
