"""The loop of one run, where two things happen at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from cody.contracts.run import RunStats
from cody.store import control, keys, runs
from cody.store.control import ControlMessage
from harness.slots import Slot, Slots
from harness.standing import RunState
from harness.worker import RunWorker
from tests.harness.owning import WORKER_ID, owned

Eventually = Callable[..., Awaitable[None]]


@pytest.mark.parametrize("slot_first", [True, False])
async def test_a_cancel_that_comes_with_the_slot_ends_a_run_that_waited(
    workspace: Any, redis: Redis, tmp_path: Path, eventually: Eventually, slot_first: bool
) -> None:
    slots = Slots(1)
    other = Slot(slots)
    assert other.take_now()
    async with owned(redis, workspace.request("STOP.touch()"), tmp_path / "owned") as run:
        state = RunState(run.run_id, status="queued", stats=RunStats(), turns_begun=0, end_ttl_s=0)
        worker = RunWorker(state, run.journal, run.turns, Slot(slots), worker_id=WORKER_ID, host="h")
        working = asyncio.create_task(worker.run())
        await eventually(lambda: len(slots._waiting) == 1)
        await control.request(redis, run.run_id, "cancel", reason=None, now="2026-01-01T00:00:00.000Z")
        ((entry_id, _),) = cast("list[tuple[bytes, Any]]", await redis.xrange(keys.control(run.run_id)))
        message = ControlMessage(entry_id.decode(), "cancel", "manual")
        acts: list[Callable[[], object]] = [other.give_back, lambda: worker.control(message)]
        for act in acts if slot_first else reversed(acts):
            act()
        await working
        end = await runs.snapshot(redis, run.run_id, now_ms=0)
    assert (end.status, end.started_at) == ("cancelled", None)
    assert slots.used == 0
