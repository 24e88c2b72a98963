"""One run as its worker has it, without a service around it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from cody.contracts.run import StartRunRequest
from cody.redaction import Redactor
from cody.store import leases, runs
from cody.store.leases import Claim
from harness import epic
from harness.agents.command import CommandAgent
from harness.guard_clock import boottime_ns
from harness.journal import Journal
from harness.leases import Lease
from harness.spool import Spool
from harness.turn_series import TurnSeries

TTL_MS = 60_000
WORKER_ID = "w"


@dataclass(frozen=True)
class Owned:
    run_id: str
    journal: Journal
    turns: TurnSeries


@asynccontextmanager
async def owned(
    redis: Redis, request: StartRunRequest, folder: Path, *, renewed_ns: int | None = None
) -> AsyncIterator[Owned]:
    """A run that was just created and taken; at the end its lock is given back, as if its worker had died.

    `renewed_ns`: when the lease was renewed, by the clock since boot; now unless it is given.
    """
    run_id, config = str(uuid.uuid4()), request.config
    await runs.create(redis, run_id, epic_id=request.epic_id, config=config, now_ms=1)
    claim = await leases.acquire(redis, run_id, worker_id=WORKER_ID, host="h", ttl_ms=TTL_MS)
    assert isinstance(claim, Claim)
    journal = Journal(redis, run_id, fence=claim.fence, last_seq=1, spool=Spool(folder / "spool"))
    try:
        turns = await TurnSeries.prepare(
            run_id=run_id,
            fence=claim.fence,
            config=config,
            epic=epic.locate(config, request.epic_id),
            agent=CommandAgent(),
            journal=journal,
            lease=Lease(run_id, TTL_MS, grace_s=1, renewed_ns=boottime_ns() if renewed_ns is None else renewed_ns),
            grace_s=1,
            turn_dir=lambda number: folder / str(number),
            redactor=Redactor([]),
            epic_id=request.epic_id,
            kept={},
            publisher=None,
        )
        yield Owned(run_id, journal, turns)
        await journal.flush()
    finally:
        await journal.close()
        await leases.release(redis, run_id, worker_id=WORKER_ID)
