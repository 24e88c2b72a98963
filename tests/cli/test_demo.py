"""The demo: real codex, real server, a model that is played back, from an empty folder to green tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.command_line import CommandLine, read_until


@pytest.fixture
def demo(alone: CommandLine) -> CommandLine:
    return alone


def leftovers(state_dir: Path) -> list[list[str]]:
    """Command lines of processes that still have to do with this demo."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or []
        if any(str(state_dir) in word for word in words):
            found.append(words)
    return found


def test_the_demo_reaches_its_end_and_leaves_nothing_running(demo: CommandLine) -> None:
    done = demo("demo", "--speed", "100", "--replay", OPENAI_API_KEY="", CODEX_API_KEY="")
    assert "run completed by the stop file" in done.stdout
    assert "The tests of the project pass" in done.stderr
    assert re.search(r"turns +3 done", done.stdout)

    (folder,) = (demo.state_dir / "demo").iterdir()
    workspace = folder / "workspace"
    tests = subprocess.run(
        [sys.executable, "-B", "-m", "unittest", "-v"], cwd=workspace, capture_output=True, text=True, check=True
    )
    assert "test_every_percentage_is_exact_to_the_cent" in tests.stderr
    changed = subprocess.run(["git", "status", "--short"], cwd=workspace, capture_output=True, text=True, check=True)
    assert "pricing.py" in changed.stdout
    assert list((folder / "state" / "runs").rglob("output.log"))
    assert not (folder / "state" / "redis").exists()
    assert leftovers(demo.state_dir) == []


def test_a_demo_that_is_interrupted_ends_what_it_started(demo: CommandLine) -> None:
    # A session of its own: only this process gets the signal, as with `kill`; what it started is for it to end.
    with demo.start("demo", "--replay", "--speed", "0.1") as running:
        read_until(running.stdout, "turn 1")
        os.kill(running.pid, signal.SIGINT)
        _, words = running.communicate(timeout=90)
    assert running.returncode == 130
    assert "interrupted" in words
    assert leftovers(demo.state_dir) == []


def test_a_folder_with_something_in_it_is_left_alone(demo: CommandLine, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    done = demo("demo", "--workspace", str(mine), code=1)
    assert "not empty" in done.stderr
    assert [path.name for path in mine.iterdir()] == ["file"]


def test_without_codex_it_says_what_to_install(demo: CommandLine) -> None:
    done = demo("demo", "--replay", code=1, CODY_CODEX_BIN="/no/codex")
    assert "/no/codex" in done.stderr
    assert "to mend it" in done.stderr


def test_only_the_latest_demos_are_kept(demo: CommandLine) -> None:
    demos = demo.state_dir / "demo"
    for day in range(1, 8):
        (demos / f"2020010{day}-000000-000000").mkdir(parents=True)
    demo("demo", "--replay", code=1, CODY_CODEX_BIN="/no/codex")
    assert sorted(path.name for path in demos.iterdir())[:-1] == [f"2020010{day}-000000-000000" for day in (5, 6, 7)]
