"""The token of a state folder, for the server of that folder and no other program on its port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx2

from cody.client.discovery import proves_itself, proves_itself_now, read_server_file
from cody.settings import Settings
from cody.tokens import TokenStore


def token_for(settings: Settings, url: str) -> str | None:
    """The token to send there: CODY_TOKEN, or the state folder's own, which only the server of this folder gets.

    Any program, another user's too, may listen on a port of this machine and answer like Cody: the server is asked, here
    and now, to show that it wrote `server.json`. Waits for its answer, PROBE_TIMEOUT_S at the most.
    """
    if settings.token is not None:
        return settings.token
    written = read_server_file(settings.server_file)
    if written is None or not written.is_at(url) or not proves_itself_now(written):
        return None
    return TokenStore(settings.state_dir).local_value()


def credential_for(settings: Settings, url: str) -> str | FolderToken | None:
    """As `token_for`, for who stays connected: the folder's own token is then one that is looked after."""
    value = token_for(settings, url)
    return value if value is None or value == settings.token else FolderToken(settings, url, value)


class FolderToken(httpx2.Auth):
    """Goes with each request. On each new connection the server must first show again that it is this folder's.

    It may have been killed since, and its port is free then. What does not show it is sent nothing: the request fails with
    ConnectError, as if nobody answered. Asked once the connection stands: a program that was there before can't be the one
    that shows it now.
    """

    def __init__(self, settings: Settings, url: str, value: str) -> None:
        """`value`: what the server that just proved itself is sent."""
        self._settings = settings
        self._url = url
        self._value = value

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        is_new = False

        async def trace(name: str, info: dict[str, Any]) -> None:
            """The steps of httpcore, as they come."""
            nonlocal is_new
            if name == "connection.connect_tcp.complete":
                is_new = True
            elif is_new and name.endswith(".send_request_headers.started"):
                await self._look_again(request)

        request.extensions = {**request.extensions, "trace": trace}
        request.headers["Authorization"] = f"Bearer {self._value}"
        yield request

    async def _look_again(self, request: httpx2.Request) -> None:
        written = read_server_file(self._settings.server_file)
        if written is None or not written.is_at(self._url) or not await proves_itself(written):
            raise httpx2.ConnectError(f"what answers at {self._url} is not this folder's server", request=request)
