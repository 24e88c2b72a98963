"""Who makes a request, and what they may: a bearer token, or the session of a browser that came in by a one-time link.

Everything but PUBLIC is behind it, static files and streams too. A token is never taken from a URL: URLs are logged, kept in
histories, and sent along as referrers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cody.errors import Forbidden
from cody.tokens import Caller, TokenStore, digest
from cody.tokens import Scope as TokenScope
from server.grants import Credential, Grant, Grants
from server.kept_sessions import Kept, SessionFile
from server.limits import Limits
from server.problems import HttpError

PUBLIC = frozenset({"/healthz", "/enter"})
SAFE_METHODS = frozenset({"GET", "HEAD"})
SESSION = "session:"
"""Before a token's name: a browser's session that was made with it."""
LINK_LIFETIME_S = 120.0
SESSION_LIFETIME_S = 12 * 3600.0
MAX_SESSIONS = 1_000
MAX_LINKS = 100

Headers = Sequence[tuple[bytes, bytes]]


class Unauthorized(HttpError):
    code = "unauthorized"
    status = 401


@dataclass(frozen=True, slots=True)
class _Entry:
    caller: Caller
    until: float
    made_with: str | None = None
    """The hash of the token that it was made with; None where no tokens are kept: then it ends with `end_those_of` only."""


@dataclass
class Sessions:
    """One-time links and the sessions that they become. A restart of the server ends links; sessions go on by `file`.

    Neither counts any more when its token does not, or has another value, whoever changed that.

    Both are found by the hash of a random secret: how long a look-up takes tells nothing of the secret.
    """

    port: int
    clock: Callable[[], float] = time.monotonic
    file: SessionFile | None = None
    _links: dict[str, _Entry] = field(default_factory=dict)
    _sessions: dict[str, _Entry] = field(default_factory=dict)

    @property
    def cookie_name(self) -> str:
        """Browsers share cookies between the ports of a host; the name keeps two servers apart."""
        return f"cody_session_{self.port}"

    def take_up(self) -> None:
        """Go on with the sessions of the server that was here before."""
        for one in self.file.load() if self.file is not None else ():
            until = self.clock() + min(one.left_s, SESSION_LIFETIME_S)
            self._sessions[one.sha256] = _Entry(Caller(f"{SESSION}{one.token}", one.scope), until, one.made_with)

    def _keep(self) -> None:
        if self.file is not None:
            now = self.clock()
            self.file.save(
                Kept(key, _token_of(entry), entry.caller.scope, entry.until - now, entry.made_with)
                for key, entry in self._sessions.items()
                if entry.made_with is not None
            )

    def _counts(self, entry: _Entry) -> bool:
        """Whether it lets in now; raises ConfigurationError when the tokens can't be read."""
        if entry.until < self.clock():
            return False
        return self.file is None or (
            entry.made_with is not None and self.file.sha256_of(_token_of(entry)) == entry.made_with
        )

    def link(self, caller: Caller) -> str:
        """A code that is good once, for a short time; the session may do what its maker may, but never more than control."""
        _drop_old(self._links, self.clock(), MAX_LINKS)
        code = secrets.token_urlsafe(32)
        scope: TokenScope = "control" if caller.may("control") else "read"
        made_with = self.file.sha256_of(caller.name) if self.file is not None else None
        until = self.clock() + LINK_LIFETIME_S
        self._links[digest(code)] = _Entry(Caller(f"{SESSION}{caller.name}", scope), until, made_with)
        return code

    def enter(self, code: str) -> tuple[str, Caller]:
        """A new cookie's value for this code, which is used up, and whose session it is; raises Unauthorized."""
        entry = self._links.pop(digest(code), None)
        if entry is None or not self._counts(entry):
            raise Unauthorized("this link was used already or is too old: `cody dashboard` prints a new one")
        _drop_old(self._sessions, self.clock(), MAX_SESSIONS)
        value = secrets.token_urlsafe(32)
        self._sessions[digest(value)] = replace(entry, until=self.clock() + SESSION_LIFETIME_S)
        self._keep()
        return value, entry.caller

    def find(self, value: str) -> Caller | None:
        """Whose session this is."""
        return self.whose(digest(value))

    def whose(self, sha256: str) -> Caller | None:
        """As `find`, by the hash of the cookie's value."""
        entry = self._sessions.get(sha256)
        return entry.caller if entry is not None and self._counts(entry) else None

    def leave(self, value: str) -> None:
        """End the session."""
        if self._sessions.pop(digest(value), None) is not None:
            self._keep()

    def end_those_of(self, token: str) -> None:
        """End all sessions and links that were made with this token: it counts no more, and so do they."""
        for entries in (self._links, self._sessions):
            for key in [key for key, entry in entries.items() if entry.caller.name == f"{SESSION}{token}"]:
                del entries[key]
        self._keep()


