"""What the server counts, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cody.contracts.health import Backlog
from server.streams import OpenStreams

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _Now(Collector):
    """Figures kept elsewhere as plain numbers: counting one event for one client must cost next to nothing."""

    def __init__(self, streams: OpenStreams, active_runs: Callable[[], int]) -> None:
        self._streams = streams
        self._active_runs = active_runs

    def collect(self) -> Iterator[Metric]:
        streams = self._streams
        yield GaugeMetricFamily("cody_active_runs", "Runs that this process works on.", value=self._active_runs())
        yield GaugeMetricFamily("cody_open_streams", "Event streams that are open.", value=streams.count)
        yield CounterMetricFamily("cody_streams_opened", "Event streams opened.", value=streams.opened)
        yield CounterMetricFamily(
            "cody_streams_cut_off", "Event streams cut because the client did not read.", value=streams.cut_off
        )
        yield CounterMetricFamily("cody_stream_events_sent", "Events sent, all streams.", value=streams.events_sent)


class _Archive(Collector):
    """How far the archive is behind, as it was when it was last asked; nothing where that is not known."""

    def __init__(self) -> None:
        self.behind: Mapping[str, Backlog | None] = {}

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "cody_archive_waiting", "News that the archive has not got yet, of all servers.", labels=["of"]
        )
        oldest = GaugeMetricFamily(
            "cody_archive_lag_seconds", "Age of the oldest news that the archive has not got yet.", labels=["of"]
        )
        for of, behind in self.behind.items():
            if behind is not None:
                waiting.add_metric([of], behind.waiting)
                oldest.add_metric([of], behind.oldest_ms / 1000)
        yield waiting
        yield oldest


class Metrics:
    """The server's figures; a registry of its own, so that two servers in one process do not mix."""

    def __init__(self, streams: OpenStreams, active_runs: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "cody_http_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "cody_http_request_seconds",
            "Time to the end of the answer; streams are not counted.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._archive = _Archive()
        self._registry.register(_Now(streams, active_runs))
        self._registry.register(self._archive)
        ProcessCollector(registry=self._registry)

    def answered(self, *, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one request. `route` is the pattern, never the path: labels must stay few."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def text(self, archive: Mapping[str, Backlog | None]) -> bytes:
        """All figures, as CONTENT_TYPE_LATEST. `archive`: how far it is behind, of runs and of responses."""
        self._archive.behind = archive
        return generate_latest(self._registry)
