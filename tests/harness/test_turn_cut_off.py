"""A turn whose time is over before its agent ran: recorded as interrupted, nobody's failure, nothing started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from cody.contracts.run import RunStats
from cody.store import events, runs
from harness.turn import BROKEN, Turn
from tests.harness.owning import owned


async def test_a_start_that_came_too_late_is_an_interrupted_turn(redis: Redis, workspace: Any, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    request = workspace.request("", command=["touch", str(ran)])
    async with owned(redis, request, tmp_path / "owned", renewed_ns=0) as run:
        end = await Turn(run.turns, 1, RunStats()).run()
    assert (end.interrupted, end.error, end.stats.turns) == ("start_cut_off", None, 0)
    assert end.interrupted in BROKEN
    run_id = run.run_id
    assert (await runs.turn_record(redis, run_id, 1)).status == "interrupted"
    told = [event["type"] for event in [json.loads(frame.data) for frame in await events.after(redis, run_id, "0-0")]]
    assert told == ["run_queued", "turn_interrupted"]
    assert not ran.exists()
