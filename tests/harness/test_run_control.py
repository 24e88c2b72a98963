"""Pause, resume, cancel, shutdown and take-up, while things happen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

from cody.errors import Conflict
from cody.settings import Settings
from cody.store import keys
from harness.service import RunService
from tests.harness.conftest import Watched, serving

Eventually = Callable[..., Awaitable[None]]

LONG = """
    print("started", flush=True)
    while not Path(f"../go{TURN}").exists(): time.sleep(0.01)
    if TURN == 2: STOP.touch()
"""


def marked(run_id: str) -> list[int]:
    """Every process of the run, wherever it hid."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CODY_RUN_ID") == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


async def test_pause_waits_for_the_turns_end_and_resume_goes_on(
    workspace: Any, start: Any, service: RunService
) -> None:
    run = await start(workspace.request(LONG))
    await run.until("subprocess_output")
    assert (await service.control(run.run_id, "pause", "lunch")).status == "pausing"
    await run.until("run_pausing")
    assert "turn_completed" not in run.types
    (workspace.path.parent / "go1").touch()
    await run.until("run_paused")
    paused = await service.records.snapshot(run.run_id)
    assert (paused.status, paused.reason, paused.pid, paused.current_turn) == ("paused", "lunch", None, 1)
    with pytest.raises(Conflict):
        await service.control(run.run_id, "pause", None)
    (workspace.path.parent / "go2").touch()
    assert (await service.control(run.run_id, "resume", None)).status == "running"
    end = await run.end()
    order = [t for t in run.types if t.startswith(("run_", "turn_"))]
    assert order == [
        "run_queued", "run_started", "turn_started", "run_pausing", "turn_completed", "run_paused", "run_resumed",
        "turn_started", "turn_completed", "run_completed",
    ]  # fmt: skip
    assert (end.status, end.reason) == ("completed", None)


async def test_resume_of_a_running_run_and_control_of_a_finished_one_are_conflicts(
    workspace: Any, start: Any, service: RunService
) -> None:
    run = await start(workspace.request(LONG))
    await run.until("turn_started")
    with pytest.raises(Conflict, match="running"):
        await service.control(run.run_id, "resume", None)
    await service.control(run.run_id, "cancel", None)
    await run.end()
    for action in ("pause", "resume", "cancel"):
        with pytest.raises(Conflict, match="cancelled"):
            await service.control(run.run_id, action, None)


STUBBORN = """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    daemon = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid()\\n"
    daemon += "if os.fork(): os._exit(0)\\ntime.sleep(986)"
    subprocess.Popen([sys.executable, "-c", daemon])
    print("ready", flush=True)
    time.sleep(986)
"""


async def test_cancel_ends_a_stubborn_agent_and_its_daemons_now(
    workspace: Any, start: Any, service: RunService, eventually: Eventually
) -> None:
    run = await start(workspace.request(STUBBORN, gracePeriodSec=0.2))
    await run.until("subprocess_output")
    await eventually(lambda: len(marked(run.run_id)) >= 3, "guard, agent and daemon run")
    assert (await service.control(run.run_id, "cancel", None)).status == "cancelling"
    end = await run.end()
    assert (end.status, end.reason, end.pid) == ("cancelled", "manual", None)
    assert marked(run.run_id) == []
    assert run.types[-3:] == ["run_cancelling", "turn_interrupted", "run_cancelled"]
    assert (await service.records.turn(run.run_id, 1)).status == "interrupted"


async def test_cancel_while_paused_and_during_the_delay(workspace: Any, start: Any, service: RunService) -> None:
    paused = await start(workspace.request(LONG))
    await paused.until("turn_started")
    await service.control(paused.run_id, "pause", None)
    (workspace.path.parent / "go1").touch()
    await paused.until("run_paused")
    await service.control(paused.run_id, "cancel", "enough")
    assert (await paused.end()).reason == "enough"

    waiting = await start(workspace.request("print('x')", loopDelaySec=600))
    await waiting.until("turn_completed")
    await service.control(waiting.run_id, "cancel", None)
    end = await waiting.end()
    assert (end.status, end.stats.turns) == ("cancelled", 1)


