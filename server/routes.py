"""What the server answers to: a path, its method, the parameters it knows, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from cody.contracts.audit import TokenScope
from cody.contracts.wire import Wire
from cody.errors import Forbidden, NotFound
from server.auth import caller_of
from server.operations import Operation
from server.problems import printable
from server.query import Query, query_of

Handler = Callable[[Request, Query], Awaitable[ASGIApp]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the table."""

    method: str
    path: str
    handler: Handler
    parameters: frozenset[str] = field(default=frozenset())
    streams: bool = False
    """The answer takes as long as the client likes: its duration says nothing."""
    scope: TokenScope | None = "read"
    """What the caller's token must allow; None = nobody is asked who they are."""
    operation: Operation | None = None
    """What the API's document says of it; None = it is no part of the API."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.scope is not None:
            caller = caller_of(scope)
            if not caller.may(self.scope):
                raise Forbidden(f"this needs scope {self.scope}; the token {caller.name!r} has {caller.scope}")
        answer = await self.handler(Request(scope, receive), query_of(scope["query_string"], self.parameters))
        await answer(scope, receive, send)


def router(endpoints: list[Endpoint]) -> Router:
    """The endpoints as an ASGI application; other paths and methods raise NotFound and HTTPException (405)."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for one in endpoints:
        by_path.setdefault(one.path, {})[one.method] = one
    routes = [
        Route(path, next(iter(found.values())) if len(found) == 1 else _ByMethod(found), methods=list(found))
        for path, found in by_path.items()
    ]
    return Router(routes, redirect_slashes=False, default=_no_such_path)


class _ByMethod:
    """The endpoints of one path. One route for all of them: a wrong method is told all the right ones."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints["GET" if scope["method"] == "HEAD" else scope["method"]]
        scope["endpoint"] = endpoint
        await endpoint(scope, receive, send)


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"there is nothing at {printable(scope['path'])}")


def json_answer(model: Wire, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A contract as an answer."""
    content = model.model_dump_json(by_alias=True)
    return Response(content, status, headers, media_type="application/json")
