"""Where the events of an answer get their trace context from: the request that caused it, or a trace of its own.

Format: W3C Trace Context, version 00.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from cody.contracts.stream_events import TraceContext

Trace = Callable[[], TraceContext]

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})\Z")


def trace_of(traceparent: str | None = None) -> Trace:
    """The trace that `traceparent` belongs to, with a span of our own; a new trace for anything that is none."""
    found = _TRACEPARENT.match(traceparent or "")
    trace_id, flags = found.groups() if found else (secrets.token_hex(16), "01")
    context = TraceContext(traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-{flags}")
    return lambda: context
