"""The ASGI application: the service behind its routes, behind the gate, the guard and the boundary."""

from __future__ import annotations

from starlette.types import ASGIApp

from cody.settings import Settings
from cody.tokens import TokenStore
from harness.service import RunService
from server.access import AccessEndpoints
from server.audit import AuditLog
from server.audited import Audited
from server.auth import Gate, Sessions
from server.boundary import Boundary
from server.guards import Guard, Site
from server.health import HealthEndpoints
from server.limits import Limits
from server.metrics import Metrics
from server.routes import Endpoint, router
from server.runs import RunEndpoints
from server.streams import OpenStreams


def build_app(service: RunService, site: Site, streams: OpenStreams, settings: Settings) -> ASGIApp:
    """The whole API of this service, for requests to this site. Raises ConfigurationError for tokens that can't be used."""
    metrics = Metrics(streams, lambda: service.active_runs)
    tokens = TokenStore(settings.state_dir, override=settings.token)
    tokens.prepare()
    sessions, limits, audit = Sessions(site.port), Limits(), AuditLog(settings.state_dir)
    table: list[Endpoint] = [
        *RunEndpoints(service, streams, limits).table(),
        *HealthEndpoints(service, metrics).table(),
        *AccessEndpoints(tokens, sessions, audit, site).table(),
    ]
    gated = Gate(Audited(router(table), audit), tokens, sessions, limits)
    return Boundary(Guard(gated, site), metrics)
