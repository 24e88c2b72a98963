"""Who may speak to this server: pages of its own and programs of this machine, not every page a browser has open.

A page from anywhere may make a browser send requests to 127.0.0.1, and by DNS rebinding may even read the answers. Both
show: in the `Origin` that the browser adds, and in the `Host`, which is then a name that is not ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from starlette.types import ASGIApp, Receive, Scope, Send

from cody.errors import Forbidden

HTTP_PORT = 80

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


@dataclass(frozen=True)
class Site:
    """Where the server is reached."""

    host: str
    """The bound address, an IPv6 one without brackets."""
    port: int

    @property
    def url(self) -> str:
        return f"http://{_in_url(self.host)}:{self.port}"

    @cached_property
    def hosts(self) -> frozenset[str]:
        """The values of a Host header that mean this server."""
        names = {"127.0.0.1", "localhost", "[::1]", _in_url(self.host)}
        with_port = {f"{name}:{self.port}" for name in names}
        return frozenset(with_port | names if self.port == HTTP_PORT else with_port)

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Raises Forbidden unless the request is meant for this server and comes from no foreign page."""
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            raise Forbidden(f"the Host header does not name this server: use {self.url}")
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if origins and origins != [f"http://{hosts[0]}"]:
            raise Forbidden("requests from pages of another origin are refused")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Guard:
    """ASGI middleware: nothing behind it sees a request that `Site.check` refuses."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._site.check(scope["headers"])
        await self._app(scope, receive, send)
