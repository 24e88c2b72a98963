"""`cody run` brings its own server, one, and says what is wrong when it can't."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil

from cody.cli import exits
from cody.cli.local_server import log_tail
from tests.cli.command_line import DEADLINE_S, CommandLine
from tests.cli.conftest import Agent


def test_a_run_starts_the_server_and_leaves_it_running(alone: CommandLine, agent: Agent) -> None:
    done = alone("run", "--", *agent("stop()"))
    assert "no server is running: starting one" in done.stderr
    pid = alone.server_pid()
    assert pid is not None
    server = psutil.Process(pid)
    assert "--idle-exit" in server.cmdline()
    assert alone.json("runs")["runs"][0]["status"] == "completed"

    again = alone("run", "--", *agent("stop()"))
    assert "starting" not in again.stderr
    assert alone.server_pid() == pid
    assert alone.state_dir.stat().st_mode & 0o777 == 0o700
    assert "server.ready" in (alone.state_dir / "server.log").read_text()


def test_two_at_once_share_one_server(alone: CommandLine, agent: Agent) -> None:
    command = ["run", "--json", "--", *agent("stop()")]
    with alone.start(*command) as one, alone.start(*command) as other:
        ends = [process.communicate(timeout=DEADLINE_S) for process in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), ends
    assert len(alone.json("runs")["runs"]) == 2


def test_a_project_with_a_server_of_its_own_is_not_run_instead(alone: CommandLine, agent: Agent, repo: Path) -> None:
    (repo / "server.py").write_text("raise SystemExit('the wrong one')\n")
    (repo / "harness.py").write_text("raise SystemExit('the wrong one')\n")
    alone("run", "--", *agent("stop()"))
    assert "usage" in alone("prompt", "--help").stdout


def test_a_server_that_can_not_start_is_told_by_the_end_of_its_log(alone: CommandLine) -> None:
    done = alone("run", "--", "true", code=exits.UNREACHABLE, CODY_REDIS_SERVER="/no/such/server")
    assert "could not be started" in done.stderr
    assert "/no/such/server" in done.stderr
    assert str(alone.state_dir / "server.log") in done.stderr
    assert done.stdout == ""
    assert alone.server_pid() is None


def test_a_server_that_was_named_is_not_replaced_by_another(alone: CommandLine) -> None:
    done = alone("--url", "http://127.0.0.1:1", "run", "--", "true", code=exits.UNREACHABLE)
    assert "http://127.0.0.1:1" in done.stderr
    assert not alone.state_dir.exists()


def test_a_port_that_is_taken_is_an_error_when_it_was_chosen(alone: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = alone("run", "--", "true", code=exits.UNREACHABLE, CODY_PORT=str(port))
    assert str(port) in done.stderr


def test_serve_is_the_server_and_takes_the_root_options(alone: CommandLine) -> None:
    with alone.start("--state-dir", str(alone.state_dir), "serve", "--port", "0") as serving:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        assert json.loads((alone.state_dir / "server.json").read_text()) == {
            **json.loads((alone.state_dir / "server.json").read_text()),
            "url": url,
            "pid": serving.pid,
        }
        assert alone.json("runs") == {"runs": [], "nextCursor": None}
        serving.terminate()
        assert serving.wait(60) == 0


def test_the_tail_of_a_log_begins_where_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_tail(log).startswith("(")
    log.write_text("")
    assert log_tail(log) == "(it is empty)"
    log.write_text("old\nnew\n")
    assert log_tail(log, since=4) == "new"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert log_tail(log).splitlines()[-1] == "line 9999"
    assert len(log_tail(log).splitlines()) < 50
