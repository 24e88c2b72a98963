"""Keeps the leases of all runs of this process: one renewing call for all of them, every third of the TTL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from redis.asyncio import Redis
from structlog import get_logger

from cody.errors import StoreUnavailable
from cody.store import leases
from cody.store.availability import store_calls
from harness.guard_clock import boottime_ns
from harness.lease_clock import NS_PER_MS, RENEWALS_PER_TTL, deadlines

log = get_logger()

Extend = Callable[[int, int], None]


@dataclass(slots=True)
class Lease:
    """One run's lease: how long its agent may live, and whom to tell when it is renewed or lost."""

    run_id: str
    ttl_ms: int
    grace_s: float
    renewed_ns: int
    on_lost: Callable[[], None] = lambda: None
    on_extended: Extend | None = field(default=None)
    """The guard of the agent that runs now."""
    lost: bool = False
    """Another worker has it, or nobody: it is not renewed any more."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def deadline(self) -> tuple[int, int]:
        """(soft, hard) on CLOCK_BOOTTIME for an agent that starts now."""
        return deadlines(self.renewed_ns, ttl_ms=self.ttl_ms, grace_s=self.grace_s)

    def renewed(self, before_ns: int) -> None:
        """The store renewed it by a call that was sent after `before_ns`."""
        self.renewed_ns = before_ns
        if self.on_extended is not None:
            self.on_extended(*self.deadline)
        self._news.set()

    def lose(self) -> None:
        """The store says that it is not ours."""
        self.lost = True
        self._news.set()
        self.on_lost()

    def has_run_out(self, now_ns: int) -> bool:
        """The store may have given it to another: its agent is dead since a while."""
        return now_ns >= self.renewed_ns + self.ttl_ms * NS_PER_MS

    @property
    def is_fresh(self) -> bool:
        """An agent that starts now has time to live."""
        return not self.lost and boottime_ns() < self.deadline[0]

    async def settled(self) -> None:
        """Wait until it is fresh or lost: while Redis is away it can be neither."""
        while not (self.lost or self.is_fresh):
            self._news.clear()
            await self._news.wait()


class LeaseKeeper:
    """Renews until cancelled. While Redis is away it goes on trying; the guards' deadlines end what can't be kept."""

    def __init__(
        self, redis: Redis, *, worker_id: str, ttl_ms: int, on_trouble: Callable[[], None] = lambda: None
    ) -> None:
        """`on_trouble` is called at each renewal that Redis did not answer."""
        self._on_trouble = on_trouble
        self._redis = redis
        self._worker_id = worker_id
        self._ttl_ms = ttl_ms
        self._leases: dict[str, Lease] = {}
        self._some = asyncio.Event()

    def add(self, lease: Lease) -> None:
        """Renew this one too."""
        self._leases[lease.run_id] = lease
        self._some.set()

    def remove(self, run_id: str) -> None:
        """Renew it no more."""
        self._leases.pop(run_id, None)
        if not self._leases:
            self._some.clear()

    async def run(self) -> None:
        """Renew all leases, over and over."""
        interval_s = self._ttl_ms / 1000 / RENEWALS_PER_TTL
        while True:
            await self._some.wait()
            await asyncio.sleep(interval_s if await self._renew() else interval_s / 5)

    async def _renew(self) -> bool:
        before_ns = boottime_ns()
        for late in [one for one in self._leases.values() if one.has_run_out(before_ns)]:
            # Where requests arrive and only answers are lost, renewing on would keep everyone else from the run for ever.
            log.error("lease.ran_out", run_id=late.run_id)
            self._lose(late)
        run_ids = list(self._leases)
        if not run_ids:
            return True
        try:
            # An answer that takes longer is worth nothing; a dead connection is replaced while there is time.
            with store_calls("renew the leases"):
                async with asyncio.timeout(self._ttl_ms / 1000 / RENEWALS_PER_TTL):
                    lost = await leases.renew(self._redis, run_ids, worker_id=self._worker_id, ttl_ms=self._ttl_ms)
        except StoreUnavailable as error:
            log.warning("lease.renewal_failed", runs=len(run_ids), error=error.message)
            self._on_trouble()
            return False
        for run_id in run_ids:
            lease = self._leases.get(run_id)
            if lease is None:
                continue
            if run_id in lost:
                log.error("lease.lost", run_id=run_id)
                self._lose(lease)
            else:
                lease.renewed(before_ns)
        return True

    def _lose(self, lease: Lease) -> None:
        self.remove(lease.run_id)
        lease.lose()
