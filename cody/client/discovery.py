"""Which Cody server this user's commands talk to."""

from __future__ import annotations

from pathlib import Path

import httpx2
from pydantic import BaseModel, ValidationError

from cody.settings import Settings, loopback_of
from cody.tokens import TokenStore

PROBE_TIMEOUT_S = 3.0
"""A server on this machine answers within milliseconds; a stopped one accepts the connection and never answers."""


class ServerFile(BaseModel):
    """What a running server writes into the state folder."""

    url: str
    pid: int


def read_server_file(path: Path) -> ServerFile | None:
    """Where the server says it is; None when there is no file, or none that can be understood."""
    try:
        return ServerFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def candidates(settings: Settings) -> list[str]:
    """The addresses to try, in order. A URL that was given is the only one: another server would hold other runs."""
    if settings.url is not None:
        return [settings.url.rstrip("/")]
    written = read_server_file(settings.server_file)
    own = loopback_of(settings.host)
    host = f"[{own}]" if ":" in own else own
    usual = [f"http://{host}:{settings.port}"] if settings.port else []
    return list(dict.fromkeys(([written.url.rstrip("/")] if written else []) + usual))


async def find_server(settings: Settings) -> str | None:
    """The base URL of the server that answers as Cody, without a closing slash; None when none does."""
    for url in candidates(settings):
        if await answers_as_cody(url):
            return url
    return None


def token_for(settings: Settings, url: str) -> str | None:
    """The token to send there: CODY_TOKEN, or the state folder's own, which only the server of this folder gets.

    Any program, another user's too, may listen on a port of this machine and answer like Cody.
    """
    if settings.token is not None:
        return settings.token
    written = read_server_file(settings.server_file)
    own = written is not None and written.url.rstrip("/") == url.rstrip("/")
    return TokenStore(settings.state_dir).local_value() if own else None


def is_loopback(url: str) -> bool:
    """True for this machine: a proxy that the environment names can't reach it, and must not be asked."""
    try:
        return httpx2.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    except httpx2.InvalidURL:
        return False


async def answers_as_cody(url: str) -> bool:
    """Whether /healthz there answers as Cody's does: another program may have taken the port."""
    try:
        async with httpx2.AsyncClient(timeout=PROBE_TIMEOUT_S, trust_env=not is_loopback(url)) as http:
            response = await http.get(f"{url}/healthz")
            found = response.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False
    if response.status_code != 200 or not isinstance(found, dict):
        return False
    return found.get("status") == "ok" and isinstance(found.get("version"), str)
