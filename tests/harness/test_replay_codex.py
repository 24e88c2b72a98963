"""The real codex plays each bundled scenario: what comes out of its stdout, and how it exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.replay.codex_home import write_codex_home
from harness.replay.demo_workspace import DEMO_FILES, create_demo_workspace
from harness.replay.scenario import Scenario
from harness.replay.scenario_file import bundled_scenarios, load_scenario, parse_scenario
from harness.replay.server import ReplayServer
from tests.harness.replay_codex import run_codex, start_codex


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def _said(*texts: str) -> Scenario:
    """A scenario in which each turn is one message."""
    turns = [{"responses": [{"items": [{"type": "message", "text": text}], "usage": {}}]} for text in texts]
    return parse_scenario(json.dumps({"name": "said", "turns": turns}), origin="test")


def _tests_pass(workspace: Path) -> bool:
    done = subprocess.run([sys.executable, "-m", "unittest"], cwd=workspace, capture_output=True, check=False)
    return done.returncode == 0


def test_every_bundled_scenario_has_a_test_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in bundled_scenarios() if f'"{name}"' not in source] == []


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
async def test_demo_mends_the_project_in_three_turns_and_stops(tmp_path: Path, workspace: Path, sandbox: str) -> None:
    create_demo_workspace(workspace)
    epic = workspace / ".cody-harness" / "current-epic"
    assert not _tests_pass(workspace)
    async with ReplayServer("demo", delay_factor=0) as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        turns = []
        stopped = []
        for _ in range(3):
            turns.append(await run_codex(workspace, env, sandbox=sandbox))
            stopped.append((epic / ".stop").exists())
        requests = server.requests

    assert [turn.code for turn in turns] == [0, 0, 0]
    assert stopped == [False, False, True]
    assert len({turn.thread_id for turn in turns}) == 3
    assert [request.refusal for request in requests] == [None] * len(requests)

    runs = [
        (turn_number, item["exit_code"])
        for turn_number, turn in enumerate(turns, 1)
        for item in turn.completed("command_execution")
        if "python3 -m unittest -v" in item["command"]
    ]
    assert runs == [(1, 1), (2, 0), (3, 0)]
    others = [
        item["exit_code"]
        for turn in turns
        for item in turn.completed("command_execution")
        if "python3 -m unittest -v" not in item["command"]
    ]
    assert set(others) == {0}
    changes = [item for turn in turns for item in turn.completed("file_change")]
    assert {item["status"] for item in changes} == {"completed"}
    assert {Path(change["path"]).name for item in changes for change in item["changes"]} == {
        "pricing.py",
        "test_pricing.py",
        "codys-log.md",
        "decision-log.md",
    }
    log = (epic / "codys-log.md").read_text(encoding="utf-8")
    before = DEMO_FILES[".cody-harness/current-epic/codys-log.md"]
    assert log.startswith(before), "the log is only appended to"
    assert [line for line in log.splitlines() if line.startswith("## Step")] == [
        "## Step 1: the cause",
        "## Step 2: the fix",
        "## Step 3: the regression test",
    ]
    assert _tests_pass(workspace)
    assert "test_every_percentage" in (workspace / "test_pricing.py").read_text(encoding="utf-8")
    for turn in turns:
        assert 0 < turn.usage["cached_input_tokens"] < turn.usage["input_tokens"]
        assert turn.usage["output_tokens"] > turn.usage["reasoning_output_tokens"] > 0


async def test_demo_gives_a_killed_turn_again(tmp_path: Path, workspace: Path) -> None:
    create_demo_workspace(workspace)
    async with ReplayServer("demo", delay_factor=0) as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        process = await _prompted(workspace, env)
        await _first_command(process)
        process.kill()
        await process.wait()
        codes = [(await run_codex(workspace, env)).code for _ in range(3)]
        played = [request.turn for request in server.requests if request.answer == 0]

    assert codes == [0, 0, 0]
    assert played == [1, 2, 3, 4]
    assert (workspace / ".cody-harness" / "current-epic" / ".stop").is_file()
    assert _tests_pass(workspace)


async def test_a_scenario_that_ends_says_so(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer(_said("Only once.")) as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        first = await run_codex(workspace, env)
        second = await run_codex(workspace, env)

    assert (first.code, first.messages) == (0, ["Only once."])
    assert second.code == 1
    assert "all of its turns (1) were played" in second.of_type("turn.failed")[0]["error"]["message"]


async def test_one_message_is_repeated_without_end(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer("one_message") as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        turns = [await run_codex(workspace, env) for _ in range(3)]

    assert [(turn.code, turn.messages) for turn in turns] == [(0, ["Nothing to do here."])] * 3
    assert turns[2].usage == {
        "input_tokens": 1200,
        "cached_input_tokens": 1024,
        "cache_write_input_tokens": 0,
        "output_tokens": 12,
        "reasoning_output_tokens": 4,
    }


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
async def test_commands_and_file_changes_reach_stdout(tmp_path: Path, workspace: Path, sandbox: str) -> None:
    async with ReplayServer("commands") as server:
        turn = await run_codex(workspace, write_codex_home(tmp_path / "home", server.base_url), sandbox=sandbox)

    assert turn.code == 0
    printing, failing = turn.completed("command_execution")
    assert (printing["exit_code"], failing["exit_code"], failing["status"]) == (0, 3, "failed")
    lines = printing["aggregated_output"].splitlines()
    sentinel = next(json.loads(line) for line in lines if line.startswith("{"))
    assert sentinel["__cody_event__"]["type"] == "token_usage"
    assert sentinel["__cody_event__"]["inputTokens"] == 10
    assert lines[-1].strip("= ") == "1 failed, 3 passed, 1 skipped in 0.12s"
    added, changed = turn.completed("file_change")
    assert [(Path(change["path"]).name, change["kind"]) for change in [*added["changes"], *changed["changes"]]] == [
        ("notes.txt", "add"),
        ("scratch.txt", "add"),
        ("notes.txt", "update"),
        ("scratch.txt", "delete"),
    ]
    assert (workspace / "notes.txt").read_text(encoding="utf-8") == "first line\nanother line\n"
    assert not (workspace / "scratch.txt").exists()
    (reasoning,) = turn.completed("reasoning")
    assert "First the tests." in reasoning["text"]
    assert turn.usage["input_tokens"] == 1000 + 1100 + 1200 + 1300 + 1400


@pytest.mark.parametrize(
    ("name", "said", "recovers"),
    [
        ("error_401", "401 Unauthorized", False),
        ("error_429", "429 Too Many Requests", True),
        ("error_500", "high demand", True),
        ("drop", "stream disconnected before completion", True),
    ],
)
async def test_a_provider_that_fails_fails_the_turn(
    tmp_path: Path, workspace: Path, name: str, said: str, recovers: bool
) -> None:
    async with ReplayServer(name) as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        first = await run_codex(workspace, env)
        second = await run_codex(workspace, env)

    assert first.code == 1
    assert said in first.of_type("turn.failed")[0]["error"]["message"]
    assert second.code == (0 if recovers else 1)


async def test_what_came_before_a_cut_is_kept(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer("drop") as server:
        turn = await run_codex(workspace, write_codex_home(tmp_path / "home", server.base_url))

    assert turn.messages == ["Said before the cut."]


async def test_a_client_that_asks_again_gets_the_rest_of_the_turn(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer("drop_then_ok") as server:
        turn = await run_codex(workspace, write_codex_home(tmp_path / "home", server.base_url, max_retries=3))

    assert (turn.code, turn.messages) == (0, ["Recovered."])
    assert [item["aggregated_output"].splitlines()[-1] for item in turn.completed("command_execution")] == [
        "before the cut"
    ]
    assert len(turn.of_type("error")) == 2, "codex says that it reconnects, twice"


async def test_resume_gives_the_second_turn_to_the_same_thread_only(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer("resume") as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        first = await run_codex(workspace, env)
        stranger = await run_codex(workspace, env)
        second = await run_codex(workspace, env, resume=first.thread_id)

    assert (first.code, first.messages) == (0, ["Turn one is done."])
    assert stranger.code == 1
    assert "a resumed thread" in stranger.of_type("turn.failed")[0]["error"]["message"]
    assert (second.code, second.messages) == (0, ["Turn two is done."])
    assert second.thread_id == first.thread_id
    assert (first.usage["input_tokens"], second.usage["input_tokens"]) == (300, 1000), "cumulative for the thread"


async def test_a_slow_command_can_be_cut_short(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer("slow") as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        process = await _prompted(workspace, env)
        command = await _first_command(process)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 1
        after = await run_codex(workspace, env)

    assert "sleep 30" in command
    assert (after.code, after.messages) == (0, ["Nothing is left to wait for."])


async def test_the_children_of_the_slow_command_tell_their_process_ids(tmp_path: Path, workspace: Path) -> None:
    files = [workspace / "setsid.pid", workspace / "plain.pid"]
    async with ReplayServer("slow_setsid") as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        process = await _prompted(workspace, env)
        try:
            async with asyncio.timeout(60):
                while not all(file.exists() and file.read_text(encoding="utf-8").strip() for file in files):
                    await asyncio.sleep(0.02)
                setsid, plain = (int(file.read_text(encoding="utf-8")) for file in files)
                while os.getsid(setsid) != setsid:
                    await asyncio.sleep(0.02)
            assert os.getsid(plain) != plain
        finally:
            process.send_signal(signal.SIGINT)
            await process.wait()
            for file in files:
                if file.exists():
                    _end(int(file.read_text(encoding="utf-8")))
        after = await run_codex(workspace, env)

    assert (after.code, after.messages) == (0, ["Nothing is left to wait for."])


async def _prompted(workspace: Path, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    """A codex that has its prompt and was not waited for."""
    process = await start_codex(workspace, env)
    assert process.stdin is not None
    process.stdin.write(b"Go on.")
    process.stdin.close()
    return process


async def _first_command(process: asyncio.subprocess.Process) -> str:
    """The first command that codex starts."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if b'"item.started"' in line:
                return str(json.loads(line)["item"]["command"])
    raise AssertionError("codex ended without a command")


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def test_runs_side_by_side_on_one_server_do_not_mix(tmp_path: Path) -> None:
    """Each has turns of its own, told apart by the key of its CODEX_HOME alone."""

    async def run(name: str) -> list[list[str]]:
        workspace = tmp_path / name
        workspace.mkdir()
        env = write_codex_home(tmp_path / f"{name}-home", server.base_url)
        return [(await run_codex(workspace, env)).messages for _ in range(3)]

    async with ReplayServer(_said("one", "two", "three")) as server:
        results = list(await asyncio.gather(run("a"), run("b")))
        sessions = {request.session for request in server.requests}

    assert results == [[["one"], ["two"], ["three"]]] * 2
    assert len(sessions) == 2


