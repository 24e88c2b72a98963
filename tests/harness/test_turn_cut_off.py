"""A turn whose time is over before its agent ran: recorded as interrupted, nobody's failure, nothing started."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from cody.contracts.run import RunStats
from cody.contracts.run_config import RunConfig
from cody.redaction import Redactor
from cody.store import events, leases, runs
from cody.store.leases import Claim
from harness import epic
from harness.agents.command import CommandAgent
from harness.journal import Journal
from harness.leases import Lease
from harness.spool import Spool
from harness.turn import BROKEN, Turn
from harness.turn_series import TurnSeries


async def test_a_start_that_came_too_late_is_an_interrupted_turn(redis: Redis, workspace: Any, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    config = RunConfig(working_dir=str(workspace.path), agent="command", command=["touch", str(ran)])
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="current-epic", config=config, now_ms=1)
    claim = await leases.acquire(redis, run_id, worker_id="w", host="h", ttl_ms=60_000)
    assert isinstance(claim, Claim)
    journal = Journal(redis, run_id, fence=claim.fence, last_seq=1, spool=Spool(tmp_path / "spool"))
    try:
        series = await TurnSeries.prepare(
            run_id=run_id,
            fence=claim.fence,
            config=config,
            epic=epic.locate(config, "current-epic"),
            agent=CommandAgent(),
            journal=journal,
            lease=Lease(run_id, ttl_ms=60_000, grace_s=1, renewed_ns=0),
            grace_s=1,
            turn_dir=lambda number: tmp_path / str(number),
            redactor=Redactor([]),
            epic_id="current-epic",
            kept={},
            publisher=None,
        )
        end = await Turn(series, 1, RunStats()).run()
        await journal.flush()
    finally:
        await journal.close()
    assert (end.interrupted, end.error, end.stats.turns) == ("start_cut_off", None, 0)
    assert end.interrupted in BROKEN
    assert (await runs.turn_record(redis, run_id, 1)).status == "interrupted"
    told = [event["type"] for event in [json.loads(frame.data) for frame in await events.after(redis, run_id, "0-0")]]
    assert told == ["run_queued", "turn_interrupted"]
    assert not ran.exists()
