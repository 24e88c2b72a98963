"""Is the process alive, can it start runs, and how is it doing."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from cody import __version__
from cody.contracts.health import Alive, Ready
from cody.errors import StoreUnavailable
from cody.proof import MAX_NONCE, proof_of
from harness.health import backlogs
from harness.service import RunService
from server import operations
from server.metrics import CONTENT_TYPE_LATEST, Metrics
from server.query import Query
from server.query import text as short_text
from server.routes import Endpoint, json_answer
from server.site import Site


class HealthEndpoints:
    def __init__(self, service: RunService, metrics: Metrics, site: Site, proof_key: str) -> None:
        self._service = service
        self._metrics = metrics
        self._site = site
        self._proof_key = proof_key

    def table(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET", "/healthz", self.alive, parameters=frozenset({"nonce"}), scope=None, operation=operations.ALIVE
            ),
            Endpoint("GET", "/readyz", self.ready, operation=operations.READY),
            Endpoint("GET", "/api/health", self.health, operation=operations.HEALTH),
            Endpoint("GET", "/metrics", self.metrics, operation=operations.METRICS),
        ]

    async def alive(self, request: Request, query: Query) -> Response:
        """Nothing is asked of anyone: a process that answers is alive, whatever Redis does."""
        nonce = short_text(query, "nonce", at_most=MAX_NONCE)
        proof = None if nonce is None else proof_of(self._proof_key, self._site.url, nonce)
        return json_answer(Alive(version=__version__, proof=proof))

    async def ready(self, request: Request, query: Query) -> Response:
        """200 when runs can be started, else StoreUnavailable (503); both with every check in words."""
        found = await self._service.readiness()
        if not found.ready:
            details = {"checks": found.checks, "degraded": found.degraded}
            raise StoreUnavailable("runs can't be started now: see details.checks", details=details)
        return json_answer(Ready(checks=found.checks, degraded=found.degraded))

    async def health(self, request: Request, query: Query) -> Response:
        return json_answer(await self._service.health())

    async def metrics(self, request: Request, query: Query) -> Response:
        runs, responses = None, None
        with suppress(StoreUnavailable):
            runs, responses = await backlogs(self._service.pipeline)
        text = await asyncio.to_thread(self._metrics.text, {"runs": runs, "responses": responses})
        return Response(text, media_type=CONTENT_TYPE_LATEST)