async def test_a_session_in_the_path_separates_runs_that_share_a_key(tmp_path: Path, workspace: Path) -> None:
    async with ReplayServer(_said("one", "two")) as server:
        heard = []
        for session in ("a", "b", "a"):
            env = write_codex_home(tmp_path / session, server.session_url(session), key="the-same-key")
            heard += (await run_codex(workspace, env)).messages

    assert heard == ["one", "one", "two"]


async def test_the_prompt_is_seen_and_can_choose_the_turn(tmp_path: Path, workspace: Path) -> None:
    turns = [
        {"match": f"^{word}$", "responses": [{"items": [{"type": "message", "text": word.upper()}]}]}
        for word in ("left", "right")
    ]
    scenario = parse_scenario(json.dumps({"name": "fork", "turns": turns}), origin="test")
    async with ReplayServer(scenario) as server:
        env = write_codex_home(tmp_path / "home", server.base_url)
        turn = await run_codex(workspace, env, prompt="right")
        refused = await run_codex(workspace, env, prompt="up")
        prompts = [request.prompt.strip() for request in server.requests]

    assert turn.messages == ["RIGHT"]
    assert "a prompt that matches '^left$'" in refused.of_type("turn.failed")[0]["error"]["message"]
    assert prompts == ["right", "up"]


async def test_a_factor_of_nought_leaves_all_delays_out(tmp_path: Path, workspace: Path) -> None:
    answer = {"delay_ms": 600_000, "item_delay_ms": 600_000, "items": [{"type": "message", "text": "Late."}]}
    scenario = parse_scenario(json.dumps({"name": "late", "responses": [answer]}), origin="test")
    async with ReplayServer(scenario, delay_factor=0) as server:
        turn = await run_codex(workspace, write_codex_home(tmp_path / "home", server.base_url))
    assert turn.messages == ["Late."]


def test_the_bundled_demo_is_watchable() -> None:
    """Its own delays, without codex' start and the commands, are 1 to 4 seconds a turn."""
    for turn in load_scenario("demo").turns:
        delays = [answer.delay_ms + answer.item_delay_ms * len(answer.items) for answer in turn.responses]
        assert 1_000 <= sum(delays) <= 4_000
