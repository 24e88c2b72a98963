"""Getting in: one-time links and sessions for browsers; tokens and the audit log for administrators."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cody.contracts.audit import AuditPage, CreateTokenRequest, LinkAnswer, NewToken, Nothing, TokenInfo, TokenPage
from cody.errors import Forbidden
from cody.tokens import TokenStore
from server import operations
from server.audit import AuditLog
from server.audited import ASKED_FOR, entry_of
from server.auth import LINK_LIFETIME_S, SESSION, SESSION_LIFETIME_S, Sessions, caller_of, session_cookie
from server.body import json_body, optional_json_body
from server.grants import Grants
from server.problems import MethodNotAllowed, invalid_fields
from server.query import Query, text, whole_number
from server.routes import Endpoint, json_answer
from server.site import Site

TOKENS = "/api/tokens"
TOKEN = f"{TOKENS}/{{name}}"
LISTED_AT_MOST = 1_000


class AccessEndpoints:
    def __init__(self, tokens: TokenStore, sessions: Sessions, grants: Grants, audit: AuditLog, site: Site) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._grants = grants
        self._audit = audit
        self._site = site

    def table(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/enter", self.enter, frozenset({"code"}), scope=None, operation=operations.ENTER),
            Endpoint("POST", "/api/session/link", self.link, operation=operations.LINK),
            Endpoint("POST", "/api/session/leave", self.leave, operation=operations.LEAVE),
            Endpoint("GET", TOKENS, self.list_tokens, scope="admin", operation=operations.TOKENS),
            Endpoint("POST", TOKENS, self.create, scope="admin", operation=operations.CREATE_TOKEN),
            Endpoint("POST", f"{TOKEN}/rotate", self.rotate, scope="admin", operation=operations.ROTATE_TOKEN),
            Endpoint("DELETE", TOKEN, self.revoke, scope="admin", operation=operations.REVOKE_TOKEN),
            Endpoint("GET", "/api/audit", self.audit, frozenset({"limit"}), scope="admin", operation=operations.AUDIT),
        ]

    async def link(self, request: Request, query: Query) -> Response:
        """A link for one browser. What it leads to may do no more than who asked for it."""
        await optional_json_body(request, Nothing)
        caller = caller_of(request.scope)
        if caller.name.startswith(SESSION):
            raise Forbidden("a browser's session can't make links, which would outlive it: use `cody dashboard`")
        code = self._sessions.link(caller)
        url = self._site.url_for(request.scope["headers"])
        answer = LinkAnswer(url=f"{url}/enter?code={code}", valid_for_sec=int(LINK_LIFETIME_S))
        return json_answer(answer, 201)

    async def enter(self, request: Request, query: Query) -> Response:
        """Exchange the code of a link for a session, and go to the dashboard."""
        if request.method == "HEAD":
            # Programs that look at a link before a person does: it would be used up.
            raise MethodNotAllowed("use GET for this path", headers={"Allow": "GET"})
        if "code" not in query:
            raise invalid_fields([("code", "is required")])
        value, caller = self._sessions.enter(text(query, "code") or "")
        self._audit.add(entry_of(request.scope, caller, 303))
        return RedirectResponse("/", 303, {"set-cookie": self._cookie(request, value, int(SESSION_LIFETIME_S))})

    async def leave(self, request: Request, query: Query) -> Response:
        """End the browser's session."""
        await optional_json_body(request, Nothing)
        value = session_cookie(request.scope["headers"], self._sessions.cookie_name)
        if value is not None:
            self._sessions.leave(value)
            self._grants.check()
        return Response(status_code=204, headers={"set-cookie": self._cookie(request, "", 0)})

    def _cookie(self, request: Request, value: str, max_age_s: int) -> str:
        cookie: SimpleCookie = SimpleCookie()
        cookie[self._sessions.cookie_name] = value
        made = cookie[self._sessions.cookie_name]
        made["path"], made["httponly"], made["samesite"], made["max-age"] = "/", True, "Strict", max_age_s
        # By the name that the browser used: a cookie for https must not go out in the clear, and one for http can't have it.
        made["secure"] = self._site.url_for(request.scope["headers"]).startswith("https://")
        return made.OutputString()

    async def list_tokens(self, request: Request, query: Query) -> Response:
        found = [TokenInfo(name=one.name, scope=one.scope, created_at=one.created_at) for one in self._tokens.records()]
        return json_answer(TokenPage(tokens=found))

    async def create(self, request: Request, query: Query) -> Response:
        asked = await json_body(request, CreateTokenRequest)
        request.scope["state"][ASKED_FOR] = asked.name
        value = await asyncio.to_thread(self._tokens.create, asked.name, asked.scope)
        return json_answer(NewToken(name=asked.name, scope=asked.scope, token=value), 201)

    async def rotate(self, request: Request, query: Query) -> Response:
        await optional_json_body(request, Nothing)
        name = str(request.path_params["name"])
        value = await asyncio.to_thread(self._tokens.rotate, name)
        self._end_those_of(name)
        scope = next(one.scope for one in self._tokens.records() if one.name == name)
        return json_answer(NewToken(name=name, scope=scope, token=value))

    async def revoke(self, request: Request, query: Query) -> Response:
        name = str(request.path_params["name"])
        await asyncio.to_thread(self._tokens.revoke, name)
        self._end_those_of(name)
        return Response(status_code=204)

    def _end_those_of(self, name: str) -> None:
        """The sessions that were made with this token, and the streams that are open by it or by them."""
        self._sessions.end_those_of(name)
        self._grants.check()

    async def audit(self, request: Request, query: Query) -> Response:
        limit = whole_number(query, "limit", default=100, at_least=1, at_most=LISTED_AT_MOST)
        return json_answer(AuditPage(entries=await asyncio.to_thread(self._audit.newest, limit)))
