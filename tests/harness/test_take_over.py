"""What a worker finds that takes over a run whose last turn had ended: a verdict that nobody carried out is carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.contracts.run import RunStats, StartRunRequest
from cody.contracts.run_events import RunStarted
from cody.settings import Settings
from cody.store import control
from harness.turn import Turn
from harness.verdict import RESTART_BUDGET
from tests.harness.conftest import Watched, serving
from tests.harness.owning import WORKER_ID, owned


async def dead_after_its_turn(redis: Redis, request: StartRunRequest, folder: Path, **meta: str) -> str:
    """A run whose worker made turn 1 and got no further: no lock is left of it, and no word on what follows."""
    async with owned(redis, request, folder) as run:
        started = RunStarted(worker_id=WORKER_ID, host="h", fence=1)
        assert await run.journal.transition("queued", "running", [started], meta={"workerStatus": "running"})
        await Turn(run.turns, 1, RunStats()).run()
        run.journal.set(meta)
    return run.run_id


async def taken_over(settings: Settings, run_id: str) -> tuple[Watched, Any]:
    """The run and its snapshot, after another worker has brought it to its end."""
    async with serving(settings) as service:
        run = Watched(service, run_id)
        run.listen()
        return run, await run.end()


COMPLETE = "with open(EPIC / 'codys-log.md', 'a') as log: log.write('EPIC COMPLETE\\n')"


@pytest.mark.parametrize(
    ("code", "config", "source", "line"),
    [
        ("", {"maxTurns": 1}, "max_turns", "1 of 1 turns made"),
        ("STOP.write_text('all is done')", {}, "stop_file", "all is done"),
        (COMPLETE, {"completion": {"pattern": "EPIC COMPLETE"}}, "log_pattern", "EPIC COMPLETE"),
        ("STOP.write_text('done'); sys.exit(1)", {}, "stop_file", "done"),
    ],
)
async def test_a_run_that_was_done_is_completed_without_another_turn(
    workspace: Any,
    settings: Settings,
    redis: Redis,
    tmp_path: Path,
    code: str,
    config: dict[str, Any],
    source: str,
    line: str,
) -> None:
    run_id = await dead_after_its_turn(redis, workspace.request(code, **config), tmp_path / "dead")
    run, end = await taken_over(settings, run_id)
    assert (end.status, end.completion.source, end.completion.line) == ("completed", source, line)
    assert (end.stats.turns, end.current_turn, end.fence) == (1, 1, 2)
    assert run.types.count("turn_started") == 1
    assert run.types[-3:] == ["run_recovered", "completion_detected", "run_completed"]


async def test_a_run_whose_turn_failed_fails_with_that_turns_error(
    workspace: Any, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    run_id = await dead_after_its_turn(redis, workspace.request("sys.exit(3)"), tmp_path / "dead")
    run, end = await taken_over(settings, run_id)
    assert end.status == "failed"
    assert end.error.model_dump(by_alias=True) == run.of("turn_failed")[0]["error"]
    assert run.types[-2:] == ["run_recovered", "run_failed"]


async def test_a_run_that_goes_on_after_its_turn_goes_on(
    workspace: Any, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    breaks = str(RESTART_BUDGET + 1)  # of the turns before: one that ended by itself starts the count anew
    run_id = await dead_after_its_turn(redis, workspace.request("", maxTurns=2), tmp_path / "dead", brokenStarts=breaks)
    run, end = await taken_over(settings, run_id)
    assert (end.status, end.completion.line) == ("completed", "2 of 2 turns made")
    assert [event["turn"] for event in run.of("turn_started")] == [1, 2]


async def test_a_pause_that_nobody_heard_does_not_undo_the_completion(
    workspace: Any, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    run_id = await dead_after_its_turn(redis, workspace.request("STOP.touch()"), tmp_path / "dead")
    assert await control.request(redis, run_id, "pause", reason=None, now="2026-01-01T00:00:00.000Z") == "pausing"
    run, end = await taken_over(settings, run_id)
    assert end.status == "completed"
    assert [kind for kind in run.types if kind.startswith("run_")][-3:] == [
        "run_recovered",
        "run_pausing",
        "run_completed",
    ]


async def test_a_cancel_that_nobody_heard_wins(
    workspace: Any, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    run_id = await dead_after_its_turn(redis, workspace.request("STOP.touch()"), tmp_path / "dead")
    await control.request(redis, run_id, "cancel", reason=None, now="2026-01-01T00:00:00.000Z")
    run, end = await taken_over(settings, run_id)
    assert end.status == "cancelled"
    assert "completion_detected" not in run.types
