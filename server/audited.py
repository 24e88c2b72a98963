"""Writes every mutation into the audit log, with how it ended."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cody.contracts.audit import AuditEntry
from cody.errors import CodyError
from cody.tokens import Caller
from cody.wall_clock import now_text
from server.audit import AuditLog, source_of
from server.auth import SAFE_METHODS, caller_of
from server.problems import printable, problem_of
from server.routes import Endpoint

ASKED_FOR = "asked_for"
"""In a request's state: the name of a token that was asked for in the body, once that was checked."""


class Audited:
    """ASGI middleware behind the gate."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app = app
        self._audit = audit

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Without a mutation no coroutine of ours: each open stream would hold one.
        is_mutation = scope["method"] not in SAFE_METHODS and "caller" in scope["state"]
        return self._audited(scope, receive, send) if is_mutation else self._app(scope, receive, send)

    async def _audited(self, scope: Scope, receive: Receive, send: Send) -> None:
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                made = _run_in(dict(message["headers"]).get(b"location", b""))
                # Before the answer: who has it finds the change in the log.
                self._audit.add(entry_of(scope, caller_of(scope), message["status"], run_id=made))
            await send(message)

        refused = 500
        try:
            await self._app(scope, receive, watched)
        except (CodyError, HTTPException) as error:
            problem = problem_of(error)
            refused = problem.status if problem else refused
            raise
        finally:
            if status is None:
                self._audit.add(entry_of(scope, caller_of(scope), refused))


def _run_in(location: bytes) -> str | None:
    """The id of the run that was started: its address ends with it."""
    return location.rsplit(b"/", 1)[1].decode("latin-1") if location.startswith(b"/api/runs/") else None


def entry_of(scope: Scope, caller: Caller, status: int, *, run_id: str | None = None) -> AuditEntry:
    """What this request did, for the audit log. Of what the caller wrote it has only what a route has checked."""
    endpoint, path = scope.get("endpoint"), scope.get("path_params", {})
    route = endpoint.path if isinstance(endpoint, Endpoint) else "(none)"
    run_id = run_id or path.get("run_id")
    token = path.get("name") or scope["state"].get(ASKED_FOR)
    return AuditEntry(
        ts=now_text(),
        who=caller.name,
        scope=caller.scope,
        action=f"{scope['method']} {route}",
        run_id=str(run_id) if run_id else None,
        token=printable(token) if token else None,
        source=source_of(scope),
        status=status,
    )
