"""The real codex binary under Cody, talking to the replay server: sessions, errors, limits, cancel."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cody.contracts.run import StartRunRequest
from cody.settings import Settings
from harness.replay.codex_home import write_codex_home
from harness.replay.scenario_file import load_scenario
from harness.replay.server import ReplayServer
from harness.service import RunService
from tests.harness.conftest import Watched, serving
from tests.harness.test_dispatch import ended, host, ready, watched
from tests.harness.test_run_control import marked

Request = Callable[..., Any]


@pytest.fixture
async def codex(workspace: Any, tmp_path: Path) -> AsyncIterator[Request]:
    """`await codex(scenario, **config)`: a request for a run of codex against this scenario."""
    servers: list[ReplayServer] = []

    async def request(scenario: str, **config: Any) -> StartRunRequest:
        server = ReplayServer(load_scenario(scenario), delay_factor=0)
        await server.__aenter__()
        servers.append(server)
        home = tmp_path / f"codex-home-{len(servers)}"
        env = write_codex_home(home, server.base_url)
        return StartRunRequest.model_validate(
            {
                "epicId": "current-epic",
                "config": {"workingDir": str(workspace.path), "loopDelaySec": 0, "env": env, **config},
            }
        )

    yield request
    for server in servers:
        await server.__aexit__(None, None, None)


async def test_a_turn_of_commands_and_patches_is_told_in_events(codex: Request, start: Any) -> None:
    run = await start(await codex("commands", maxTurns=1))
    end = await run.end(60)
    assert (end.status, end.completion.source) == ("completed", "max_turns")
    kinds = [event["item"]["type"] for event in run.of("turn_item")]
    assert {"message", "function_call", "function_call_output"} <= set(kinds)
    assert "notes.txt" in {event["path"] for event in run.of("file_written")}
    assert "scratch.txt" in {event["path"] for event in run.of("file_deleted")}
    (tests,) = run.of("test_run_completed")
    assert (tests["passed"], tests["failed"], tests["skipped"]) == (3, 1, 1)
    # codex's own usage of five requests, and what a command reported by a sentinel.
    assert [event["inputTokens"] for event in run.of("token_usage")] == [10, 6000]
    assert end.stats.input_tokens == 6010
    outputs = [e["item"] for e in run.of("turn_item") if e["item"]["type"] == "function_call_output"]
    assert any("about to fail" in item["output"] for item in outputs)
    (completed,) = run.of("turn_completed")
    assert completed["exitCode"] == 0


async def test_a_resumed_conversation_goes_on_and_its_cumulative_usage_is_subtracted(
    codex: Request, start: Any, service: RunService
) -> None:
    run = await start(await codex("resume", session="resume", maxTurns=2))
    end = await run.end(60)
    assert end.status == "completed", end.error
    first, second = (await service.records.turns(run.run_id)).turns
    assert first.thread_id is not None
    assert first.thread_id == second.thread_id
    assert run.of("turn_started")[1]["threadId"] == first.thread_id
    usages = [event["tokenUsage"]["inputTokens"] for event in run.of("turn_completed")]
    assert sum(usages) == end.stats.input_tokens
    # The second turn of a thread reports the sum of both; only its own part is counted.
    assert all(usage > 0 for usage in usages)


CUT_OFF = """
name: cut_off
turns:
  - thread: fresh
    responses:
      - items:
          - type: function_call
            name: exec_command
            arguments: {cmd: sleep 600, yield_time_ms: 600000}
  - thread: resumed
    responses:
      - items:
          - type: message
            text: Done in the same conversation.
