"""The outermost layer: whatever happens inside, a request gets one well-formed answer, and is counted."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog import get_logger

from cody.errors import CodyError
from server import signin_page
from server.connection import connection_of
from server.guards import with_security
from server.metrics import Metrics
from server.problems import Problem, internal_problem, problem_of
from server.routes import Endpoint

log = get_logger()

OTHER_ROUTE = "(none)"
CLIENT_GONE_STATUS = 499
"""For the counters only: the client went before it had an answer."""


class _Answer:
    """`send`, watched: adds the headers that every answer has, and remembers that one has begun.

    Not a coroutine function: it stands in the way of every event of every stream, and costs no more than a call there.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = with_security(list(message.get("headers", ())))
        return self._send(message)

    async def problem(self, problem: Problem, scope: Scope) -> None:
        body = problem.body
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if problem.status == 401 and signin_page.is_wanted(scope):
            body, headers = signin_page.PAGE, list(signin_page.HEADERS)
        headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        await self({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


class Boundary:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        answer = _Answer(send)
        scope["app"] = self  # makes Starlette's router raise a 405 instead of answering it in plain text
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            await self._refuse(error, scope, answer)
        finally:
            self._count(scope, answer.status or CLIENT_GONE_STATUS, time.perf_counter() - began)

    async def _refuse(self, error: Exception, scope: Scope, answer: _Answer) -> None:
        problem = problem_of(error) if isinstance(error, CodyError | HTTPException) else None
        if problem is None or answer.status is not None:
            request_id = str(uuid.uuid4())
            log.error("request.failed", request_id=request_id, route=_route(scope), exc_info=error)
            problem = internal_problem(request_id)
        if answer.status is None:
            await answer.problem(problem, scope)
        else:
            connection_of(scope).abort()  # half an answer must not look like a whole one

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = scope.get("endpoint")
        streams = isinstance(endpoint, Endpoint) and endpoint.streams and status < 400
        method, route = scope["method"], _route(scope)
        self._metrics.answered(method=method, route=route, status=status, seconds=None if streams else seconds)
        log.debug("request.answered", method=method, route=route, status=status, ms=round(seconds * 1000, 3))


def _route(scope: Scope) -> str:
    endpoint = scope.get("endpoint")
    return endpoint.path if isinstance(endpoint, Endpoint) else OTHER_ROUTE
