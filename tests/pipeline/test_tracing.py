"""Spans reach a collector with the right parents; without one, nothing of OpenTelemetry is loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from cody.contracts.stream_events import TraceContext
from cody.pipeline.tracing import active_trace_context, current_trace_context, event_trace, is_tracing, span, tracing
from cody.settings import tracing_exporter
from tests.conftest import Wait
from tests.pipeline.collector import Collector, collecting

REMOTE = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-01", tracestate="vendor=1")


@pytest.fixture(autouse=True)
def no_otel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as one:
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)
        yield one


@contextmanager
def traced() -> Iterator[bool]:
    """Tracing, with all of its spans at the collector afterwards."""
    with tracing("cody-test") as recording:
        yield recording
    until_closed()


def until_closed() -> None:
    """What is sent at the end may take longer on a busy machine than tracing itself waits for it."""
    for thread in threading.enumerate():
        if thread.name == "tracing-close":
            thread.join(60)
            assert not thread.is_alive()


def test_spans_have_their_parents_names_and_attributes(collector: Collector) -> None:
    with traced() as recording:
        assert recording
        with span("outer", kind="server", run_id="r1", turn=2, missing=None), span("inner") as inner:
            inner.set(status="done")
    outer, within = collector.one("outer"), collector.one("inner")
    assert (outer.service, outer.parent, within.parent) == ("cody-test", "", outer.span_id)
    assert within.trace_id == outer.trace_id
    assert outer.attributes == {"run.id": "r1", "turn": "2"}
    assert within.attributes == {"status": "done"}
    assert not is_tracing()


def test_a_context_from_elsewhere_is_taken_up(collector: Collector) -> None:
    with traced(), span("outer"), span("taken up", REMOTE):
        inside = current_trace_context()
        assert event_trace("00-" + "c" * 32 + "-" + "d" * 16 + "-01")() == inside
    taken = collector.one("taken up")
    assert (taken.trace_id, taken.parent) == ("a" * 32, "b" * 16)
    assert inside == TraceContext(traceparent=f"00-{taken.trace_id}-{taken.span_id}-01", tracestate="vendor=1")


def test_an_error_is_told_by_its_class_never_by_its_words(collector: Collector) -> None:
    with traced(), pytest.raises(ValueError, match="s3cret"), span("broken"):
        raise ValueError("s3cret")
    broken = collector.one("broken")
    assert (broken.failed, broken.attributes) == (True, {"error.type": "ValueError"})


async def test_tasks_go_on_in_the_trace_that_began_them(collector: Collector) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        with span("in a task"):
            pass

    with traced():
        with span("request"):
            task = asyncio.create_task(work())
        await task
    assert collector.one("in a task").parent == collector.one("request").span_id


async def test_redis_commands_belong_to_a_trace_or_to_none(collector: Collector, redis: Redis, valkey_url: str) -> None:
    with traced():
        await redis.ping()
        with span("with a command"):
            await redis.set("codi:tracing-test", "s3cret-value", ex=10)
        await redis.delete("codi:tracing-test")
    assert [one.name for one in collector.spans] == ["SET", "with a command"]
    assert collector.one("SET").parent == collector.one("with a command").span_id
    assert "s3cret" not in repr(collector.spans)


def test_the_service_can_be_renamed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with traced(), span("one"):
        pass
    assert collector.one("one").service == "mine"


async def test_spans_are_sent_while_the_process_lives(collector: Collector, eventually: Wait) -> None:
    with traced():
        with span("early"):
            pass
        await eventually(lambda: bool(collector.named("early")))


def test_a_collector_that_is_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with tracing("cody-test"), span("lost"):
        pass
    assert not is_tracing()
    # What still tries draws random numbers, which other tests' strategies would take for their own.
    until_closed()


@pytest.mark.parametrize(
    ("variables", "exporter"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
    ],
)
def test_the_standard_variables_decide(
    variables: dict[str, str], exporter: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing_exporter() == exporter


def test_without_an_exporter_nothing_is_loaded_and_contexts_are_still_made() -> None:
    with tracing("cody-test") as recording, span("nothing", run_id="r") as none:
        none.set(status="x")
        assert (recording, active_trace_context()) == (False, None)
        assert current_trace_context() != current_trace_context()
        assert event_trace(REMOTE.traceparent)().traceparent.split("-")[1] == "a" * 32
    program = (
        "import sys\n"
        "from cody.pipeline.tracing import span, tracing, current_trace_context\n"
        "with tracing('x'), span('y'): current_trace_context()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
