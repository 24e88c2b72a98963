"""Where the server is reached: the names that a `Host` header may give, and the origin that each means."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cody.errors import ConfigurationError, Forbidden
from cody.settings import loopback_of

HTTP_PORT = 80
HTTPS_PORT = 443
MAX_PORT = 65_535

_GIVEN = re.compile(r"(?:(https?)://)?([^/:\[\]]+|\[[0-9a-fA-F:.]+\])(?::([0-9]{1,5}))?/?")
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A name that others reach the server by."""

    scheme: Literal["http", "https"]
    name: str
    """In small letters, an IPv6 address in brackets."""
    port: int | None
    """None = the server's own, or 443 for https."""

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """`NAME`, `NAME:PORT`, or `https://NAME[:PORT]` where a proxy before the server speaks TLS.

        Raises ConfigurationError.
        """
        found = _GIVEN.fullmatch(text.strip())
        name = found[2].lower() if found else ""
        port = int(found[3]) if found and found[3] else None
        if found is None or not _is_name(name) or not (port is None or 1 <= port <= MAX_PORT):
            raise ConfigurationError(
                f"--allowed-host {text[:80]!r} (CODY_ALLOWED_HOSTS): give NAME, NAME:PORT or https://NAME, without patterns"
            )
        return cls("https" if found[1] == "https" else "http", name, port)


def _is_name(name: str) -> bool:
    if not name.startswith("["):
        return _NAME.fullmatch(name) is not None
    try:
        ipaddress.IPv6Address(name[1:-1])
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Site:
    """Where the server is reached."""

    host: str
    """The bound address, an IPv6 one without brackets."""
    port: int
    allowed: tuple[AllowedHost, ...] = ()
    """What it is called besides."""

    @property
    def url(self) -> str:
        """For programs of this machine."""
        return f"http://{_in_url(loopback_of(self.host))}:{self.port}"

    @cached_property
    def origins(self) -> dict[str, str]:
        """The origin of the server's own pages, by what a Host header may say."""
        own = ("127.0.0.1", "localhost", "[::1]", _in_url(loopback_of(self.host)))
        places = [AllowedHost("http", name, None) for name in own]
        return {host: origin for one in (*places, *self.allowed) for host, origin in self._hosts_of(one).items()}

    def _hosts_of(self, one: AllowedHost) -> dict[str, str]:
        usual = HTTPS_PORT if one.scheme == "https" else HTTP_PORT
        port = one.port or (HTTPS_PORT if one.scheme == "https" else self.port)
        with_port = f"{one.name}:{port}"
        if port != usual:
            return {with_port: f"{one.scheme}://{with_port}"}
        # Browsers leave the usual port out, of both headers.
        return {with_port: f"{one.scheme}://{one.name}", one.name: f"{one.scheme}://{one.name}"}

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Raises Forbidden unless the request is meant for this server and comes from no foreign page."""
        hosts = _hosts(headers)
        own = self.origins.get(hosts[0]) if len(hosts) == 1 else None
        if own is None:
            raise Forbidden(
                f"the Host header does not name this server: use {self.url} (or --allowed-host, for others)"
            )
        origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
        if origins and origins != [own]:
            raise Forbidden("requests from pages of another origin are refused")

    def url_for(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Where the sender of a request that was let in reaches the server.

        By a name of loopback it is always the same one: a browser keeps cookies by name, and sends them to all its ports.
        """
        (host,) = _hosts(headers)
        given = {name for one in self.allowed for name in self._hosts_of(one)}
        return self.origins[host] if host in given else self.url


def _hosts(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    return [value.decode("latin-1").lower() for name, value in headers if name == b"host"]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
