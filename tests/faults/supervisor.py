"""A supervisor with nothing but a lease and a guarded agent: `python -m tests.faults.supervisor URL RUN TTL_MS GUARDED EVIDENCE`.

For showing what the guard's deadline is worth: with GUARDED `no` the agent gets none. It takes the run when the lock is free,
prints its fence, and keeps the lease until it loses it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from pathlib import Path

from cody.store import leases
from cody.store.clients import connect
from cody.store.leases import Claim
from harness.guard_clock import boottime_ns
from harness.leases import Lease, LeaseKeeper
from harness.process import Launch, spawn

AGENT = Path(__file__).with_name("oracle_agent.py")


async def main(url: str, run_id: str, ttl_ms: int, guarded: bool, evidence: str) -> None:
    redis = connect(url)
    worker_id = str(uuid.uuid4())
    keeper = LeaseKeeper(redis, worker_id=worker_id, ttl_ms=ttl_ms)
    while True:
        before_ns = boottime_ns()
        claim = await leases.acquire(redis, run_id, worker_id=worker_id, host="h", ttl_ms=ttl_ms)
        if isinstance(claim, Claim):
            break
        await asyncio.sleep(0.02)
    lease = Lease(run_id, ttl_ms, 0.1, before_ns)
    lost = asyncio.Event()
    lease.on_lost = lost.set
    keeper.add(lease)
    keeping = asyncio.create_task(keeper.run())
    process = await spawn(
        Launch(
            (sys.executable, "-I", "-S", str(AGENT), evidence, "/nowhere"),
            Path("/"),
            {"CODY_RUN_ID": run_id, "CODY_FENCE": str(claim.fence), "CODY_TURN": "1"},
            Path(os.devnull),
        ),
        guard_id=str(uuid.uuid4()),
        grace_s=0.1,
        on_stdout=lambda data: None,
        on_stderr=lambda data: None,
        deadline=lease.deadline if guarded else None,
    )
    if guarded:
        lease.on_extended = process.extend_deadline
    print(claim.fence, flush=True)
    await lost.wait()
    process.stop(0)
    await process.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "yes", sys.argv[5]))
