"""Writes every mutation into the audit log, with how it ended."""

from __future__ import annotations

import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cody.contracts.audit import AuditEntry
from cody.contracts.wire import utc_text
from cody.errors import CodyError
from server.audit import AuditLog, source_of
from server.auth import SAFE_METHODS, caller_of
from server.problems import problem_of
from server.routes import Endpoint


class Audited:
    """ASGI middleware behind the gate."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in SAFE_METHODS or "caller" not in scope["state"]:
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except (CodyError, HTTPException) as error:
            problem = problem_of(error)
            status = problem.status if problem else 500
            raise
        finally:
            self._audit.add(_entry(scope, status))


def _entry(scope: Scope, status: int) -> AuditEntry:
    caller, endpoint = caller_of(scope), scope.get("endpoint")
    run_id = scope.get("path_params", {}).get("run_id")
    route = endpoint.path if isinstance(endpoint, Endpoint) else "(none)"
    return AuditEntry(
        ts=utc_text(time.time_ns() // 1_000_000),
        who=caller.name,
        scope=caller.scope,
        action=f"{scope['method']} {route}",
        run_id=str(run_id) if run_id else None,
        source=source_of(scope),
        status=status,
    )
