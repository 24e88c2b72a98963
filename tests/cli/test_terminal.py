"""The live view on a real terminal, and what Ctrl-C does there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cody.cli import exits
from tests.cli.command_line import CommandLine, Terminal
from tests.cli.conftest import Agent

CTRL_C = "\x03"
QUESTION = "[d]etach"
TURN_AFTER_TURN = "print('turn', TURN, flush=True); wait_for(f'go-{TURN}'); TURN < 3 or stop()"
RUN_ID = re.compile(r"run ([0-9a-f-]{36})")


@pytest.fixture
def command(agent: Agent) -> list[str]:
    return ["run", "--loop-delay", "0", "--", *agent(TURN_AFTER_TURN)]


def asked(terminal: Terminal) -> int:
    """Press Ctrl-C while the first turn runs, and wait for the question."""
    terminal.until("turn 1")
    after = terminal.until("running")
    terminal.press(CTRL_C)
    return terminal.until(QUESTION, after=after)


def release(repo: Path, *turns: int) -> None:
    for turn in turns:
        (repo / f"go-{turn}").touch()


def test_the_view_has_rows_and_a_bar_and_leaves_the_terminal_as_it_was(
    cody: CommandLine, command: list[str], repo: Path
) -> None:
    release(repo, 1, 2, 3)
    with cody.terminal(*command) as terminal:
        assert terminal.wait() == exits.OK
        assert terminal.mode == terminal.mode_before
    for expected in ("turn 3", "run completed by the stop file", "status", "completed"):
        assert expected in terminal.text
    # The cursor is hidden while the bar is there, and shown again.
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_no_color_is_respected(cody: CommandLine, command: list[str], repo: Path) -> None:
    release(repo, 1, 2, 3)
    with cody.terminal(*command, NO_COLOR="1") as terminal:
        assert terminal.wait() == exits.OK
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.text)


def test_a_simple_terminal_gets_plain_lines(cody: CommandLine, command: list[str], repo: Path) -> None:
    release(repo, 1, 2, 3)
    with cody.terminal(*command, TERM="dumb") as terminal:
        assert terminal.wait() == exits.OK
    assert "\x1b" not in terminal.text
    assert "run completed by the stop file" in terminal.text


def test_ctrl_c_then_d_leaves_the_run_to_go_on(cody: CommandLine, command: list[str], repo: Path) -> None:
    with cody.terminal(*command) as terminal:
        asked(terminal)
        terminal.press("d")
        assert terminal.wait() == exits.RUN_GOES_ON
        assert terminal.mode == terminal.mode_before
    found = RUN_ID.search(terminal.text)
    assert found is not None
    assert f"run {found[1]} goes on" in terminal.text
    assert cody.json("show", found[1])["run"]["status"] == "running"
    release(repo, 1, 2, 3)
    cody("watch", found[1])


def test_a_second_ctrl_c_leaves_the_run_to_go_on(cody: CommandLine, command: list[str], repo: Path) -> None:
    with cody.terminal(*command) as terminal:
        asked(terminal)
        terminal.press(CTRL_C)
        assert terminal.wait() == exits.RUN_GOES_ON
        assert terminal.mode == terminal.mode_before
    found = RUN_ID.search(terminal.text)
    assert found is not None
    release(repo, 1, 2, 3)
    cody("watch", found[1])


def test_ctrl_c_then_enter_keeps_watching(cody: CommandLine, command: list[str], repo: Path) -> None:
    with cody.terminal(*command) as terminal:
        after = asked(terminal)
        terminal.press("x\n")
        terminal.press("\n")
        release(repo, 1)
        after = terminal.until("turn 2", after=after)
        release(repo, 2, 3)
        assert terminal.wait() == exits.OK
        assert terminal.mode == terminal.mode_before
    assert "completed" in terminal.text[after:]


def test_ctrl_c_then_p_stays_until_the_run_is_paused(cody: CommandLine, command: list[str], repo: Path) -> None:
    with cody.terminal(*command) as terminal:
        after = asked(terminal)
        terminal.press("p")
        after = terminal.until("pausing", after=after)
        assert terminal.process.poll() is None
        release(repo, 1)
        assert terminal.wait() == exits.RUN_GOES_ON
    found = RUN_ID.search(terminal.text)
    assert found is not None
    assert "paused (manual)" in terminal.text[after:]
    assert f"cody resume {found[1][:8]}" in terminal.text[after:]
    assert cody.json("show", found[1])["run"]["status"] == "paused"

    # A run that is paused already is left at once.
    with cody.terminal("watch", found[1], "--from", "$") as terminal:
        terminal.until("go on with")
        terminal.press(CTRL_C)
        terminal.until(QUESTION)
        terminal.press("p")
        assert terminal.wait() == exits.RUN_GOES_ON
    cody("cancel", found[1])


def test_ctrl_c_then_c_cancels_and_shows_the_end(cody: CommandLine, command: list[str]) -> None:
    with cody.terminal(*command) as terminal:
        after = asked(terminal)
        terminal.press("c")
        assert terminal.wait() == exits.RUN_CANCELLED
    assert "cancelled (manual)" in terminal.text[after:]
    assert "output" in terminal.text[after:]


def test_a_terminal_that_goes_away_leaves_the_run_to_go_on(cody: CommandLine, command: list[str], repo: Path) -> None:
    with cody.terminal(*command) as terminal:
        terminal.until("turn 1")
        found = RUN_ID.search(terminal.text)
        assert found is not None
    assert cody.json("show", found[1])["run"]["status"] == "running"
    release(repo, 1, 2, 3)
    cody("watch", found[1])


def test_logs_on_a_terminal_are_shown_not_obeyed(cody: CommandLine, agent: Agent) -> None:
    done = cody("run", "--json", "--", *agent(r"sys.stdout.buffer.write(b'\x1b]0;title\x07\xff\n'); stop()"))
    run_id = re.search(r'"runId":"([^"]+)"', done.stdout)
    assert run_id is not None
    with cody.terminal("logs", run_id[1]) as terminal:
        assert terminal.wait() == exits.OK
    assert "␛]0;title␇\ufffd" in terminal.text
