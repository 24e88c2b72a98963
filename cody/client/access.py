"""Calls about access: tokens, the audit log, links for browsers. All but `link` need a token of scope admin."""

from __future__ import annotations

from urllib.parse import quote

import httpx2

from cody.client.api import CodyClient
from cody.client.errors import error_of_answer
from cody.contracts.audit import (
    AuditEntry,
    AuditPage,
    CreateTokenRequest,
    LinkAnswer,
    NewToken,
    TokenInfo,
    TokenPage,
    TokenScope,
)


class AccessClient(CodyClient):
    """A client that may also do what is about access; raises as CodyClient does."""

    async def tokens(self) -> list[TokenInfo]:
        return (await self._call(TokenPage, "GET", "/api/tokens")).tokens

    async def create_token(self, name: str, scope: TokenScope) -> NewToken:
        """A new token, with its value, which no later call tells. Raises Conflict when there is one of this name."""
        body = CreateTokenRequest(name=name, scope=scope)
        return await self._call(NewToken, "POST", "/api/tokens", body=body)

    async def rotate_token(self, name: str) -> NewToken:
        """The token with a new value; the old one, and the browsers' sessions made with it, count no more."""
        return await self._call(NewToken, "POST", f"/api/tokens/{quote(name, safe='')}/rotate")

    async def revoke_token(self, name: str) -> None:
        """The token and its sessions count no more; raises Conflict for the local one."""
        path = f"/api/tokens/{quote(name, safe='')}"
        try:
            response = await self._http.request("DELETE", path)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise error_of_answer(response.status_code, response.content)

    async def audit(self, *, limit: int = 100) -> list[AuditEntry]:
        """The latest changes, newest first."""
        return (await self._call(AuditPage, "GET", "/api/audit", params={"limit": str(limit)})).entries

    async def link(self) -> LinkAnswer:
        """A link that lets one browser in, once, soon."""
        return await self._call(LinkAnswer, "POST", "/api/session/link")
