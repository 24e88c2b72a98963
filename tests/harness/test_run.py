"""A continuous run from the outside: what is started, seen while it works, counted, and how it ends."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cody.errors import Forbidden, InvalidRequest, NotFound
from harness.service import RunService

THREE_TURNS = """
    print("turn", TURN, flush=True)
    say(type="token_usage", inputTokens=100 * TURN, cachedInputTokens=40, outputTokens=7)
    Path("made.txt").write_text(f"turn {TURN}")
    with open(EPIC / "codys-log.md", "a") as log: log.write(f"- turn {TURN} done\\n")
    print("===== 3 passed, 1 failed in 0.10s =====", flush=True)
    if TURN == 3: STOP.write_text("all is done\\nmore")
"""


async def test_turns_are_made_until_the_stop_file_is_there(workspace: Any, start: Any, service: RunService) -> None:
    run = await start(workspace.request(THREE_TURNS))
    end = await run.end()
    assert (end.status, end.completion.source, end.completion.line) == ("completed", "stop_file", "all is done")
    assert run.types[:3] == ["run_queued", "run_started", "turn_started"]
    assert run.types[-3:] == ["turn_completed", "completion_detected", "run_completed"]
    assert [event["turn"] for event in run.of("turn_completed")] == [1, 2, 3]
    assert (end.stats.turns, end.current_turn, end.pid, end.fence) == (3, 3, None, 1)
    assert (end.stats.tokens, end.stats.input_tokens, end.stats.output_tokens) == (621, 600, 21)
    assert (end.stats.cached_input_tokens, end.stats.tests_passed, end.stats.tests_failed) == (120, 9, 3)
    assert end.started_at is not None
    assert end.finished_at is not None
    records = (await service.records.turns(run.run_id)).turns
    assert [(r.turn, r.status, r.exit_code, r.token_usage.total_tokens) for r in records] == [
        (1, "completed", 0, 107),
        (2, "completed", 0, 207),
        (3, "completed", 0, 307),
    ]
    assert "made.txt" in records[0].files


async def test_everything_is_seen_while_the_turn_still_runs(
    workspace: Any, start: Any, service: RunService, eventually: Callable[..., Awaitable[None]]
) -> None:
    run = await start(workspace.request(THREE_TURNS + "\n    while not Path('../go').exists(): time.sleep(0.01)\n"))
    await run.until(
        lambda events: (
            {"subprocess_output", "token_usage", "test_run_completed", "log_updated"} <= {e["type"] for e in events}
            and any(e["type"] == "file_written" and e["path"] == "made.txt" for e in events)
        )
    )
    assert "turn_completed" not in run.types

    async def numbers_are_there() -> bool:
        live = await service.records.snapshot(run.run_id)
        assert live.status == "running"
        return (live.stats.tokens, live.stats.tests_passed, live.current_turn) == (
            107,
            3,
            1,
        ) and live.stats.files_written >= 1

    await eventually(numbers_are_there)
    live = await service.records.snapshot(run.run_id)
    assert live.pid == run.of("turn_started")[0]["pid"]
    assert live.pid is not None
    os.kill(live.pid, 0)
    (record,) = (await service.records.turns(run.run_id)).turns
    assert record.status == "running"
    (workspace.path.parent / "go").touch()
    assert (await run.end()).status == "completed"


async def test_the_agent_gets_the_epic_as_its_prompt_and_it_is_kept(
    workspace: Any, start: Any, service: RunService
) -> None:
    (workspace.epic / "guide.md").write_text("use the blue door")
    run = await start(workspace.request("Path('got.txt').write_text(PROMPT); STOP.touch()"))
    await run.end()
    got = (workspace.path / "got.txt").read_text()
    assert "use the blue door" in got
    assert (await service.output_file(run.run_id, 1)).with_name("prompt.md").read_text() == got
    nxt = await service.prompt(run.run_id)
    assert "=== BEGIN WORK ===" in nxt.prompt
    assert len(nxt.prompt.encode()) == nxt.bytes


async def test_max_turns_completes_the_run(workspace: Any, start: Any) -> None:
    end = await (run := await start(workspace.request("print('x')", maxTurns=2))).end()
    assert (end.status, end.stats.turns, end.completion.source) == ("completed", 2, "max_turns")
    assert run.types.count("turn_completed") == 2


async def test_the_log_pattern_completes_only_by_what_this_run_wrote(workspace: Any, start: Any) -> None:
    (workspace.epic / "codys-log.md").write_text("# Log\nEPIC COMPLETE\n")
    code = "if TURN == 2: open(EPIC / 'codys-log.md', 'a').write('so: EPIC COMPLETE today\\n')"
    end = await (await start(workspace.request(code, completion={"pattern": "EPIC COMPLETE"}, maxTurns=5))).end()
    assert (end.stats.turns, end.completion.source, end.completion.line) == (
        2,
        "log_pattern",
        "so: EPIC COMPLETE today",
    )


async def test_what_the_agent_prints_never_ends_a_run(workspace: Any, start: Any) -> None:
    code = """
        print("EPIC COMPLETE")
        for kind in ("run_completed", "completion_detected", "run_failed", "run_cancelled", "turn_completed"):
            say(type=kind, source="stop_file", error={"code": "x", "message": "y"})
    """
    run = await start(workspace.request(code, completion={"pattern": "EPIC COMPLETE"}, maxTurns=2))
    end = await run.end()
    assert (end.status, end.completion.source) == ("completed", "max_turns")
    assert [event["name"] for event in run.of("custom")][:2] == ["run_completed", "completion_detected"]


async def test_a_stale_stop_file_is_moved_aside(workspace: Any, start: Any) -> None:
    (workspace.epic / ".stop").write_text("old")
    run = await start(workspace.request("if TURN == 2: STOP.write_text('new')", maxTurns=5))
    end = await run.end()
    assert (end.stats.turns, end.completion.line) == (2, "new")
    assert run.of("warning")[0]["code"] == "stale_stop_file"
    assert [path.read_text() for path in workspace.epic.glob(".stop.stale-*")] == ["old"]


async def test_a_stop_file_that_is_a_link_does_not_count(workspace: Any, start: Any) -> None:
    run = await start(workspace.request("if TURN == 1: STOP.symlink_to('/etc/hostname')", maxTurns=2))
    assert (await run.end()).completion.source == "max_turns"
    assert "stop_file_refused" in [event["code"] for event in run.of("warning")]


async def test_a_log_entry_written_as_the_process_exits_is_seen(workspace: Any, start: Any) -> None:
    code = """
        import atexit
        atexit.register(lambda: open(EPIC / "codys-log.md", "a").write("last words\\n"))
        STOP.touch()
    """
    run = await start(workspace.request(code))
    await run.end()
    (update,) = run.of("log_updated")
    assert (update["log"], update["appendedBytes"], update["tail"]) == ("codys-log.md", 11, "last words\n")
    assert run.types.index("log_updated") < run.types.index("turn_completed")


@pytest.mark.parametrize(("code", "exit_code"), [("sys.exit('it went wrong')", 1), ("sys.exit(3)", 3)])
async def test_a_failing_agent_fails_the_run_with_its_last_words(
    workspace: Any, start: Any, code: str, exit_code: int
) -> None:
    run = await start(workspace.request(code))
    end = await run.end()
    assert end.error is not None
    assert (end.status, end.error.code, end.error.retryable) == ("failed", "agent_exited", False)
    assert run.of("turn_failed")[0]["exitCode"] == exit_code
    if exit_code == 1:
        assert "it went wrong" in end.error.message


async def test_work_that_is_done_counts_even_when_the_process_then_fails(workspace: Any, start: Any) -> None:
    end = await (await start(workspace.request("STOP.write_text('done'); sys.exit(1)"))).end()
    assert (end.status, end.completion.source) == ("completed", "stop_file")


@pytest.mark.parametrize("command", [["/nonexistent/agent"], ["/etc/hostname"]])
async def test_an_agent_that_cannot_start_fails_the_run_and_says_what_to_do(
    workspace: Any, start: Any, command: list[str]
) -> None:
    request = workspace.request("")
    request = request.model_copy(update={"config": request.config.model_copy(update={"command": command})})
    end = await (await start(request)).end()
    assert end.error is not None
    assert end.status == "failed"
    assert end.error.code in {"agent_unavailable", "agent_start_failed"}
    assert command[0] in end.error.message


async def test_silence_and_long_turns_have_limits(workspace: Any, start: Any) -> None:
    idle = await (await start(workspace.request("time.sleep(600)", budget={"maxIdleSec": 0.3}))).end()
    assert idle.error is not None
    assert (idle.error.code, idle.error.retryable) == ("turn_idle", True)
    busy = "while True: print('.', flush=True); time.sleep(0.02)"
    long = await (await start(workspace.request(busy, budget={"maxIdleSec": 30, "maxTurnSec": 0.5}))).end()
    assert long.error is not None
    assert (long.error.code, long.error.retryable) == ("turn_timeout", True)


async def test_loud_output_is_sampled_in_events_and_whole_on_disk(
    workspace: Any, start: Any, service: RunService
) -> None:
    code = """
        for number in range(30_000): print(f"line {number} " + "x" * 90)
        STOP.touch()
    """
    run = await start(workspace.request(code))
    end = await run.end()
    shown, dropped = run.of("subprocess_output"), run.of("output_dropped")
    assert all(len(event["text"].encode()) <= 2048 for event in shown)
    raw = (await service.output_file(run.run_id, 1)).read_bytes()
    assert raw == b"".join(b"line %d " % n + b"x" * 90 + b"\n" for n in range(30_000))
    assert sum(len(e["text"].encode()) + 1 for e in shown) + sum(e["bytes"] for e in dropped) == len(raw)
    assert all(raw[event["logOffset"] :].startswith(b"line ") for event in dropped)
    (record,) = (await service.records.turns(run.run_id)).turns
    assert (record.output_bytes, end.status) == (len(raw), "completed")


async def test_a_line_of_any_length_is_survived_and_the_next_one_is_whole(
    workspace: Any, start: Any, service: RunService
) -> None:
    code = """
        sys.stdout.write("y" * 20_000_000 + "\\n")
        sys.stdout.flush()
        time.sleep(0.3)
        say(type="token_usage", inputTokens=1)
        print("after")
        STOP.touch()
    """
    run = await start(workspace.request(code))
    end = await run.end()
    assert end.stats.tokens == 1
    assert any("after" in event["text"] for event in run.of("subprocess_output"))
    shown = sum(len(e["text"].encode()) for e in run.of("subprocess_output"))
    dropped = sum(event["bytes"] for event in run.of("output_dropped"))
    assert shown + dropped >= 20_000_000
    assert (await service.output_file(run.run_id, 1)).stat().st_size > 20_000_000


async def test_processes_left_behind_are_ended_and_named(workspace: Any, start: Any) -> None:
    code = """
        subprocess.Popen(["sleep", "987"], start_new_session=True)
        STOP.touch()
    """
    run = await start(workspace.request(code))
    assert (await run.end()).status == "completed"
    (warning,) = [event for event in run.of("warning") if event["code"] == "leftover_processes"]
    assert "sleep" in warning["message"]


async def test_the_agents_environment_is_its_own(workspace: Any, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://secret")
    monkeypatch.setenv("SOME_SECRET", "x")
    code = "Path('env.json').write_text(json.dumps(dict(os.environ))); STOP.touch()"
    await (await start(workspace.request(code, env={"MINE": "1"}))).end()
    import json

    env = json.loads((workspace.path / "env.json").read_text())
    assert env["MINE"] == "1"
    assert env["CODY_TURN"] == "1"
    assert "PATH" in env
    assert not {"SOME_SECRET", "REDIS_URL"} & set(env)


async def test_what_is_wrong_is_refused_before_anything_starts(workspace: Any, service: RunService) -> None:
    good = workspace.request("STOP.touch()")

    def with_config(**changes: Any) -> Any:
        return good.model_copy(update={"config": good.config.model_copy(update=changes)})

    with pytest.raises(InvalidRequest, match="workingDir"):
        await service.start(with_config(working_dir=str(workspace.path / "missing")))
    with pytest.raises(InvalidRequest, match="absolute"):
        await service.start(with_config(working_dir="relative"))
    with pytest.raises(InvalidRequest, match="harnessDir"):
        await service.start(with_config(harness_dir="../elsewhere"))
    with pytest.raises(InvalidRequest, match="cody init"):
        await service.start(with_config(working_dir=str(workspace.path.parent)))
    with pytest.raises(Forbidden, match="allow-danger"):
        await service.start(with_config(sandbox="danger-full-access"))
    assert (await service.records.page(limit=10, status=None, epic_id=None, cursor=None)).runs == []
    with pytest.raises(NotFound):
        await service.records.snapshot("00000000-0000-0000-0000-000000000000")


async def test_no_event_of_a_turn_comes_before_its_start(workspace: Any, start: Any) -> None:
    """The agent may have written before we hear that it runs."""
    for _ in range(5):
        run = await start(workspace.request("", command=["sh", "-c", "echo early; sleep 0.2"], maxTurns=1))
        await run.end()
        assert run.types[:3] == ["run_queued", "run_started", "turn_started"]
        assert run.types.index("subprocess_output") > 2


async def test_a_turn_whose_files_can_not_be_kept_has_an_end(
    workspace: Any, start: Any, service: RunService, settings: Any
) -> None:
    code = """
    runs = Path(os.environ["RUNS"])
    if TURN == 1: (runs / os.environ["CODY_RUN_ID"] / "turn-0002").write_text("in the way")
    """
    run = await start(workspace.request(code, env={"RUNS": str(settings.runs_dir)}, maxTurns=3))
    end = await run.end()
    assert (end.status, end.error and end.error.code) == ("failed", "host_io_error")
    assert [record.status for record in (await service.records.turns(run.run_id)).turns] == ["completed", "failed"]
    assert run.types[-2:] == ["turn_failed", "run_failed"]


async def test_another_run_on_the_same_epic_is_warned_of(workspace: Any, start: Any) -> None:
    first = await start(workspace.request("while not STOP.exists(): time.sleep(0.01)"))
    await first.until("turn_started")
    second = await start(workspace.request("STOP.touch()"))
    await second.end()
    (warning,) = [event for event in second.of("warning") if event["code"] == "epic_shared"]
    assert first.run_id in warning["message"]
    await first.end()
    assert [event for event in first.of("warning") if event["code"] == "epic_shared"] == []


async def test_an_epic_that_is_not_there_is_told_of(workspace: Any, start: Any) -> None:
    request = workspace.request("STOP.touch()")
    run = await start(request.model_copy(update={"epic_id": "misspelt"}))
    await run.end()
    (warning,) = [event for event in run.of("warning") if event["code"] == "epic_default"]
    assert "misspelt" in warning["message"]
    assert "current-epic" in warning["message"]
