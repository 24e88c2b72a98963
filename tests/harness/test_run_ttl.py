"""Redis keeps a run that has ended until the archive has it; only then its TTL begins."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis

from cody.contracts.run import StartRunRequest
from cody.settings import Settings
from cody.store import keys
from harness.service import RunService

Eventually = Callable[..., Awaitable[None]]


async def ended_run(service: RunService, folder: Path) -> str:
    (folder / ".cody-harness" / "current-epic").mkdir(parents=True)
    config = {"workingDir": str(folder), "agent": "command", "command": [sys.executable, "-c", ""], "maxTurns": 1}
    asked = StartRunRequest.model_validate({"epicId": "current-epic", "config": config})
    run_id = (await service.start(asked)).run_id
    async for _ in service.follow(run_id, await service.open_stream(run_id, "0")):
        pass
    return run_id


async def test_a_run_that_no_archive_has_is_kept(
    settings: Settings, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    async with RunService.open(settings.model_copy(update={"projector": False})) as service:
        run_id = await ended_run(service, tmp_path / "repo")
    kept = [key for key in keys.of_run(run_id) if await redis.exists(key)]
    assert keys.events(run_id) in kept
    assert {await redis.ttl(key) for key in kept if key != keys.subscribers(run_id)} == {-1}

    async with RunService.open(settings):

        async def all_expire() -> bool:
            return all([await redis.ttl(key) > 0 for key in kept])

        await eventually(all_expire, "the projector has archived the run, and set its TTL")
        assert await redis.ttl(keys.meta(run_id)) <= settings.run_ttl_s


async def test_a_run_that_could_not_be_worked_on_is_kept_too(
    settings: Settings, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    async with RunService.open(settings.model_copy(update={"projector": False, "concurrency": 0})) as front:
        folder = tmp_path / "repo"
        (folder / ".cody-harness" / "current-epic").mkdir(parents=True)
        config = {"workingDir": str(folder), "agent": "command", "command": ["true"], "maxTurns": 1}
        asked = StartRunRequest.model_validate({"epicId": "current-epic", "config": config})
        run_id = (await front.start(asked)).run_id
        await redis.hset(keys.meta(run_id), "config", "{not what it was")
        async with RunService.open(settings.model_copy(update={"projector": False, "state_dir": tmp_path / "worker"})):

            async def failed() -> bool:
                return bool(await redis.hget(keys.meta(run_id), "status") == b"failed")

            await eventually(failed)
    assert await redis.ttl(keys.events(run_id)) == -1


async def test_a_repeated_request_is_answered_by_the_archive_when_redis_has_let_go_of_its_run(
    settings: Settings, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    async with RunService.open(settings) as service:
        folder = tmp_path / "repo"
        (folder / ".cody-harness" / "current-epic").mkdir(parents=True)
        config = {"workingDir": str(folder), "agent": "command", "command": [sys.executable, "-c", ""], "maxTurns": 1}
        asked = StartRunRequest.model_validate({"epicId": "current-epic", "config": config})
        run_id = (await service.start(asked, idempotency_key="k")).run_id

        async def is_archived() -> bool:
            return await redis.ttl(keys.meta(run_id)) > 0

        await eventually(is_archived)
        await redis.delete(*keys.of_run(run_id))
        again = await service.start(asked, idempotency_key="k")
        assert (again.run_id, again.meta.status) == (run_id, "completed")
