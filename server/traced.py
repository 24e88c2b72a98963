"""A span for each HTTP request, where traces are recorded."""

from __future__ import annotations

import re
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cody.contracts.stream_events import TraceContext
from cody.pipeline.tracing import is_tracing, span
from server.routes import Endpoint

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACESTATE = 512


class Traced:
    """ASGI middleware. The span is the child of the `traceparent` that the request brings; a stream's lasts as it does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Without traces no coroutine of ours: each open stream would hold one.
        return self._traced(scope, receive, send) if is_tracing() else self._app(scope, receive, send)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        with span("HTTP", parent_of(scope), kind="server", http_request_method=scope["method"]) as recorded:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    recorded.set(http_response_status__code=message["status"])
                await send(message)

            try:
                await self._app(scope, receive, watched)
            finally:
                endpoint = scope.get("endpoint")
                route = endpoint.path if isinstance(endpoint, Endpoint) else None
                recorded.rename(f"{scope['method']} {route or '(none)'}")
                recorded.set(http_route=route)


class Spanned:
    """An answer with a span of its own in another trace than the request's: that of what it tells of."""

    def __init__(self, app: ASGIApp, name: str, parent: TraceContext | None, **attributes: str) -> None:
        """`parent` None: no span."""
        self._app = app
        self._name = name
        self._parent = parent
        self._attributes = attributes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._parent is None:
            await self._app(scope, receive, send)
            return
        with span(self._name, self._parent, kind="consumer", **self._attributes):
            await self._app(scope, receive, send)


def parent_of(scope: Scope) -> TraceContext | None:
    """What the request says of its trace; None for nothing, and for what is not W3C's."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in (b"traceparent", b"tracestate"):
            found.setdefault(name, value.decode("latin-1").strip())
    traceparent, tracestate = found.get(b"traceparent", ""), found.get(b"tracestate", "")
    if _TRACEPARENT.fullmatch(traceparent) is None:
        return None
    return TraceContext(
        traceparent=traceparent, tracestate=tracestate if 0 < len(tracestate) <= _MAX_TRACESTATE else None
    )
