"""The server as a process: what it says, where it can be found, how it ends, and why it would not start."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from cody import __version__
from tests.ports import reserved_port
from tests.server.cody_server import DEADLINE_S, CodyServer, OwnedRun
from tests.server.conftest import Launch

Eventually = Callable[..., Awaitable[None]]

WAITING = "import sys, time\nprint('waiting', flush=True)\ntime.sleep(600)"
STUBBORN = (
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('waiting', flush=True)\n" + WAITING
)

LONG_TURN = "import os, time\nprint('waiting', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)"


def start_run(client: httpx2.Client, workspace: Path, code: str = WAITING) -> str:
    """A run whose agent runs this code; the path of the run."""
    epic = workspace / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", code]
    config = {"workingDir": str(workspace), "agent": "command", "command": command, "loopDelaySec": 0}
    answer = client.post("/api/runs/continuous", json={"epicId": "current-epic", "config": config})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def agent_of(client: httpx2.Client, run: str) -> psutil.Process:
    """The agent's process, once it has printed something."""
    with client.stream("GET", f"{run}/stream") as stream:
        for line in stream.iter_lines():
            if '"type":"subprocess_output"' in line:
                break
    return psutil.Process(client.get(run).json()["pid"])


def rest_of_stdout(server: CodyServer) -> str:
    assert server.process.stdout is not None
    return server.process.stdout.read()


def test_one_line_on_stdout_and_a_file_tell_where_it_is(launched: Launch) -> None:
    server = launched(has_archive=False)
    path = server.state_dir / "server.json"
    told = json.loads(path.read_bytes())
    assert told == {
        "url": server.url,
        "pid": server.process.pid,
        "version": __version__,
        "startedAt": told["startedAt"],
        "proofKey": told["proofKey"],
    }
    assert told["startedAt"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.state_dir.stat().st_mode) == 0o700
    assert httpx2.get(f"{server.url}/healthz", timeout=DEADLINE_S).json() == {"status": "ok", "version": __version__}
    assert server.end() == 0
    assert rest_of_stdout(server) == ""
    assert not path.exists()
    assert [json.loads(line)["event"] for line in server.stderr.splitlines()]


def test_the_file_of_another_server_is_left_alone(launched: Launch) -> None:
    server = launched()
    path = server.state_dir / "server.json"
    others = json.dumps({"url": "http://127.0.0.1:1", "pid": server.process.pid + 1})
    path.write_text(others)
    assert server.end() == 0
    assert path.read_text() == others


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_it_with_0(launched: Launch, number: signal.Signals) -> None:
    server = launched()
    assert server.end(number) == 0
    assert "Traceback" not in server.stderr


async def test_a_second_and_a_third_ctrl_c_change_nothing(
    launched: Launch, tmp_path: Path, eventually: Eventually
) -> None:
    """Sent while an agent that ignores SIGTERM uses up its grace."""
    server = launched(CODY_GRACE_SEC="1")
    with server.client() as client:
        agent = agent_of(client, start_run(client, tmp_path, STUBBORN))
    server.process.send_signal(signal.SIGINT)
    await eventually(lambda: "server.stopping" in server.stderr)
    for _ in range(2):
        server.process.send_signal(signal.SIGINT)
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not agent.is_running()
    assert "Traceback" not in server.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_who_says_it_twice_does_not_wait_for_turns(
    launched: Launch, tmp_path: Path, eventually: Eventually, number: signal.Signals
) -> None:
    server = launched("--on-shutdown", "finish-turn")
    with server.client() as client:
        run = start_run(client, tmp_path, LONG_TURN)
        agent = agent_of(client, run)
    server.process.send_signal(signal.SIGTERM)
    await eventually(lambda: "server.stopping" in server.stderr)
    assert agent.is_running()
    server.process.send_signal(number)
    assert server.wait() == 0
    assert not agent.is_running()
    assert "server.hurried" in server.stderr
    assert "Traceback" not in server.stderr
    (tmp_path / "go").touch()
    again = launched()
    with again.client() as client:
        await eventually(lambda: len(client.get(f"{run}/turns").json()["turns"]) > 1, deadline_s=60)
        first = client.get(f"{run}/turns/1").json()
    assert first["status"] == "interrupted"
    assert again.end() == 0


