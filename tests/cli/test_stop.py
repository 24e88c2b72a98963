"""The local server is woken by a look at its runs, ended by `cody stop`, and started for all folders it ever had."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from cody.cli import exits
from cody.cli.known_roots import KnownRoots, keep_roots, read_roots, usable
from cody.cli.patience import Patience
from cody.client import ServerUnreachable
from tests.cli.command_line import CommandLine, read_until
from tests.cli.conftest import Agent
from tests.ports import reserved_port


def server_of(cody: CommandLine) -> psutil.Process:
    pid = cody.server_pid()
    assert pid is not None
    return psutil.Process(pid)


def has_ended(process: psutil.Process) -> bool:
    """Also when nobody has looked at its exit code yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_look_wakes_the_server_that_has_ended(alone: CommandLine, agent: Agent, repo: Path) -> None:
    alone("run", "--", *agent("stop()"))
    first = server_of(alone)
    alone.end_server()
    done = alone("runs", "--json")
    assert '"completed"' in done.stdout
    assert done.stderr == "", "quietly"
    woken = server_of(alone)
    assert woken.pid != first.pid
    assert f"--workspace-root={repo}" in woken.cmdline(), "for the folders of its runs, wherever the look came from"
    assert "--idle-exit" in woken.cmdline()


def test_stop_ends_it_and_says_so(alone: CommandLine, agent: Agent) -> None:
    assert "no server is running" in alone("stop").stderr
    assert not alone.state_dir.exists()
    alone("run", "--", *agent("stop()"))
    process = server_of(alone)
    assert f"(process {process.pid}) has ended" in alone("stop").stderr
    assert has_ended(process)
    assert alone.json("runs")["runs"], "nothing was active: a look starts it again"


def test_stop_asks_when_runs_are_active_and_they_stay_stopped(alone: CommandLine, agent: Agent, repo: Path) -> None:
    code = "print('turn', TURN, flush=True); TURN > 1 and stop(); wait_for('go')"
    run_id = alone("run", "--detach", "--", *agent(code)).stdout.strip()
    with alone.start("logs", "--follow", run_id) as following:
        read_until(following.stdout, "turn 1")
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=60)
    process = server_of(alone)
    refused = alone("stop", code=exits.ERROR)
    assert f"1 run active: {run_id[:8]}" in refused.stderr
    assert "cody stop --yes" in refused.stderr
    assert process.is_running()
    with alone.terminal("stop") as terminal:
        terminal.until("Stop it? [y/N]")
        terminal.press("n\n")
        assert terminal.wait() == exits.ERROR
    assert process.is_running()
    with alone.terminal("stop") as terminal:
        terminal.until("Stop it? [y/N]")
        terminal.press("y\n")
        assert terminal.wait() == exits.OK
    assert has_ended(process)
    assert "was stopped while it had runs" in alone("runs", code=exits.UNREACHABLE).stderr
    (repo / "go").touch()
    alone("run", "--epic", "other", "--", *agent("stop()"), code=None)
    alone("watch", run_id)


def test_stop_touches_no_process_that_is_not_the_server(alone: CommandLine, agent: Agent) -> None:
    alone.state_dir.mkdir()
    (alone.state_dir / "server.json").write_text(f'{{"url": "http://127.0.0.1:1", "pid": {os.getpid()}}}')
    refused = alone("stop", "--yes", code=exits.UNREACHABLE)
    assert f"process {os.getpid()} should be the server" in refused.stderr
    (alone.state_dir / "server.json").unlink()
    other = alone("--url", "http://127.0.0.1:1", "stop", "--yes", code=exits.ERROR)
    assert "unset CODY_URL" in other.stderr


def test_a_second_folder_is_refused_with_the_way_out_and_works_after_it(
    alone: CommandLine, agent: Agent, repo: Path, tmp_path: Path
) -> None:
    alone("run", "--", *agent("stop()"))
    (repo / ".cody-harness/current-epic/.stop").unlink(missing_ok=True)
    other = tmp_path / "other"
    other.mkdir()
    alone("init", str(other))
    command = ["run", "--working-dir", str(other), "--", *agent("stop()")]
    refused = alone(*command, code=exits.ERROR)
    assert f"(process {alone.server_pid()}) may work in {repo} only, not in {other}" in refused.stderr
    assert "`cody stop`" in refused.stderr
    alone("stop")
    alone(*command)
    assert {f"--workspace-root={repo}", f"--workspace-root={other}"} <= set(server_of(alone).cmdline())


