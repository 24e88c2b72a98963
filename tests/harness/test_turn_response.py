"""Every turn of a run is a Response too: in SQL, with what the agent did, also when it fails or is cancelled."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.contracts.responses import Message, Response
from cody.contracts.run import StartRunRequest
from cody.errors import Conflict
from cody.settings import Settings
from cody.store import events, keys, runs
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario_file import load_scenario
from harness.replay.server import ReplayServer
from harness.service import RunService
from tests.harness.conftest import serving
from tests.pipeline.postgres_server import PostgresServer, own_server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    with own_server() as server:
        yield server


@pytest.fixture
async def codex(workspace: Any, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await codex(scenario, **config)`: a request for a run of the real codex against this scenario."""
    servers: list[ReplayServer] = []

    async def request(scenario: str, **config: Any) -> StartRunRequest:
        server = await ReplayServer(load_scenario(scenario), delay_factor=0).__aenter__()
        servers.append(server)
        env = write_codex_home(tmp_path / "codex-home", server.base_url)
        settings = {"workingDir": str(workspace.path), "loopDelaySec": 0, "env": env, **config}
        return StartRunRequest.model_validate({"epicId": "current-epic", "config": settings})

    yield request
    for server in servers:
        await server.__aexit__(None, None, None)


async def responses(service: RunService, run_id: str, count: int = 1) -> list[Response]:
    """The Responses of the run's turns, once so many have ended."""
    archive = await service.pipeline.archive()
    async with asyncio.timeout(30):
        while True:
            rows = await archive.responses_of_run(run_id)
            found = [Response.model_validate_json(row.response) for row in rows]
            if sum(one.is_terminal for one in found) >= count:
                return found
            await asyncio.sleep(0.02)


async def test_a_turn_of_codex_is_a_response_with_all_that_it_did(
    codex: Callable[..., Any], start: Any, service: RunService
) -> None:
    run = await start(await codex("commands", maxTurns=1))
    await run.end(60)
    (response,) = await responses(service, run.run_id)
    (record,) = (await service.records.turns(run.run_id)).turns
    assert (response.id, response.thread_id) == (record.response_id, record.thread_id)
    assert response.turn_id == f"{run.run_id}:1"
    assert (response.status, response.provider_id) == ("complete", "codex")
    calls = {event["item"]["call_id"] for event in run.of("turn_item") if event["item"]["type"] == "function_call"}
    told = [item for item in response.output_items if item.type == "function_call"]
    assert len(told) >= len(calls) > 0
    assert {item.call_id for item in told} == {
        item.call_id for item in response.output_items if item.type == "function_call_output"
    }
    messages = [item.content for item in response.output_items if isinstance(item, Message)]
    assert messages[-1] == record.last_message
    assert response.usage is not None
    assert response.usage.prompt_tokens == 6000
    with pytest.raises(Conflict, match="cancel that run"):
        await service.pipeline.abort(response.id, "no")


async def test_resumed_turns_are_one_thread_and_count_their_own_tokens(
    codex: Callable[..., Any], start: Any, service: RunService
) -> None:
    run = await start(await codex("resume", session="resume", maxTurns=2))
    await run.end(60)
    found = await responses(service, run.run_id, 2)
    assert len({one.thread_id for one in found}) == 1
    assert [one.turn_id for one in found] == [f"{run.run_id}:1", f"{run.run_id}:2"]
    usages = [one.usage.prompt_tokens if one.usage else 0 for one in found]
    assert usages == [event["tokenUsage"]["inputTokens"] for event in run.of("turn_completed")]


async def test_a_turn_of_codex_that_fails_is_a_response_in_error(
    codex: Callable[..., Any], start: Any, service: RunService
) -> None:
    run = await start(await codex("error_401"))
    await run.end(60)
    (response,) = await responses(service, run.run_id)
    assert response.status == "error"
    assert response.error is not None


async def test_a_turn_of_a_command_ends_with_its_last_words(workspace: Any, start: Any, service: RunService) -> None:
    run = await start(workspace.request("print('working')\nprint('all is done')", maxTurns=1))
    await run.end()
    (response,) = await responses(service, run.run_id)
    (record,) = (await service.records.turns(run.run_id)).turns
    assert (response.status, response.provider_id, response.thread_id) == ("complete", "command", run.run_id)
    assert [item.content for item in response.output_items if isinstance(item, Message)] == [record.last_message]
    assert "all is done" in (record.last_message or "")


