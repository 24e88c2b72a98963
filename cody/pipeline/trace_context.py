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


def trace_id_of(traceparent: str | None) -> str | None:
    """The id of the trace, 32 hex digits; None for what names none."""
    found = _TRACEPARENT.match(traceparent or "")
    return found[1] if found else None


def trace_context_of(traceparent: str | None) -> TraceContext | None:
    """The context that this names; None for anything else."""
    return TraceContext(traceparent=traceparent) if traceparent and _TRACEPARENT.match(traceparent) else None


def trace_of(traceparent: str | None = None) -> Trace:
    """The trace that `traceparent` belongs to, with a span of our own; a new trace for anything that is none."""
    found = _TRACEPARENT.match(traceparent or "")
    trace_id, flags = found.groups() if found else (secrets.token_hex(16), "01")
    context = TraceContext(traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-{flags}")
    return lambda: context