async def test_cancel_right_after_the_start_wins(workspace: Any, start: Any, service: RunService) -> None:
    runs = [await start(workspace.request("time.sleep(985)", gracePeriodSec=0.1)) for _ in range(5)]
    for run in runs:
        assert (await service.control(run.run_id, "cancel", None)).status == "cancelling"
    for run in runs:
        assert (await run.end()).status == "cancelled"
        assert run.types[-1] == "run_cancelled"
        assert marked(run.run_id) == []


async def test_pause_during_the_last_turn_does_not_undo_its_completion(
    workspace: Any, start: Any, service: RunService
) -> None:
    code = "print('started', flush=True)\n    while not Path('../go1').exists(): time.sleep(0.01)\n    STOP.touch()"
    run = await start(workspace.request("\n    " + code))
    await run.until("subprocess_output")
    await service.control(run.run_id, "pause", None)
    (workspace.path.parent / "go1").touch()
    assert (await run.end()).status == "completed"


async def test_each_control_message_takes_effect_once_in_a_storm(
    workspace: Any, start: Any, service: RunService
) -> None:
    run = await start(workspace.request("print('x')"))
    await run.until("turn_started")

    async def one(action: Any) -> str | None:
        try:
            return (await service.control(run.run_id, action, None)).status
        except Conflict:
            return None

    pauses = 0
    for _ in range(10):
        accepted = await asyncio.gather(*(one(a) for a in ["pause"] * 8 + ["resume"] * 2))
        # Only a resume that was accepted makes room for another pause.
        assert accepted.count("pausing") <= 1 + accepted.count("running")
        if "pausing" in accepted:
            pauses += accepted.count("pausing")
            await run.until(lambda events, n=pauses: [e["type"] for e in events].count("run_paused") >= n)
            assert await one("resume") in {"running", None}
    await one("cancel")
    await run.end()
    steps = [
        t for t in run.types if t in {"run_pausing", "run_paused", "run_resumed", "run_cancelling", "run_cancelled"}
    ]
    legal = {
        None: {"run_pausing", "run_cancelling"},
        "run_pausing": {"run_paused", "run_cancelling"},
        "run_paused": {"run_resumed", "run_cancelling"},
        "run_resumed": {"run_pausing", "run_cancelling"},
        "run_cancelling": {"run_cancelled"},
    }
    before: str | None = None
    for step in steps:
        assert step in legal[before], steps
        before = step


async def test_a_shutdown_mid_turn_leaves_the_run_to_be_taken_up_again(
    workspace: Any, settings: Settings, redis: Redis
) -> None:
    request = workspace.request(STUBBORN.replace("print", "if TURN == 1: print") + "\n")
    async with serving(settings) as first:
        run = Watched(first, (await first.start(request)).run_id)
        run.listen()
        await run.until("subprocess_output")
        await first.shutdown()
        assert marked(run.run_id) == []
        left = await first.records.snapshot(run.run_id)
        assert left.status == "running"
        assert not await redis.exists(keys.lock(run.run_id))
        await run.until("turn_interrupted")
        await run.close()
    workspace.agent("STOP.write_text('second life')", Path(request.config.command[1]))
    async with serving(settings) as second:
        again = Watched(second, run.run_id)
        again.listen()
        end = await again.end()
    assert (end.status, end.completion.line, end.fence, end.stats.turns) == ("completed", "second life", 2, 1)
    order = [t for t in again.types if t.startswith(("run_", "turn_"))]
    assert order == [
        "run_queued", "run_started", "turn_started", "turn_interrupted", "run_recovered", "turn_started",
        "turn_completed", "run_completed",
    ]  # fmt: skip
    assert [event["reason"] for event in again.of("turn_interrupted")] == ["shutdown"]


