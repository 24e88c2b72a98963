"""What both projectors do around their own work: take news, hold it until it is done, wait while a store is away."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from structlog import get_logger

from cody.errors import StoreUnavailable
from cody.pipeline.archive import ArchiveUnavailable

log = get_logger()

READ_NEWS = 1_000
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a projector does what; as it is for runs."""

    gather_s: float = 0.25
    """Between two rounds: what comes meanwhile becomes one transaction, and a burst leaves time to others."""
    block_ms: int = 5_000
    claim_every_s: float = 30.0
    claim_idle_ms: int = 60_000
    """A notification that was given out so long ago and is not acknowledged belongs to a projector that died."""
    sweep_every_s: float = 600.0


class Notification(Protocol):
    """That there is something new about one run or Response."""

    @property
    def id(self) -> str: ...


_News = TypeVar("_News", bound=Notification)
_NewsOut = TypeVar("_NewsOut", bound=Notification, covariant=True)


class NewsSource(Protocol[_NewsOut]):
    """The stream of notifications, read in a consumer group; every method raises StoreUnavailable."""

    async def read(self, consumer: str, *, count: int, block_ms: int) -> Sequence[_NewsOut]: ...

    async def claim_stale(self, consumer: str, *, min_idle_ms: int) -> Sequence[_NewsOut]: ...

    async def ack(self, ids: Sequence[str]) -> None: ...


class Desk(Generic[_News]):
    """The notifications that this projector has in work, by what they are about."""

    def __init__(self, source: NewsSource[_News], consumer: str, pace: Pace, about: Callable[[_News], str]) -> None:
        self._source = source
        self._about = about
        self._consumer = consumer
        self._pace = pace
        self._held: dict[str, list[str]] = {}
        self._next_claim_s = 0.0
        self._next_sweep_s = 0.0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def subjects(self) -> list[str]:
        """What there is to be done, each once."""
        return list(self._held)

    async def take(self) -> None:
        """Wait for news; those of a projector that died come too. What is held already is not waited for."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_claim_s:
            self._hold(await self._source.claim_stale(self._consumer, min_idle_ms=self._pace.claim_idle_ms))
            self._next_claim_s = loop.time() + self._pace.claim_every_s
        block_ms = 1 if self._held else self._pace.block_ms
        self._hold(await self._source.read(self._consumer, count=READ_NEWS, block_ms=block_ms))

    async def done(self, subject: str) -> None:
        """All that its notifications tell of is in the archive."""
        await self._source.ack(self._held[subject])
        del self._held[subject]

    async def drop(self, subject: str) -> None:
        """Have nothing in work about it any more, if there was something."""
        if subject in self._held:
            await self.done(subject)

    async def sweep_if_due(self, sweep: Callable[[], Awaitable[int]]) -> int:
        """What the sweep found, when it is time for one; 0 else.

        One that failed is repeated at once when a store was away, and else in its turn: the news is read meanwhile.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_sweep_s:
            return 0
        try:
            found = await sweep()
        except (StoreUnavailable, ArchiveUnavailable):
            raise
        except Exception:
            self._next_sweep_s = loop.time() + self._pace.sweep_every_s
            raise
        self._next_sweep_s = loop.time() + self._pace.sweep_every_s
        return found

    def _hold(self, news: Sequence[_News]) -> None:
        for one in news:
            held = self._held.setdefault(self._about(one), [])
            if one.id not in held:
                held.append(one.id)


def consumer_name() -> str:
    """A name for one projector that no other has, and that tells its host."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


async def keep_projecting(of: str, one_round: Callable[[], Awaitable[None]], desk: Sized) -> None:
    """Project until cancelled. While Redis or SQL is away it waits, and acknowledges nothing."""
    backoff_s = 0.0
    while True:
        try:
            await one_round()
        except (StoreUnavailable, ArchiveUnavailable) as error:
            if backoff_s == 0.0:
                log.warning("projector.waiting", of=of, error=error.message, held=len(desk))
            backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, backoff_s * 2))
            await asyncio.sleep(backoff_s)
            continue
        if backoff_s:
            log.info("projector.resumed", of=of)
            backoff_s = 0.0