async def test_a_turn_that_is_cancelled_is_an_aborted_response(workspace: Any, start: Any, service: RunService) -> None:
    run = await start(workspace.request("print('begun', flush=True)\ntime.sleep(600)"))
    await run.until("subprocess_output")
    await service.control(run.run_id, "cancel", None)
    await run.end()
    (response,) = await responses(service, run.run_id)
    assert (response.status, response.error and response.error.code) == ("aborted", "aborted_by_user")


async def test_a_turn_of_a_command_that_fails_is_a_response_in_error(
    workspace: Any, start: Any, service: RunService
) -> None:
    run = await start(workspace.request("sys.exit(3)"))
    await run.end()
    (response,) = await responses(service, run.run_id)
    assert (response.status, response.error and response.error.code) == ("error", "agent_exited")


async def test_a_run_that_redis_has_let_go_of_is_read_from_the_archive(
    workspace: Any, start: Any, service: RunService, redis: Any, eventually: Any
) -> None:
    run = await start(workspace.request("print('once')", maxTurns=1))
    kept = await run.end()
    (turn,) = (await service.records.turns(run.run_id)).turns
    archive = await service.pipeline.archive()

    async def is_archived() -> bool:
        heads = await archive.heads([run.run_id])
        return run.run_id in heads and heads[run.run_id].status == "completed"

    await eventually(is_archived)

    async def may_go() -> bool:
        return int(await redis.ttl(keys.meta(run.run_id))) > 0

    await eventually(may_go, "the archive has all of it")
    await redis.flushdb()
    found = await service.records.snapshot(run.run_id)
    assert (found.status, found.stats, found.config) == (kept.status, kept.stats, kept.config)
    assert (await service.records.turns(run.run_id)).turns == [turn]
    assert await service.records.turn(run.run_id, 1) == turn
    page = await service.records.page(limit=10, status=None, epic_id=None, cursor=None)
    assert [one.run_id for one in page.runs] == [run.run_id]


async def test_a_run_of_a_redis_that_went_back_in_time_is_not_worked_on(
    workspace: Any, settings: Settings, redis: Redis, eventually: Any
) -> None:
    # An archive that needs more than 2/15 of a lease to answer is not waited for: the run would be worked on.
    settings = settings.model_copy(update={"lock_ttl_ms": 225_000})
    async with serving(settings) as service:
        archive = await service.pipeline.archive()
        config = workspace.request("print('begun')", maxTurns=1).config
        run_id = str(uuid.uuid4())
        # What the archive saw of this run before Redis was set back.
        await archive.raise_fence(run_id, 1_000, claim_id="before")
        await runs.create(redis, run_id, epic_id="current-epic", config=config, now_ms=1_750_000_000_000)

        async def is_told() -> bool:
            told = (await service.readiness()).degraded
            return any(run_id in reason and "went back in time" in reason for reason in told)

        # Nobody was told of the run: who starts looks for such, and hands it out.
        async with serving(settings.model_copy(update={"concurrency": 0})):
            await eventually(is_told)
        assert (await service.records.snapshot(run_id)).status == "queued"
        assert await events.after(redis, run_id, "0") == [await events.first(redis, run_id)]
        fresh = await service.start(workspace.request("print('others go on')", maxTurns=1))

        async def is_completed() -> bool:
            return (await service.records.snapshot(fresh.run_id)).status == "completed"

        await eventually(is_completed)
        await service.control(run_id, "cancel", None)


async def test_a_run_goes_on_while_the_archive_is_away(
    workspace: Any, settings: Settings, redis: Redis, own_postgres: PostgresServer, eventually: Any
) -> None:
    async with serving(settings.model_copy(update={"database_url": own_postgres.url})) as service:
        await (await service.pipeline.archive()).open()
        await own_postgres.stop()
        run = await service.start(workspace.request("print('on')", maxTurns=1))

        async def is_completed() -> bool:
            return (await service.records.snapshot(run.run_id)).status == "completed"

        await eventually(is_completed)
        await own_postgres.start()
        (response,) = await responses(service, run.run_id)
        assert response.status == "complete"
