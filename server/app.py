"""The ASGI application: the service behind its routes, behind the gate, the guard and the boundary."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp

from cody.proof import new_key
from cody.settings import Settings
from cody.tokens import TokenStore
from harness.service import RunService
from server.access import AccessEndpoints
from server.audit import AuditLog
from server.audited import Audited
from server.auth import Gate, Sessions
from server.boundary import Boundary
from server.grants import Grants
from server.guards import Guard
from server.health import HealthEndpoints
from server.kept_sessions import SessionFile
from server.limits import Limits
from server.metrics import Metrics
from server.openapi import DocumentEndpoint
from server.responses import ResponseEndpoints
from server.routes import Endpoint, router
from server.runs import RunEndpoints
from server.search import SearchEndpoints
from server.site import Site
from server.static_files import StaticEndpoints
from server.streams import OpenStreams
from server.sync import SyncEndpoints
from server.sync_host import SyncHost
from server.traced import Traced


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes and the layers around them share."""

    site: Site
    streams: OpenStreams
    metrics: Metrics
    tokens: TokenStore
    sessions: Sessions
    grants: Grants
    limits: Limits
    audit: AuditLog
    sync: SyncHost
    proof_key: str
    """In this life's server.json: see `cody.proof`."""


def parts_of(service: RunService, site: Site, streams: OpenStreams, settings: Settings) -> Parts:
    """The parts for one application; opens and writes nothing."""
    tokens = TokenStore(settings.state_dir, override=settings.token)
    sessions = Sessions(site.port, file=SessionFile(settings.state_dir, site.port, tokens))
    return Parts(
        site=site,
        streams=streams,
        metrics=Metrics(streams, lambda: service.active_runs),
        tokens=tokens,
        sessions=sessions,
        grants=Grants(tokens, sessions),
        limits=Limits(),
        audit=AuditLog(settings.state_dir),
        sync=SyncHost.of(service, settings),
        proof_key=new_key(),
    )


def table_of(service: RunService, parts: Parts) -> list[Endpoint]:
    """Everything that the server answers to."""
    table = [
        *RunEndpoints(service, parts.streams, parts.limits).table(),
        *ResponseEndpoints(service, parts.streams, parts.limits).table(),
        *SearchEndpoints(lambda: service.pipeline.archive()).table(),
        *HealthEndpoints(service, parts.metrics, parts.site, parts.proof_key).table(),
        *AccessEndpoints(parts.tokens, parts.sessions, parts.grants, parts.audit, parts.site).table(),
        *SyncEndpoints(parts.sync.engine).table(),
        *StaticEndpoints().table(),
        *DocumentEndpoint(lambda: table).table(),
    ]
    return table


def build_app(
    service: RunService, site: Site, streams: OpenStreams, settings: Settings, parts: Parts | None = None
) -> ASGIApp:
    """The whole API of this service, for requests to this site. Raises ConfigurationError for tokens that can't be used."""
    parts = parts or parts_of(service, site, streams, settings)
    parts.tokens.prepare()
    parts.sessions.take_up()
    audited = Audited(router(table_of(service, parts)), parts.audit)
    gated = Gate(audited, parts.tokens, parts.sessions, parts.limits, parts.grants)
    return Traced(Boundary(Guard(gated, site), parts.metrics))