async def test_finish_turn_waits_for_the_turns_end(launched: Launch, tmp_path: Path, eventually: Eventually) -> None:
    server = launched("--on-shutdown", "finish-turn")
    with server.client() as client:
        agent_of(client, start_run(client, tmp_path, LONG_TURN))
    server.process.send_signal(signal.SIGTERM)
    await eventually(lambda: "server.stopping" in server.stderr)
    (tmp_path / "go").touch()
    assert server.wait() == 0
    said = [json.loads(line) for line in server.stderr.splitlines()]
    assert [one["status"] for one in said if one["event"] == "turn.ended"] == ["completed"]
    assert "server.hurried" not in server.stderr


def test_signals_are_harmless_to_the_last_moment(launched: Launch) -> None:
    server = launched()
    while server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert "Traceback" not in server.stderr


async def test_open_streams_end_cleanly_and_hold_nothing_up(launched: Launch) -> None:
    server = launched()
    store = server.redis()
    run = await OwnedRun.create(store)
    await run.add(1)
    await store.aclose()
    ended: list[bytes] = []
    with server.client() as client, client.stream("GET", f"/api/runs/{run.run_id}/stream") as stream:
        chunks = stream.iter_raw()
        raw = b""
        while b'"seq":2' not in raw:
            raw += next(chunks)
        reading = threading.Thread(target=lambda: ended.extend(chunks))
        reading.start()
        assert server.end() == 0
        reading.join(DEADLINE_S)
        assert not reading.is_alive()
    assert b"[DONE]" not in b"".join(ended)
    assert "Traceback" not in server.stderr


async def test_a_client_that_does_not_read_holds_no_shutdown_up(launched: Launch) -> None:
    server = launched()
    store = server.redis()
    run = await OwnedRun.create(store)
    await run.add(20_000, text_bytes=1_000)
    await store.aclose()
    with socket.create_connection(("127.0.0.1", server.port)) as stalled:
        head = f"GET /api/runs/{run.run_id}/stream HTTP/1.1\r\nHost: localhost:{server.port}\r\n"
        stalled.sendall(f"{head}{server.auth_line}\r\n".encode())
        assert stalled.recv(12) == b"HTTP/1.1 200"
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            half.sendall(b"POST /api/runs/continuous HTTP/1.1\r\nHost: ")
            assert server.end() == 0
    assert "Traceback" not in server.stderr


def test_a_shutdown_that_cancels_is_seen_to_the_end_by_who_watches(launched: Launch, tmp_path: Path) -> None:
    server = launched("--on-shutdown", "cancel")
    with server.client() as client:
        run = start_run(client, tmp_path)
        agent = agent_of(client, run)
        with client.stream("GET", f"{run}/stream") as stream:
            chunks = stream.iter_raw()
            raw = next(chunks)
            server.process.send_signal(signal.SIGTERM)
            raw += b"".join(chunks)
    assert b'"type":"run_cancelled"' in raw
    assert raw.endswith(b"data: [DONE]\n\n")
    assert server.wait() == 0
    assert not agent.is_running()


def test_a_run_goes_on_after_a_restart(launched: Launch, tmp_path: Path) -> None:
    first = launched()
    with first.client() as client:
        run = start_run(client, tmp_path)
        agent = agent_of(client, run)
    assert first.end() == 0
    assert not agent.is_running()
    second = launched("--on-shutdown", "cancel")
    with second.client() as client, client.stream("GET", f"{run}/stream") as stream:
        for line in stream.iter_lines():
            if '"type":"turn_started"' in line and '"turn":2' in line:
                break
    assert second.end() == 0


PATIENCE_S = "3"
"""Of servers that end by themselves: from its ready line until somebody connects, and from a run's start until a host takes
it, nobody needs one. A busy machine may take a while for both."""
BEHIND = ("waiting", "lag_seconds")