def test_a_folder_that_a_server_of_ones_own_may_not_work_in(alone: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with alone.start("serve", "--port", "0", "--workspace-root", str(tmp_path / "other")) as serving:
        read_until(serving.stdout, "http")
        refused = alone("run", "--", "true", code=exits.ERROR)
        assert f"(process {serving.pid}) may not work in {alone.folder}" in refused.stderr
        assert f"cody serve --workspace-root {alone.folder}" in refused.stderr
        alone("stop")
        assert serving.wait(60) == 0
        assert serving.stderr is not None
        serving.stderr.read()
    assert "started by hand" in alone("runs", code=exits.UNREACHABLE).stderr


def test_a_look_does_not_wake_a_server_for_other_folders_than_the_last_one_had(
    alone: CommandLine, agent: Agent, tmp_path: Path
) -> None:
    alone("run", "--", *agent("stop()"))
    alone("stop")
    with alone.start("serve", "--port", "0", f"--state-dir={alone.state_dir}") as serving:
        read_until(serving.stdout, "http")
        alone("stop")
        serving.communicate(timeout=60)
    assert "started by hand" in alone("runs", code=exits.UNREACHABLE).stderr
    assert alone.server_pid() is None


def test_roots_are_kept_without_those_that_are_gone_or_inside_others(tmp_path: Path) -> None:
    assert read_roots(tmp_path) == KnownRoots()
    a, below, gone, beside = tmp_path / "a", tmp_path / "a" / "b", tmp_path / "gone", tmp_path / "a2"
    below.mkdir(parents=True)
    beside.mkdir()
    assert usable([below, a, gone, beside, a]) == (a, beside)
    keep_roots(tmp_path, KnownRoots(pid=7, roots=(a,)))
    assert read_roots(tmp_path) == KnownRoots(pid=7, roots=(a,))
    assert (tmp_path / "server.roots.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "server.roots.json").write_text("{")
    assert read_roots(tmp_path) == KnownRoots()


def test_logs_go_on_over_a_restart_of_the_server(alone: CommandLine, agent: Agent, repo: Path) -> None:
    code = "print('turn', TURN, flush=True); TURN > 1 and stop(); TURN > 1 or wait_for('never')"
    with reserved_port() as port:
        serve = ["serve", "--port", str(port), "--workspace-root", str(repo)]
        with alone.start(*serve) as first:
            read_until(first.stdout, "http")
            run_id = alone("run", "--detach", "--loop-delay", "0", "--", *agent(code)).stdout.strip()
            following = alone.start("logs", "--follow", run_id)
            assert following.stdout is not None
            assert following.stdout.readline() == "turn 1\n"
            first.terminate()
            first.communicate(timeout=60)
        with following:
            read_until(following.stderr, "no connection, trying again")
            with alone.start(*serve) as second:
                read_until(second.stdout, "http")
                read_until(following.stderr, "connected again")
                assert following.stdout.readline() == "turn 2\n"
                out, _ = following.communicate(timeout=60)
                assert (out, following.returncode) == ("", exits.OK)
                second.terminate()
                second.communicate(timeout=60)


async def test_patience_ends() -> None:
    told: list[str | None] = []
    answers = [7]

    async def call() -> int:
        if not answers:
            raise ServerUnreachable("away")
        return answers.pop()

    answers, kept = [], answers
    with pytest.raises(ServerUnreachable):
        await Patience(told.append).of(call)
    assert told == [], "there was no server to begin with"
    answers = kept
    patience = Patience(told.append, give_up_after_s=0.2)
    assert await patience.of(call) == 7
    with pytest.raises(ServerUnreachable):
        await patience.of(call)
    assert told == ["away"]