"""
KEY = "one key for all hosts of this test"
LEASE_MS = 10_000
"""Nobody loses it but by the kill: hosts may be slow."""


async def test_a_turn_whose_worker_was_killed_is_made_again_in_its_conversation(
    codex: Request, settings: Settings, redis: Any, tmp_path: Path
) -> None:
    (tmp_path / "cut_off.yaml").write_text(CUT_OFF)
    request = await codex(str(tmp_path / "cut_off.yaml"), session="resume", maxTurns=1)
    settings = settings.model_copy(update={"lock_ttl_ms": LEASE_MS})
    hosts: list[subprocess.Popen[bytes]] = []
    try:
        async with serving(settings.model_copy(update={"concurrency": 0, "secret_key": KEY})) as front:
            hosts.append(host(settings, tmp_path / "one", CODY_SECRET_KEY=KEY))
            await ready(hosts[0])
            run = await watched(front, request)
            await run.until("turn_item")
            hosts[0].kill()
            hosts.append(host(settings, tmp_path / "two", CODY_SECRET_KEY=KEY))
            await ready(hosts[1])
            end = await run.end(60)
            first, second = (await front.records.turns(run.run_id)).turns
    finally:
        for process in hosts:
            process.terminate()
            ended(process)
    assert (end.status, end.completion.source, end.fence) == ("completed", "max_turns", 2), end.error
    assert (first.status, second.status) == ("interrupted", "completed")
    (conversation,) = (tmp_path / "codex-home-1" / "sessions").rglob("*.jsonl")
    told = run.of("turn_started")[1]["threadId"]
    assert told == second.thread_id
    assert told in conversation.name


MUTE = """#!/bin/sh
[ "$1" = --version ] && echo codex-cli 0.169.0 && exit
echo '{"type":"thread.started","thread_id":"01a1fcfe-c98c-7e10-9a6e-2cbd0bc105c9"}'
echo '{"type":"turn.started"}'
[ "$CODY_TURN" = 1 ] && exec sleep 600
echo '{"type":"turn.completed","usage":{}}'
"""


async def test_a_turn_that_is_cut_off_before_it_did_anything_begins_a_new_conversation(
    workspace: Any, settings: Settings, redis: Any, tmp_path: Path, eventually: Any
) -> None:
    """Killed so early, codex has kept nothing, and to go on in that conversation would fail the run."""
    mute = tmp_path / "codex"
    mute.write_text(MUTE)
    mute.chmod(0o755)
    settings = settings.model_copy(update={"codex_bin": str(mute)})
    config = {"workingDir": str(workspace.path), "loopDelaySec": 0, "session": "resume", "maxTurns": 1}
    request = StartRunRequest.model_validate({"epicId": "current-epic", "config": config})
    async with serving(settings) as first:
        run = await watched(first, request)
        await run.until("turn_started")
        output = await first.output_file(run.run_id, 1)
        await eventually(lambda: b"turn.started" in output.read_bytes())
        await first.shutdown()
        await run.close()
    async with serving(settings) as second:
        again = Watched(second, run.run_id)
        again.listen()
        assert (await again.end()).status == "completed"
    assert [event.get("threadId") for event in again.of("turn_started")] == [None, None]


@pytest.mark.parametrize(
    ("scenario", "code", "retryable"),
    [
        ("error_401", "agent_auth", False),
        ("error_429", "agent_rate_limited", True),
        ("error_500", "agent_provider_error", True),
        ("drop", "agent_stream_dropped", True),
    ],
)
async def test_a_provider_that_fails_is_a_structured_error(
    codex: Request, start: Any, scenario: str, code: str, retryable: bool
) -> None:
    run = await start(await codex(scenario))
    end = await run.end(60)
    assert end.error is not None
    assert (end.status, end.error.code, end.error.retryable) == ("failed", code, retryable)
    assert run.of("turn_failed")[0]["exitCode"] == 1


@pytest.mark.parametrize("scenario", ["slow", "slow_setsid"])
async def test_cancel_ends_codex_and_the_commands_it_started(
    codex: Request, workspace: Any, start: Any, service: RunService, eventually: Any, scenario: str
) -> None:
    run = await start(await codex(scenario, gracePeriodSec=0.3))
    await run.until(
        lambda events: any(e["type"] == "turn_item" and e["item"]["type"] == "function_call" for e in events)
    )
    await eventually(lambda: len(marked(run.run_id)) >= 3, "guard, codex and its command run")
    await service.control(run.run_id, "cancel", None)
    end = await run.end(60)
    assert end.status == "cancelled"
    assert marked(run.run_id) == []


async def test_a_codex_that_is_too_old_is_named_with_what_mends_it(
    codex: Request, tmp_path: Path, settings: Settings, redis: Any
) -> None:
    old = tmp_path / "codex"
    old.write_text("#!/bin/sh\necho codex-cli 0.20.0\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    async with serving(settings.model_copy(update={"codex_bin": str(old)})) as service:
        error = await failure_of(service, await codex("one_message"))
    assert error.code == "agent_unavailable"
    assert "0.20.0" in error.message
    assert "pip install" in error.message


async def test_a_codex_that_is_missing_or_ends_at_once_fails_the_run(
    codex: Request, tmp_path: Path, settings: Settings, redis: Any
) -> None:
    async with serving(settings.model_copy(update={"codex_bin": str(tmp_path / "nowhere")})) as service:
        error = await failure_of(service, await codex("one_message"))
    assert error.code == "agent_unavailable"
    assert "nowhere" in error.message
    broken = tmp_path / "codex"
    broken.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 7\n")
    broken.chmod(0o755)
    async with serving(settings.model_copy(update={"codex_bin": str(broken)})) as service:
        error = await failure_of(service, await codex("one_message"))
    assert "the disk is on fire" in error.message


async def failure_of(service: RunService, request: StartRunRequest) -> Any:
    run_id = (await service.start(request)).run_id
    cursor = await service.open_stream(run_id, "0")
    async for _ in service.follow(run_id, cursor):
        pass
    end = await service.records.snapshot(run_id)
    assert end.status == "failed"
    return end.error


async def test_a_turn_of_codex_leaves_nothing_to_be_ended(codex: Request, start: Any) -> None:
    run = await start(await codex("commands", maxTurns=1))
    await run.end(60)
    assert "leftover_processes" not in [event["code"] for event in run.of("warning")]