async def test_it_ends_by_itself_when_nobody_needs_it(launched: Launch, tmp_path: Path, eventually: Eventually) -> None:
    server = launched("--idle-exit", PATIENCE_S)
    with socket.create_connection(("127.0.0.1", server.port)), server.client() as client:
        assert _active_runs(client) == 0
        run = start_run(client, tmp_path, "import time; time.sleep(1.5)")
        assert "run.queued" in server.stderr
        await eventually(lambda: _active_runs(client) == 1)
        # A connection is open, if an idle one: the server stays for longer than its patience.
        await eventually(lambda: len(client.get(f"{run}/turns").json()["turns"]) >= 4, deadline_s=60)
        assert server.process.poll() is None
        assert client.post(f"{run}/cancel").status_code == 200
    assert server.wait() == 0
    assert not (server.state_dir / "server.json").exists()


def _active_runs(client: httpx2.Client) -> int:
    (line,) = [one for one in client.get("/metrics").text.splitlines() if one.startswith("cody_active_runs ")]
    return int(float(line.split()[1]))


async def test_metrics_tell_how_far_the_archive_is_behind(
    launched: Launch, tmp_path: Path, eventually: Eventually
) -> None:
    server = launched(CODY_PROJECTOR="0")
    with server.client() as client:

        def told() -> dict[str, float]:
            lines = [one for one in client.get("/metrics").text.splitlines() if one.startswith("cody_archive_")]
            return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

        nothing = {f'cody_archive_{what}{{of="{of}"}}': 0 for what in BEHIND for of in ("runs", "responses")}
        # Nothing is told while that is not known: the archive is loaded beside the start.
        await eventually(lambda: told() == nothing)
        start_run(client, tmp_path, "import time; time.sleep(600)")
        await eventually(lambda: told().get('cody_archive_waiting{of="runs"}', 0) > 0)
        await eventually(lambda: told().get('cody_archive_lag_seconds{of="runs"}', 0) > 0)


def test_a_run_keeps_an_idle_server_alive(launched: Launch, tmp_path: Path) -> None:
    """Each turn is longer than the server's patience; nobody is connected."""
    server = launched("--idle-exit", PATIENCE_S)
    code = """
import os, pathlib, time
time.sleep(3.5)
if os.environ["CODY_TURN"] == "2": pathlib.Path(os.environ["CODY_STOP_FILE"]).touch()
"""
    with server.client() as client:
        start_run(client, tmp_path, code)
    assert server.wait() == 0
    assert '"run.ended"' in server.stderr
    assert server.stderr.index('"run.ended"') < server.stderr.index('"server.stopping"')


