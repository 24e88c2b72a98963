"""Who may speak to this server: pages of its own and programs of this machine, not every page a browser has open.

A page from anywhere may make a browser send requests to 127.0.0.1, and by DNS rebinding may even read the answers. Both
show: in the `Origin` that the browser adds, and in the `Host`, which is then a name that is not ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from server.site import Site

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
NO_STORE = (b"cache-control", b"no-store")


def with_security(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that every answer has; what it has of them itself stays."""
    own = {name.lower() for name, _ in headers}
    return [*headers, *(pair for pair in (*SECURITY_HEADERS, NO_STORE) if pair[0] not in own)]


class Guard:
    """ASGI middleware: nothing behind it sees a request that `Site.check` refuses."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # No coroutine of ours: each open stream would hold one.
        self._site.check(scope["headers"])
        return self._app(scope, receive, send)
