"""The ASGI application: the service behind its routes, behind the guard, behind the boundary."""

from __future__ import annotations

from starlette.types import ASGIApp

from harness.service import RunService
from server.boundary import Boundary
from server.guards import Guard, Site
from server.health import HealthEndpoints
from server.metrics import Metrics
from server.routes import Endpoint, router
from server.runs import RunEndpoints
from server.streams import OpenStreams


def endpoints(service: RunService, streams: OpenStreams, metrics: Metrics) -> list[Endpoint]:
    """Everything the server answers to."""
    return [*RunEndpoints(service, streams).table(), *HealthEndpoints(service, metrics).table()]


def build_app(service: RunService, site: Site, streams: OpenStreams) -> ASGIApp:
    """The whole API of this service, for requests to this site."""
    metrics = Metrics(streams, lambda: service.active_runs)
    return Boundary(Guard(router(endpoints(service, streams, metrics)), site), metrics)
