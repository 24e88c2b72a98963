"""The commands as processes, against a real server, with agents that are real programs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cody.cli import exits
from tests.cli.command_line import DEADLINE_S, CommandLine, read_until
from tests.cli.conftest import Agent

FINISH = """
    print("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07 [bold]markup[/bold]")
    say(type="file_written", path="src/a.py")
    say(type="test_run_completed", passed=6, failed=1, durationMs=1200)
    with (EPIC / "codys-log.md").open("a") as log: log.write("## Turn\\n- done\\n")
    stop("all done")
"""
HOLD = """
    print("here", flush=True)
    wait_for("go")
    stop()
"""


def run_id_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.split()[1] if done.stderr.startswith("run ") else done.stdout.strip()


def start(cody: CommandLine, command: list[str], *options: str) -> str:
    """A run that goes on alone; its id."""
    return cody("run", "--detach", *options, "--", *command).stdout.strip()


def wait_for(cody: CommandLine, run_id: str, event: str) -> None:
    """Told by the stream, not by looking again and again."""
    with cody.start("watch", run_id, "--json") as watching:
        read_until(watching.stdout, f'"type":"{event}"')
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)


def until(cody: CommandLine, run_id: str, status: str) -> dict[str, Any]:
    """The run, once it is in that state."""
    wait_for(cody, run_id, f"run_{status}")
    found: dict[str, Any] = cody.json("show", run_id)["run"]
    assert found["status"] == status
    return found


def test_a_run_is_watched_to_its_end(cody: CommandLine, agent: Agent, repo: Path) -> None:
    done = cody("run", "--max-turns", "3", "--", *agent(FINISH))
    run_id = run_id_of(done)
    lines = [line[9:] for line in done.stdout.splitlines()]
    for expected in (
        f"· run {run_id} is queued, epic current-epic",
        "│ red ␛]0;title␇ [bold]markup[/bold]",
        "+ src/a.py",
        "✘ tests: 6 passed, 1 failed in 1.2 s",
        "≡ .cody-harness/current-epic/codys-log.md grew by 15 B",
        "┊ - done",
        "✔ the stop file says that the work is done: all done",
        "✔ run completed by the stop file",
    ):
        assert expected in lines
    summary = dict(line.split(maxsplit=1) for line in done.stdout.split("\n\n")[-1].splitlines())
    assert summary["run"] == run_id
    assert summary["status"] == "completed"
    assert summary["folder"] == str(repo)
    assert summary["output"] == f"cody logs {run_id[:8]}"
    output = Path(next(line for line in done.stdout.splitlines() if line.startswith("kept in")).split()[-1])
    assert b"\x1b]0;title\x07" in b"".join(path.read_bytes() for path in output.rglob("output.log"))


def test_nothing_of_the_view_is_coloured_or_obeyed_in_a_pipe(cody: CommandLine, agent: Agent) -> None:
    done = cody("run", "--", *agent(FINISH))
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x07" not in done.stdout


def test_json_is_one_event_a_line_and_nothing_else(cody: CommandLine, agent: Agent) -> None:
    done = cody("run", "--json", "--", *agent(FINISH))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "run_queued"
    assert events[0]["epicId"] == "current-epic"
    assert events[-1] == {**events[-1], "type": "run_completed", "source": "stop_file"}

    middle = events[3]
    again = cody("watch", events[0]["runId"], "--json", "--from", middle["id"])
    assert [json.loads(line) for line in again.stdout.splitlines()] == events[4:]


def test_what_the_run_gets_is_what_the_options_say(cody: CommandLine, agent: Agent, repo: Path) -> None:
    code = "(EPIC / 'seen.json').write_text(json.dumps({k: os.environ.get(k) for k in ('A', 'B')})); stop()"
    options = ["--env", "A=1=2", "--env", "B", "--loop-delay", "0.5", "--session", "resume", "--pattern", "^DONE"]
    options += ["--max-turn-sec", "0", "--max-idle-sec", "700", "--approval", "untrusted", "--sandbox", "read-only"]
    done = cody("run", "--json", *options, "--", *agent(code), B="from here")
    config = cody.json("show", json.loads(done.stdout.splitlines()[0])["runId"])["run"]["config"]
    assert json.loads((repo / ".cody-harness/current-epic/seen.json").read_text()) == {"A": "1=2", "B": "from here"}
    assert config["budget"] == {"maxTurnSec": None, "maxIdleSec": 700.0}
    assert config["completion"]["pattern"] == "^DONE"
    assert (config["loopDelaySec"], config["session"]) == (0.5, "resume")
    assert (config["approval"], config["sandbox"]) == ("untrusted", "read-only")
    assert config["workingDir"] == str(repo)


def test_a_failed_run_has_its_own_exit_code(cody: CommandLine, agent: Agent) -> None:
    done = cody("run", "--", *agent("sys.exit('no good')"), code=exits.RUN_FAILED)
    assert "run failed: agent_exited: the command exited with code 1\n" in done.stdout
    assert done.stdout.count("no good") == 2, "what the agent printed, and the error, once"
    told = "failed after"
    assert "agent_exited: the command exited with code 1. The turn's log has all" in done.stdout.partition(told)[2]
    assert cody("watch", run_id_of(done), code=exits.RUN_FAILED).stdout.splitlines()[-1].startswith("kept in")


def test_a_run_that_is_left_alone_is_found_steered_and_cancelled(cody: CommandLine, agent: Agent, repo: Path) -> None:
    run_id = start(cody, agent(HOLD))
    short = run_id[:8]
    wait_for(cody, run_id, "turn_started")
    assert [run["runId"] for run in cody.json("runs", "--status", "running", "--limit", "1")["runs"]] == [run_id]
    assert short in cody("runs").stdout

    assert cody.json("pause", short, "--reason", "a look")["status"] == "pausing"
    (repo / "go").touch()
    with cody.start("watch", short) as watching:
        # The stop file ends the run: a pause is for a run that goes on.
        out, _ = watching.communicate(timeout=60)
        assert watching.returncode == exits.OK
    assert "pausing when the turn has ended (a look)" in out

    refused = cody("resume", short, code=exits.ERROR)
    assert "the run has ended (completed): it can't be resumed any more" in refused.stderr
    assert cody("cancel", run_id, code=exits.ERROR).stdout == ""


def test_pause_resume_and_cancel(cody: CommandLine, agent: Agent, repo: Path) -> None:
    run_id = start(cody, agent("print('turn', TURN); wait_for(f'go-{TURN}')"), "--loop-delay", "0")
    short = run_id[:6]
    wait_for(cody, run_id, "turn_started")
    assert f"run {run_id} is pausing" in cody("pause", short).stdout
    (repo / "go-1").touch()
    assert until(cody, run_id, "paused")["reason"] == "manual"
    twice = cody("pause", short, code=exits.ERROR).stderr
    assert "the run is paused, and can't be paused now; possible: cody cancel, cody resume" in twice
    assert cody.json("resume", short) == {"runId": run_id, "status": "running"}
    with cody.start("watch", short) as watching:
        assert cody.json("cancel", short, "--reason", "enough")["status"] == "cancelling"
        out, _ = watching.communicate(timeout=60)
        assert watching.returncode == exits.RUN_CANCELLED
    assert "cancelled (enough)" in out


def test_show_has_the_run_and_its_turns(cody: CommandLine, agent: Agent) -> None:
    run_id = run_id_of(cody("run", "--max-turns", "2", "--loop-delay", "0", "--", *agent("print('turn', TURN)")))
    found = cody.json("show", run_id[:8])
    assert found["run"]["stats"]["turns"] == 2
    assert [turn["lastMessage"] for turn in found["turns"]] == ["turn 1", "turn 2"]
    text = cody("show", run_id[:8]).stdout
    assert "completed by  its limit of 2 turns" in text
    assert text.splitlines()[-1].endswith("turn 2")


def test_logs_are_the_bytes_of_the_turn(cody: CommandLine, agent: Agent) -> None:
    code = r"sys.stdout.buffer.write(b'\x1b[1m\xff\x00 turn %d\n' % TURN)"
    run_id = run_id_of(cody("run", "--max-turns", "2", "--loop-delay", "0", "--", *agent(code)))

    def logs(*options: str) -> bytes:
        return cody.raw("logs", run_id, *options)

    assert logs() == b"\x1b[1m\xff\x00 turn 2\n"
    assert logs("--turn", "1") == b"\x1b[1m\xff\x00 turn 1\n"
    assert logs("--follow", "--turn", "1") == b"\x1b[1m\xff\x00 turn 1\n"
    assert f"run {run_id} has no turn 9\n" in cody("logs", run_id, "--turn", "9", code=exits.ERROR).stderr


def test_logs_follow_the_run_over_its_turns(cody: CommandLine, agent: Agent, repo: Path) -> None:
    run_id = start(cody, agent("print('turn', TURN, flush=True); wait_for(f'go-{TURN}'); TURN < 2 or stop()"))
    with cody.start("logs", "--follow", run_id) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "turn 1\n"
        (repo / "go-1").touch()
        assert following.stdout.readline() == "turn 2\n"
        (repo / "go-2").touch()
        assert following.stdout.read() == ""
    assert following.returncode == exits.OK


def test_an_id_that_means_no_run_or_several(cody: CommandLine, agent: Agent) -> None:
    assert "at least 4" in cody("show", "abc", code=exits.ERROR).stderr
    assert "no run begins with 'zzzz'" in cody("show", "zzzz", code=exits.ERROR).stderr
    whole = "00000000-0000-4000-8000-000000000000"
    assert whole in cody("show", whole, code=exits.ERROR).stderr


def test_a_listing_goes_on_where_the_page_ended(cody: CommandLine, agent: Agent) -> None:
    for _ in range(3):
        cody("run", "--json", "--", *agent("stop()"))
    first = cody.json("runs", "--limit", "2")
    rest = cody.json("runs", "--cursor", first["nextCursor"], "--limit", "1")
    every = [run["runId"] for run in cody.json("runs", "--all")["runs"]]
    assert [run["runId"] for run in first["runs"] + rest["runs"]] == every[:3]
    assert "more: cody runs --cursor" in cody("runs", "--limit", "1").stderr
    assert "no runs like that" in cody("runs", "--epic", "nobody's").stderr


def test_what_the_server_refuses_is_told_in_its_words(cody: CommandLine, tmp_path: Path) -> None:
    epic = cody("run", "--working-dir", str(tmp_path), "--", "true", code=exits.ERROR).stderr
    assert f"for --working-dir {tmp_path}" in epic
    danger = cody("run", "--sandbox", "danger-full-access", "--", "true", code=exits.ERROR)
    assert "cody: --sandbox: danger-full-access lets" in danger.stderr
    assert "--allow-danger" in danger.stderr


def test_a_folder_that_is_not_there_is_wrong_usage(cody: CommandLine, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert f"--working-dir {nowhere} does not exist" in cody("run", "--working-dir", str(nowhere), code=2).stderr
    nowhere.touch()
    assert f"--working-dir {nowhere} is not a folder" in cody("run", "--working-dir", str(nowhere), code=2).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_without_a_terminal_leaves_the_run_to_go_on(
    cody: CommandLine, agent: Agent, repo: Path, number: signal.Signals
) -> None:
    with cody.start("run", "--", *agent(HOLD)) as running:
        run_id = read_until(running.stderr, "run ").split()[1]
        read_until(running.stdout, "here")
        running.send_signal(number)
        _, words = running.communicate(timeout=60)
    assert running.returncode == exits.RUN_GOES_ON
    assert f"run {run_id} goes on" in words
    assert f"cody cancel {run_id[:8]}" in words
    assert cody.json("show", run_id)["run"]["status"] == "running"
    (repo / "go").touch()
    cody("watch", run_id)


def test_the_shell_completes_run_ids(cody: CommandLine, agent: Agent) -> None:
    run_id = start(cody, agent("stop()"))
    words = {"_CODY_COMPLETE": "complete_bash", "COMP_WORDS": f"cody show {run_id[:2]}", "COMP_CWORD": "2"}
    give_up_at = time.monotonic() + DEADLINE_S
    # Completions that would come late are left out: on a busy machine one presses Tab again.
    while run_id[:8] not in cody(code=None, **words).stdout:
        assert time.monotonic() < give_up_at
    cody("watch", run_id)
