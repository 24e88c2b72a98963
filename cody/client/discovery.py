"""Which Cody server this user's commands talk to."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cody.proof import is_proof, new_nonce
from cody.settings import Settings, loopback_of

PROBE_TIMEOUT_S = 8.0
"""A server on this machine answers within milliseconds, and within seconds while the machine is overloaded: who takes it for
gone starts another on its state folder. A stopped one accepts the connection and never answers."""


class ServerFile(BaseModel):
    """What a running server writes into the state folder; it is still there when the server was killed."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    url: str
    pid: int
    proof_key: str | None = Field(default=None, alias="proofKey", min_length=1, repr=False)
    """Only that server and this user know it (`cody.proof`); None = nothing that answers there can be told from it."""

    def is_at(self, url: str) -> bool:
        return self.url.rstrip("/") == url.rstrip("/")


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
    """The base URL of the server that answers as Cody, without a closing slash; None when none does.

    What answers where this folder's server was must show that it is that one, unless the URL was given.
    """
    written = read_server_file(settings.server_file) if settings.url is None else None
    for url in candidates(settings):
        own = written is not None and written.is_at(url)
        if await (proves_itself(written) if written and own else answers_as_cody(url)):
            return url
    return None


def is_loopback(url: str) -> bool:
    """True for this machine: a proxy that the environment names can't reach it, and must not be asked."""
    try:
        return httpx2.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    except httpx2.InvalidURL:
        return False


async def answers_as_cody(url: str) -> bool:
    """Whether /healthz there answers as Cody's does: another program may have taken the port."""
    return await _asked(url, {}) is not None


async def proves_itself(written: ServerFile) -> bool:
    """Whether the server that wrote this file is the one that answers where it says: it alone can answer to a nonce."""
    if written.proof_key is None:
        return False
    url, nonce = written.url.rstrip("/"), new_nonce()
    found = await _asked(url, {"nonce": nonce})
    return found is not None and is_proof(found.get("proof"), written.proof_key, url, nonce)


def proves_itself_now(written: ServerFile) -> bool:
    """As `proves_itself`, for callers that can't await."""
    if written.proof_key is None:
        return False
    url, nonce = written.url.rstrip("/"), new_nonce()
    try:
        place = urlsplit(url)
        # No client of httpx2: it takes 20 ms to make one, for a question that is answered in one.
        with closing(HTTPConnection(place.hostname or "", place.port, timeout=PROBE_TIMEOUT_S)) as http:
            http.request("GET", f"/healthz?nonce={nonce}")
            response = http.getresponse()
            found = _alive(response.status, response.read())
    except (OSError, HTTPException, ValueError):
        return False
    return found is not None and is_proof(found.get("proof"), written.proof_key, url, nonce)


async def _asked(url: str, params: dict[str, str]) -> dict[str, Any] | None:
    """What /healthz there answers; None when that is not as Cody's, or nothing."""
    try:
        async with httpx2.AsyncClient(timeout=PROBE_TIMEOUT_S, trust_env=not is_loopback(url)) as http:
            response = await http.get(f"{url}/healthz", params=params)
            return _alive(response.status_code, response.content)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return None


def _alive(status: int, body: bytes) -> dict[str, Any] | None:
    """The fields of an answer as Cody's /healthz gives it; raises ValueError for what is no JSON."""
    found = json.loads(body)
    if status != 200 or not isinstance(found, dict):
        return None
    return found if found.get("status") == "ok" and isinstance(found.get("version"), str) else None
