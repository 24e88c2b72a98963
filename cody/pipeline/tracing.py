"""Traces, by OpenTelemetry: spans around what matters, and the trace context that events carry from process to process.

Configured by the standard OTEL_* variables alone. Without an exporter nothing of OpenTelemetry is imported, and a span
costs less than a microsecond. Attributes are ids, names and numbers: never prompts, outputs or messages of errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from structlog import get_logger

from cody.contracts.stream_events import TraceContext
from cody.pipeline.trace_context import Trace, trace_of
from cody.settings import tracing_exporter

if TYPE_CHECKING:
    from cody.pipeline.tracing_sdk import Kind, LiveSpan, Tracing

log = get_logger()

Attribute = str | int | float | bool | None


class NoSpan:
    """A span that nobody records."""

    def set(self, **attributes: Attribute) -> None:
        pass

    def rename(self, name: str) -> None:
        pass


_NO_SPAN = nullcontext(NoSpan())
_active: Tracing | None = None


@contextlib.contextmanager
def tracing(service_name: str) -> Iterator[bool]:
    """Traces are recorded inside, if the environment says where to; what is not sent yet is sent at the end.

    `service_name`: what OTEL_SERVICE_NAME does not say. Tells whether anything is recorded. For the main function of a
    process: the end may block for some seconds when the collector is slow.
    """
    global _active
    exporter = tracing_exporter()
    if exporter != "otlp":
        if exporter is not None:
            log.warning("tracing.exporter_unknown", exporter=exporter, known="otlp, none")
        yield False
        return
    # Here, not above: 0.3 s and 20 MB that a process without a collector must not pay.
    from cody.pipeline.tracing_sdk import Tracing

    _active = opened = Tracing(service_name)
    log.info("tracing.started", service=service_name)
    try:
        yield True
    finally:
        _active = None
        opened.close()


def is_tracing() -> bool:
    return _active is not None


def span(
    name: str, parent: TraceContext | None = None, *, kind: Kind = "internal", **attributes: Attribute
) -> AbstractContextManager[NoSpan | LiveSpan]:
    """A span around the block: a child of `parent`, else of the span that is current here, else a trace of its own.

    Attributes that are None are left out; in their names `_` becomes a dot and `__` one `_` (`run_id` is `run.id`). An
    error that leaves the block is recorded by its class.
    """
    if _active is None:
        return _NO_SPAN
    return _active.span(name, parent, kind, attributes)


def active_trace_context() -> TraceContext | None:
    """The context of the current span; None when there is none, or nothing is traced."""
    return None if _active is None else _active.current()


def current_trace_context() -> TraceContext:
    """The context of the current span, else of a new trace."""
    return active_trace_context() or trace_of()()


def event_trace(traceparent: str | None = None) -> Trace:
    """What the events of an answer carry: the current span; where nothing is traced, the caller's trace or a new one."""
    active = active_trace_context()
    return trace_of(traceparent) if active is None else lambda: active