async def test_a_turn_that_is_made_again_is_the_same_turn_to_the_agent(
    workspace: Any, settings: Settings, redis: Redis
) -> None:
    code = """
        (EPIC / f"prompt-{TURN}.txt").write_text(PROMPT)
        print("started", flush=True)
        if TURN == 1: time.sleep(983)
    """
    async with serving(settings) as first:
        run = Watched(first, (await first.start(workspace.request(code, maxTurns=2))).run_id)
        run.listen()
        await run.until("subprocess_output")
        await first.shutdown()
        await run.close()
    async with serving(settings) as second:
        again = Watched(second, run.run_id)
        again.listen()
        end = await again.end()
    assert (end.stats.turns, end.current_turn) == (2, 3)
    prompts = [(workspace.epic / f"prompt-{turn}.txt").read_text() for turn in (1, 2, 3)]
    told = [prompt.rpartition("This is ")[2].partition(" of run")[0] for prompt in prompts]
    assert told == ["turn 1 of at most 2", "turn 1 of at most 2", "turn 2 of at most 2"]


async def test_a_shutdown_can_be_told_to_cancel(workspace: Any, settings: Settings, redis: Redis) -> None:
    async with serving(settings.model_copy(update={"on_shutdown": "cancel"})) as service:
        run_id = (await service.start(workspace.request("print('x', flush=True); time.sleep(984)"))).run_id
        run = Watched(service, run_id)
        run.listen()
        await run.until("subprocess_output")
        await service.shutdown()
        end = await service.records.snapshot(run_id)
        await run.close()
    assert (end.status, end.reason) == ("cancelled", "system")
    assert marked(run_id) == []


async def test_a_paused_run_survives_a_restart(workspace: Any, settings: Settings, redis: Redis) -> None:
    async with serving(settings) as first:
        run = Watched(first, (await first.start(workspace.request(LONG))).run_id)
        run.listen()
        await run.until("turn_started")
        await first.control(run.run_id, "pause", None)
        (workspace.path.parent / "go1").touch()
        await run.until("run_paused")
        await run.close()
    (workspace.path.parent / "go2").touch()
    async with serving(settings) as second:
        again = Watched(second, run.run_id)
        again.listen()
        await again.until("run_recovered")
        assert (await second.records.snapshot(run.run_id)).status == "paused"
        await second.control(run.run_id, "resume", None)
        assert (await again.end()).status == "completed"


async def test_a_message_that_came_while_nobody_worked_is_applied_once(
    workspace: Any, settings: Settings, redis: Redis
) -> None:
    async with serving(settings) as first:
        run_id = (await first.start(workspace.request(LONG))).run_id
        run = Watched(first, run_id)
        run.listen()
        await run.until("turn_started")
        await first.shutdown()
        await run.close()
        assert (await first.control(run_id, "cancel", None)).status == "cancelling"
    async with serving(settings) as second:
        again = Watched(second, run_id)
        again.listen()
        assert (await again.end()).status == "cancelled"
    assert again.types.count("run_cancelling") == 1
    assert again.types.count("turn_started") == 1


async def test_two_services_share_the_runs_and_each_run_has_one_worker(
    workspace: Any, settings: Settings, redis: Redis, eventually: Eventually
) -> None:
    async with serving(settings) as one, serving(settings) as two:
        run_id = (await one.start(workspace.request(LONG))).run_id
        run = Watched(two, run_id)
        run.listen()
        await run.until("turn_started")
        # Whichever looked first has it.
        other = two if run_id in one._store.crew.workers else one
        other._store.crew.take(run_id)
        await eventually(lambda: run_id not in other._store.crew._tasks)
        assert (await other.records.snapshot(run_id)).fence == 1
        # Control through the process that does not own the run.
        assert (await other.control(run_id, "cancel", None)).status == "cancelling"
        assert (await run.end()).status == "cancelled"
    assert os.getpid()