def _token_of(entry: _Entry) -> str:
    return entry.caller.name.removeprefix(SESSION)


def _drop_old(entries: dict[str, _Entry], now: float, most: int) -> None:
    for key in [key for key, entry in entries.items() if entry.until < now]:
        del entries[key]
    while len(entries) >= most:
        del entries[next(iter(entries))]


class Gate:
    """ASGI middleware: what is behind it knows its caller (`scope["state"]["caller"]`)."""

    def __init__(self, app: ASGIApp, tokens: TokenStore, sessions: Sessions, limits: Limits, grants: Grants) -> None:
        self._app = app
        self._tokens = tokens
        self._sessions = sessions
        self._limits = limits
        self._grants = grants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in PUBLIC:
            credential = self._credential(scope)
            self._limits.admit(credential.caller.name)
            grant = Grant(self._grants, credential)
            scope["state"]["caller"], scope["state"]["grant"] = credential.caller, grant
            if scope["method"] not in SAFE_METHODS:
                receive = _while_it_counts(grant, receive)
        await self._app(scope, receive, send)

    def _credential(self, scope: Scope) -> Credential:
        """Raises Unauthorized; Forbidden for a session that is used by a page of another origin, port included."""
        headers: Headers = scope["headers"]
        given = [value for name, value in headers if name == b"authorization"]
        if given:
            credential = self._bearer(given)
        else:
            credential = self._session(headers)
            if credential is not None:
                _check_own_page(scope["method"], headers)
        if credential is None:
            raise _unknown()
        return credential

    def _bearer(self, given: list[bytes]) -> Credential | None:
        kind, _, value = given[0].decode("latin-1").partition(" ")
        if len(given) != 1 or kind.lower() != "bearer" or not value.strip():
            return None
        sha256 = digest(value.strip())
        caller = self._tokens.whose(sha256)
        return Credential("token", sha256, caller) if caller is not None else None

    def _session(self, headers: Headers) -> Credential | None:
        value = session_cookie(headers, self._sessions.cookie_name)
        sha256 = digest(value or "")
        caller = self._sessions.whose(sha256)
        return Credential("session", sha256, caller) if caller is not None else None


def _unknown() -> Unauthorized:
    return Unauthorized(
        "this needs a token: send `Authorization: Bearer TOKEN` (the CLI reads its own from the state folder), or "
        "open the link that `cody dashboard` prints",
        headers={"WWW-Authenticate": 'Bearer realm="cody"'},
    )


def _while_it_counts(grant: Grant, receive: Receive) -> Receive:
    """The body, whose end may come long after its head: what counts no more by then changes nothing."""

    async def received() -> Message:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body") and not grant.counts:
            raise _unknown()
        return message

    return received


def _check_own_page(method: str, headers: Headers) -> None:
    """Raises Forbidden unless it is our own page, or a person, that makes the browser send this.

    SameSite=Strict keeps the cookie from other sites, but another port of the same host is the same site to a browser.
    """
    given = {name: value for name, value in headers if name in {b"origin", b"sec-fetch-site", b"sec-fetch-mode"}}
    if method not in SAFE_METHODS and b"origin" not in given:
        # Every browser sends one with a change; that it is our own was checked before.
        raise Forbidden("a change by a browser's session needs its Origin header")
    foreign = given.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"}
    if foreign and not (method in SAFE_METHODS and given.get(b"sec-fetch-mode") == b"navigate"):
        raise Forbidden("requests from pages of another origin are refused")


def session_cookie(headers: Headers, name: str) -> str | None:
    """The session cookie's value; None when there is none, or more than one."""
    wanted = name.encode("latin-1")
    # By hand: a browser sends the cookies of all ports, and http.cookies gives up at the first that it does not understand.
    parts = [part for header, raw in headers if header == b"cookie" for part in raw.split(b";")]
    found = [
        value.strip(b" \t")
        for key, sign, value in (part.partition(b"=") for part in parts)
        if sign and key.strip(b" \t") == wanted
    ]
    return found[0].decode("latin-1") if len(found) == 1 else None


def caller_of(scope: Scope) -> Caller:
    """Who makes this request; only behind the gate."""
    found: Caller = scope["state"]["caller"]
    return found
