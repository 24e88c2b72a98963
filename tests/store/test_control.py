"""Control messages are accepted with the status they cause, judged by the table, each once."""

from __future__ import annotations

import asyncio
import uuid
from typing import cast

import pytest
from redis.asyncio import Redis

from cody.contracts.run import RunStatus
from cody.contracts.run_config import RunConfig
from cody.errors import Conflict, NotFound
from cody.store import control, keys, runs

NOW = "2026-01-01T00:00:00.000Z"


async def run_that_is(redis: Redis, status: RunStatus) -> str:
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1_000)
    await redis.hset(keys.meta(run_id), "status", status)
    return run_id


async def messages(redis: Redis, run_id: str) -> list[str]:
    found = cast("list[tuple[bytes, dict[bytes, bytes]]]", await redis.xrange(keys.control(run_id)))
    return [one.action for entry in found if (one := control.message(*entry)) is not None]


async def test_status_and_message_come_together(redis: Redis) -> None:
    run_id = await run_that_is(redis, "running")
    assert await control.request(redis, run_id, "pause", reason="lunch", now=NOW) == "pausing"
    fields = await runs.fields(redis, run_id)
    assert (fields["status"], fields["reason"], fields["updatedAt"]) == ("pausing", "lunch", NOW)
    assert await messages(redis, run_id) == ["pause"]


async def test_what_the_table_forbids_is_a_conflict_that_changes_nothing(redis: Redis) -> None:
    run_id = await run_that_is(redis, "paused")
    with pytest.raises(Conflict, match="paused"):
        await control.request(redis, run_id, "pause", reason=None, now=NOW)
    assert (await runs.fields(redis, run_id))["status"] == "paused"
    assert await messages(redis, run_id) == []


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_a_finished_run_is_not_steered(redis: Redis, status: RunStatus) -> None:
    run_id = await run_that_is(redis, status)
    for key in keys.of_run(run_id):
        await redis.expire(key, 60)
    with pytest.raises(Conflict, match=status):
        await control.request(redis, run_id, "cancel", reason=None, now=NOW)


async def test_an_unknown_run_is_not_found_and_not_made(redis: Redis) -> None:
    with pytest.raises(NotFound):
        await control.request(redis, str(uuid.uuid4()), "cancel", reason=None, now=NOW)
    assert await redis.keys("*") == []


async def test_of_many_equal_requests_at_once_exactly_one_is_accepted(redis: Redis) -> None:
    run_id = await run_that_is(redis, "running")
    answers = await asyncio.gather(
        *(control.request(redis, run_id, "pause", reason=None, now=NOW) for _ in range(20)), return_exceptions=True
    )
    assert answers.count("pausing") == 1
    assert all(isinstance(answer, Conflict) for answer in answers if answer != "pausing")
    assert await messages(redis, run_id) == ["pause"]


async def test_cancel_wins_over_a_pause_that_came_first(redis: Redis) -> None:
    run_id = await run_that_is(redis, "running")
    await control.request(redis, run_id, "pause", reason=None, now=NOW)
    assert await control.request(redis, run_id, "cancel", reason=None, now=NOW) == "cancelling"
    with pytest.raises(Conflict):
        await control.request(redis, run_id, "resume", reason=None, now=NOW)
    assert await messages(redis, run_id) == ["pause", "cancel"]


async def test_a_foreign_entry_is_not_a_message() -> None:
    assert control.message(b"1-0", {b"action": b"explode"}) is None
    assert control.message(b"1-0", {}) is None
