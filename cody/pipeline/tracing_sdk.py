"""The side of tracing that needs OpenTelemetry's SDK (1.45); imported only where traces are exported."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from cody import __version__
from cody.contracts.stream_events import TraceContext

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attribute = str | int | float | bool | None

CLOSING_S = 3.0
"""For the last spans of a process; a collector that is away costs an exit no more than this."""
_UNNAMED = "unknown_service"
_W3C = TraceContextTextMapPropagator()
_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class LiveSpan:
    """A span that is recorded."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        self._span.set_attributes(_named(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)


class NoLonelyCommands(sampling.Sampler):
    """Leaves out commands to Redis and SQL outside of any trace: each look for news would be a trace of its own."""

    def __init__(self, inner: sampling.Sampler) -> None:
        self._inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> sampling.SamplingResult:
        if kind is SpanKind.CLIENT and not trace.get_current_span(parent_context).get_span_context().is_valid:
            return sampling.SamplingResult(sampling.Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"NoLonelyCommands{{{self._inner.get_description()}}}"


class Tracing:
    """A tracer of the process's own, with Redis instrumented; `close` sends what is left."""

    def __init__(self, service_name: str) -> None:
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, _UNNAMED)).startswith(_UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: service_name}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.sampler = NoLonelyCommands(self._provider.sampler)  # the inner one is OTEL_TRACES_SAMPLER's
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("cody", __version__)
        RedisInstrumentor().instrument(tracer_provider=self._provider)

    @contextlib.contextmanager
    def span(
        self, name: str, parent: TraceContext | None, kind: Kind, attributes: Mapping[str, Attribute]
    ) -> Iterator[LiveSpan]:
        with self._tracer.start_as_current_span(
            name,
            context=None if parent is None else _extracted(parent),
            kind=_KINDS[kind],
            attributes=_named(attributes),
            # By hand, below: the message of an error may quote what must not leave the house.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield LiveSpan(span)
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR))
                span.set_attribute("error.type", type(error).__name__)
                raise

    def current(self) -> TraceContext | None:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        if "traceparent" not in carrier:
            return None
        return TraceContext(traceparent=carrier["traceparent"], tracestate=carrier.get("tracestate"))

    def close(self) -> None:
        RedisInstrumentor().uninstrument()
        # In a thread that dies with the process: the exporter tries again and again, for up to 10 s.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True, name="tracing-close")
        closing.start()
        closing.join(CLOSING_S)


def _extracted(parent: TraceContext) -> Context:
    carrier = {"traceparent": parent.traceparent}
    if parent.tracestate:
        carrier["tracestate"] = parent.tracestate
    return _W3C.extract(carrier, context=Context())


def _named(attributes: Mapping[str, Attribute]) -> dict[str, str | int | float | bool]:
    return {
        name.replace("__", "-").replace("_", ".").replace("-", "_"): value
        for name, value in attributes.items()
        if value is not None
    }
