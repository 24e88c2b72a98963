"""What was let in, and goes on: looked at again when a token or a session counts no more, so that nothing outlives either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog import get_logger

from cody.errors import ConfigurationError
from cody.tokens import Caller
from server.connection import connection_of
from server.limits import LONG_ANSWERS, Counts
from server.problems import HttpError

log = get_logger()


class Known(Protocol):
    """Tokens, or sessions."""

    def whose(self, sha256: str) -> Caller | None:
        """Who comes in by the secret with this hash, now; raises ConfigurationError when that can't be known."""
        ...


@dataclass(frozen=True, slots=True)
class Credential:
    """By what a caller came in: the hash of a token's value, or of a session's cookie."""

    kind: Literal["token", "session"]
    sha256: str
    caller: Caller


class Revoked(HttpError):
    code = "unauthorized"
    status = 401


class Grants:
    """The open streams and long answers, by the credential that each was asked for with."""

    def __init__(self, tokens: Known, sessions: Known, *, answers: int = LONG_ANSWERS) -> None:
        """`answers`: how many long ones one caller may have on their way."""
        self.answers = Counts(answers, "long answers")
        self._known: dict[Literal["token", "session"], Known] = {"token": tokens, "session": sessions}
        self._open: dict[Credential, set[Callable[[], None]]] = {}

    def counts(self, credential: Credential) -> bool:
        """Whether the credential still lets the same caller in. A token file that can't be read lets nobody in."""
        try:
            return self._known[credential.kind].whose(credential.sha256) == credential.caller
        except ConfigurationError as error:
            log.error("access.tokens_unreadable", error=error.message)
            return False

    def hold(self, credential: Credential, end: Callable[[], None]) -> Callable[[], None]:
        """`end` is called once the credential counts no more, which may be now; until the answer is called."""
        ends = self._open.setdefault(credential, set())
        ends.add(end)
        if not self.counts(credential):
            end()

        def release() -> None:
            ends.discard(end)
            if not ends:
                self._open.pop(credential, None)

        return release

    def check(self) -> None:
        """End what is held by credentials that count no more."""
        for credential, ends in list(self._open.items()):
            if ends and not self.counts(credential):
                log.info("access.streams_ended", who=credential.caller.name, count=len(ends))
                for end in list(ends):
                    end()

    async def watch(self, every_s: float) -> None:
        """Check again and again, until cancelled: sessions end by themselves, and another process may change the tokens."""
        while True:
            await asyncio.sleep(every_s)
            self.check()


@dataclass(frozen=True, slots=True)
class Grant:
    """One request's."""

    grants: Grants
    credential: Credential

    @property
    def counts(self) -> bool:
        return self.grants.counts(self.credential)

    def hold(self, end: Callable[[], None]) -> Callable[[], None]:
        """As `Grants.hold`."""
        return self.grants.hold(self.credential, end)


class Granted:
    """An answer that takes as long as its reader likes; an ASGI application.

    Counted for its caller while it is sent (TooManyRequests), and cut off when what let it in counts no more: the connection
    is closed, as half a file must not look like a whole one.
    """

    def __init__(self, answer: ASGIApp) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        grant = grant_of(scope)
        closed = grant.grants.answers.open(grant.credential.caller.name)
        try:
            await self._send(grant, scope, receive, send)
        finally:
            closed()

    async def _send(self, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        held = ended = begun = False

        def end() -> None:
            nonlocal ended
            if held and not ended:
                task.cancel()
            ended = True

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        release = grant.hold(end)
        held = True
        try:
            if not ended:
                await self._answer(scope, receive, watched)
        except asyncio.CancelledError:
            if not ended:
                raise
            task.uncancel()
            if begun:
                connection_of(scope).abort()
                while (await receive())["type"] != "http.disconnect":
                    pass  # to return before it is closed would look as if the rest had been forgotten
        finally:
            release()
        if ended and not begun:
            raise Revoked("what let this request in counts no more")


def grant_of(scope: Scope) -> Grant:
    """By what this request was let in; only behind the gate."""
    found: Grant = scope["state"]["grant"]
    return found
