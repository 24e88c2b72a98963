"""What was let in, and goes on: looked at again when a token or a session counts no more, so that nothing outlives either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from starlette.types import Scope
from structlog import get_logger

from cody.errors import ConfigurationError
from cody.tokens import Caller

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


class Grants:
    """The open streams, by the credential that each was asked for with."""

    def __init__(self, tokens: Known, sessions: Known) -> None:
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


def grant_of(scope: Scope) -> Grant:
    """By what this request was let in; only behind the gate."""
    found: Grant = scope["state"]["grant"]
    return found
