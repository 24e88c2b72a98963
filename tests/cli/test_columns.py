"""Tables and the status bar in narrow windows: what matters is whole, and what there is no room for is not there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from cody.cli.status_bar import Bar, bar_text
from cody.cli.tables import run_text, runs_table, turns_table
from cody.contracts.run import RunError, RunSnapshot, RunStats, RunSummary, TokenUsage, TurnRecord
from cody.contracts.run_config import RunConfig
from tests.cli.command_line import CommandLine
from tests.cli.conftest import Agent

RUN = "3f9a0000-0000-4000-8000-000000000000"
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
BEGAN = "2026-01-31T09:00:00.000Z"
FOLDER = "/home/somebody/sources/of/a/shop/with/a/long/path"
STATS = RunStats(turns=137, tokens=12_345_678, files_written=1234, tests_passed=311, tests_failed=12)


def lines(table: Table, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n").split("\n")


def summary() -> RunSummary:
    return RunSummary(
        run_id=RUN,
        epic_id="checkout-with-a-long-name",
        working_dir=FOLDER,
        agent="codex",
        status="cancelling",
        created_at=BEGAN,
        updated_at=BEGAN,
        stream_key="s",
        started_at=BEGAN,
        stats=STATS,
    )


def record() -> TurnRecord:
    return TurnRecord(
        run_id=RUN,
        response_id="r",
        turn=12,
        status="interrupted",
        started_at=BEGAN,
        duration_ms=7_500_000,
        exit_code=143,
        token_usage=TokenUsage(total_tokens=12_345_678),
        files_written=1234,
        tests_passed=311,
        tests_failed=12,
        error=RunError(code="agent_exited", message="the command exited with code 3 and said a lot about it"),
    )


def snapshot() -> RunSnapshot:
    return RunSnapshot(
        run_id=RUN,
        epic_id="checkout",
        working_dir=FOLDER,
        status="cancelling",
        agent="codex",
        created_at=BEGAN,
        updated_at=BEGAN,
        stream_key="s",
        started_at=BEGAN,
        finished_at="2026-01-31T11:05:00.000Z",
        current_turn=137,
        stats=STATS,
        config=RunConfig(working_dir=FOLDER, max_turns=200),
    )


def check(found: Sequence[str], width: int, names: Sequence[str], values: Sequence[str]) -> None:
    assert max(map(len, found)) <= width
    assert found[0].split() == list(names), "no header is cut"
    for value in values:
        assert value in found[1].split(), found


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (200, "RUN STATUS EPIC STARTED TOOK TURNS TOKENS FILES TESTS FOLDER"),
        (80, "RUN STATUS EPIC STARTED TOOK TURNS TOKENS TESTS"),
        (60, "RUN STATUS EPIC TOOK TURNS TESTS"),
        (30, "RUN STATUS TURNS"),
    ],
)
def test_runs(width: int, names: str) -> None:
    found = lines(runs_table([summary()], NOW, width), width)
    check(found, width, names.split(), ["3f9a0000", "cancelling", "137"])


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (200, "TURN STATUS STARTED TOOK EXIT TOKENS FILES TESTS LAST MESSAGE"),
        (80, "TURN STATUS STARTED TOOK EXIT TESTS LAST MESSAGE"),
        (60, "TURN STATUS TESTS LAST MESSAGE"),
    ],
)
def test_turns(width: int, names: str) -> None:
    found = lines(turns_table([record()], width), width)
    check(found, width, names.split(), ["12", "interrupted", "311/12"])
    assert "the command exited" in found[1], "why it failed is the last to go"


def test_what_there_is_room_for_is_not_cut() -> None:
    found = lines(runs_table([summary()], NOW, 200), 200)
    assert FOLDER in found[1]
    assert "checkout-with-a-long-name" in found[1]


@pytest.mark.parametrize("width", [80, 60])
def test_the_status_bar_has_failures_first_and_no_half_facts(width: int) -> None:
    bar = bar_text(Bar(snapshot()), 0, width).plain
    assert len(bar) <= width
    tests = "tests 12 failed, 311 passed" if width == 80 else "12 failed"
    assert f"turn 137/200  ·  {tests}  ·  2 h 05 m" in bar
    assert "…" not in bar
    assert "12.35M tokens  ·  1234 files" in bar_text(Bar(snapshot()), 0, 200).plain
    asked = bar_text(Bar(snapshot(), asking=True), 0, width).plain.split("\n")[1]
    assert len(asked) <= width
    assert "keep watching" in asked


def test_ids_and_paths_stand_whole_on_their_lines() -> None:
    path = f"{FOLDER}/state/runs/{RUN}"
    found = run_text(snapshot(), [("output", "cody logs 3f9a0000"), ("kept in", path)]).plain.split("\n")
    assert found[0].split() == ["run", RUN]
    assert found[-2].split(maxsplit=1) == ["output", "cody logs 3f9a0000"]
    assert found[-1].endswith(f" {path}")


@pytest.mark.parametrize("width", [80, 60])
def test_on_a_real_terminal(cody: CommandLine, agent: Agent, width: int) -> None:
    code = "say(type='test_run_completed', passed=3, failed=1); wait_for('seen'); stop()"
    with cody.terminal("run", "--max-turns", "200", "--", *agent(code), columns=width, NO_COLOR="1") as terminal:
        terminal.until("tests 1 failed, 3 passed")
        (Path(cody.folder) / "seen").touch()
        assert terminal.wait() == 0
    run_id = cody.json("runs", "--limit", "1")["runs"][0]["runId"]
    path = str(cody.state_dir / "runs" / run_id)
    assert path in terminal.text, "the terminal itself goes on in the next line, so that it is copied whole"
    with cody.terminal("runs", columns=width) as terminal:
        assert terminal.wait() == 0
    assert f"{run_id[:8]}" in terminal.text
    assert "completed" in terminal.text