def test_without_redis_it_serves_and_says_so(launched: Launch) -> None:
    server = launched(CODY_EMBEDDED_REDIS="off")
    with server.client() as client:
        assert client.get("/healthz").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "service_unavailable")
        assert "REDIS_URL" in ready.json()["error"]["details"]["checks"]["redis"]
        for path in ("/api/runs", f"/api/runs/{'0' * 8}-0000-4000-8000-{'0' * 12}/stream"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
    assert server.end() == 0


def refusal(server: CodyServer) -> tuple[int, str]:
    """The exit code of a server that did not start, and the one line that says why."""
    assert server.url == ""
    code = server.wait()
    said = [line for line in server.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, server.stderr
    assert said[0].startswith("cody: ")
    assert "Traceback" not in server.stderr
    return code, said[0]


def test_a_taken_port_is_told(launched: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = launched(port=port)
        code, said = refusal(server)
    assert code == 1
    assert f"port {port} on 127.0.0.1 is taken" in said
    assert not (server.state_dir / "redis").exists(), "nothing is started before the port is had"


def test_a_port_is_free_again_at_once(launched: Launch) -> None:
    with reserved_port() as port:
        first = launched(port=port)
        httpx2.get(f"{first.url}/healthz", timeout=DEADLINE_S)
        assert first.end() == 0
        second = launched(port=port)
        assert second.url == first.url
        assert second.end() == 0


def test_a_second_server_on_the_same_state_folder_is_told(launched: Launch) -> None:
    first, second = launched(), launched()
    code, said = refusal(second)
    assert code == 1
    assert str(first.state_dir) in said
    assert json.loads((first.state_dir / "server.json").read_bytes())["pid"] == first.process.pid


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL"),
        ({"REDIS_URL": "nonsense://x"}, "REDIS_URL"),
        ({"CODY_PORT": "abc"}, "PORT"),
        ({"CODY_GRACE_SEC": "-1"}, "GRACE"),
        ({"CODY_LOG_LEVEL": "loud"}, "CODY_LOG_LEVEL"),
        ({"CODY_REDIS_SERVER": "/nowhere/redis-server"}, "/nowhere/redis-server"),
    ],
)
def test_wrong_settings_are_told(launched: Launch, environment: dict[str, str], named: str) -> None:
    flags = [] if "CODY_PORT" in environment else ["--port", "0"]
    code, said = refusal(launched(*flags, port=None, **environment))
    assert code == 1
    assert named in said


def test_a_password_in_the_redis_url_is_not_told(launched: Launch) -> None:
    server = launched(REDIS_URL="redis://user:verysecret@127.0.0.1:1/0")
    assert refusal(server)[0] == 1
    assert "verysecret" not in server.stderr


def test_a_state_folder_that_can_not_be_is_told(launched: Launch, folder: Path) -> None:
    (folder / "file").write_text("")
    code, said = refusal(launched(state="file/state"))
    assert code == 1
    assert str(folder / "file") in said


def test_a_broken_settings_file_is_told(launched: Launch, folder: Path) -> None:
    (folder / "state").mkdir(mode=0o700)
    (folder / "state" / "cody.toml").write_text("prot = 1\n")
    code, said = refusal(launched())
    assert code == 1
    assert "unknown setting prot" in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--prot", "1"],
        ["--port", "65536"],
        ["--port", "x"],
        ["--idle-exit", "0"],
        ["--idle-exit", "soon"],
        ["--on-shutdown", "explode"],
        ["surplus"],
        ["--host", "0.0.0.0"],
        ["--host", "::"],
        ["--host", "192.0.2.1"],
        ["--host", "example.com"],
        ["--host", ""],
    ],
)
def test_wrong_usage_is_2(launched: Launch, flags: list[str]) -> None:
    assert refusal(launched(*flags))[0] == 2


def test_a_host_others_could_reach_is_refused_from_the_environment_too(launched: Launch) -> None:
    code, said = refusal(launched(CODY_HOST="0.0.0.0"))
    assert code == 2
    assert "loopback" in said


def test_localhost_is_an_address_every_client_reaches(launched: Launch) -> None:
    server = launched("--host", "localhost")
    assert server.url.startswith("http://127.0.0.1:")
    assert httpx2.get(f"http://localhost:{server.port}/healthz", timeout=DEADLINE_S).status_code == 200


def test_a_stop_at_the_start_is_an_orderly_end(launched: Launch, folder: Path) -> None:
    """It waits for a Redis that takes connections and never answers."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "silent.sock"))
        silent.listen()
        silent.settimeout(DEADLINE_S)
        outcome: list[Any] = []
        starting = threading.Thread(target=lambda: outcome.append(launched(REDIS_URL=f"unix://{folder}/silent.sock")))
        starting.start()
        connection, _ = silent.accept()
        (process,) = [
            child
            for child in psutil.Process(os.getpid()).children()
            if child.status() != psutil.STATUS_ZOMBIE and str(folder / "state") in child.cmdline()
        ]
        process.send_signal(signal.SIGTERM)
        starting.join(DEADLINE_S)
        connection.close()
    (server,) = outcome
    assert (server.url, server.wait()) == ("", 0)
    assert "Traceback" not in server.stderr


async def test_nobody_reading_the_ready_line_is_no_reason_to_end(launched: Launch, eventually: Eventually) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    server = launched(stdout=writing)
    os.close(writing)
    path = server.state_dir / "server.json"
    await eventually(path.exists)
    url = json.loads(path.read_bytes())["url"]
    assert httpx2.get(f"{url}/healthz", timeout=DEADLINE_S).status_code == 200
    assert server.end() == 0
