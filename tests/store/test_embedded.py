"""The Redis server of Cody's own: one a folder, private, keeps its data, ends with Cody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from cody.errors import StoreUnavailable
from cody.store.clients import connect
from cody.store.embedded import DIE_WITH_PARENT, EmbeddedServer, find_server_binary
from cody.store.server_folder import KEPT_LOG_BYTES, MAX_LOG_BYTES, MAX_SOCKET_PATH_BYTES, claim_socket

REPOSITORY = Path(__file__).parents[2]
BINARY = find_server_binary(None)
DEADLINE_S = 60.0

CODY = """
import asyncio, sys
from pathlib import Path
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer, find_server_binary

async def main():
    server = EmbeddedServer(find_server_binary(None), Path(sys.argv[1]), appendfsync="always")
    await server.start()
    client = connect(server.url)
    await client.set("from", "cody")
    print("serving", server.pid, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await client.set("last", "event")
        await client.aclose()
        await server.stop()
        print("saved", flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(BINARY, tmp_path / "state", stop_deadline_s=DEADLINE_S)
    yield server
    await server.stop()


@pytest.fixture
def short_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        yield Path(folder)


@contextlib.contextmanager
def another_cody(state_dir: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A second Cody process that serves `state_dir`, with the pid of its Redis server."""
    command = [sys.executable, "-c", CODY, str(state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True) as cody:
        redis = None
        try:
            redis = psutil.Process(int(line_of(cody, "serving").split()[1]))
            yield cody, redis.pid
        finally:
            cody.kill()
            if redis is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    redis.kill()


def line_of(cody: subprocess.Popen[str], first_word: str) -> str:
    assert cody.stdout is not None
    for line in cody.stdout:
        if line.startswith(first_word):
            return line
    raise AssertionError(f"the other Cody ended without saying {first_word}")


def wait_until(predicate: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    give_up_at = time.monotonic() + deadline_s
    while not predicate():
        assert time.monotonic() < give_up_at, "the condition did not come true"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.asynccontextmanager
async def client_of(server: EmbeddedServer) -> AsyncIterator[Redis]:
    client = connect(server.url, command_deadline_s=DEADLINE_S)
    try:
        yield client
    finally:
        await client.aclose()


async def test_it_answers_on_a_private_unix_socket_only(server: EmbeddedServer) -> None:
    await server.start()
    async with client_of(server) as client:
        assert await client.ping()
        settings = await client.config_get("*")
    assert server.folder.stat().st_mode & 0o777 == 0o700
    assert server.socket_path.stat().st_mode & 0o777 == 0o700
    assert psutil.Process(server.pid).net_connections("inet") == []
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendfsync"] == "everysec"
    assert server.version == BINARY.version


async def test_stop_ends_it_and_leaves_nothing_but_data(server: EmbeddedServer) -> None:
    await server.start()
    pid = server.pid
    await server.stop()
    assert not runs(pid)
    assert "bye bye" in server.log_path.read_text(), "it was killed instead of asked"
    assert sorted(path.name for path in server.folder.iterdir()) == ["appendonlydir", "lock", "server.log"]
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.pid
    await server.stop()


async def test_an_existing_folder_open_to_others_is_closed(server: EmbeddedServer) -> None:
    server.folder.mkdir(parents=True)
    server.folder.chmod(0o755)
    await server.start()
    assert server.folder.stat().st_mode & 0o777 == 0o700


async def test_data_survives_stop_and_start(server: EmbeddedServer) -> None:
    await server.start()
    async with client_of(server) as client:
        await client.xadd("stream", {"n": "1"})
    await server.stop()
    await server.start()
    async with client_of(server) as client:
        assert await client.xlen("stream") == 1


async def test_data_survives_kill_9_with_a_cut_last_command(tmp_path: Path) -> None:
    server = EmbeddedServer(BINARY, tmp_path, appendfsync="always")
    await server.start()
    try:
        async with client_of(server) as client:
            assert (await client.config_get("appendfsync"))["appendfsync"] == "always"
            for number in range(100):
                await client.rpush("list", number)
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait_exit() == -signal.SIGKILL
        [increments] = (server.folder / "appendonlydir").glob("*.incr.aof")
        with increments.open("ab") as tail:
            tail.write(b"*3\r\n$5\r\nRPUSH\r\n$4\r\nli")
        await server.start()
        async with client_of(server) as client:
            assert await client.llen("list") == 100
    finally:
        await server.stop()


async def test_the_rewritten_base_file_is_readable_by_any_version(server: EmbeddedServer) -> None:
    await server.start()
    async with client_of(server) as client:
        await client.set("key", "value")
        await client.bgrewriteaof()
        while (await client.info("persistence"))["aof_rewrites"] < 1:
            await asyncio.sleep(0.01)
        while (await client.info("persistence"))["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.01)
    [base] = (server.folder / "appendonlydir").glob("*.base.*")
    assert b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n" in base.read_bytes()
    await server.stop()
    assert not list(server.folder.glob("*.rdb"))


async def test_a_second_server_on_the_folder_is_refused(server: EmbeddedServer) -> None:
    await server.start()
    second = EmbeddedServer(BINARY, server.folder.parent)
    with pytest.raises(StoreUnavailable) as caught:
        await second.start()
    for part in (str(server.folder), f"process {os.getpid()}", f"server {server.pid}"):
        assert part in caught.value.message
    assert caught.value.details["pids"] == [os.getpid(), server.pid]
    async with client_of(server) as client:
        assert await client.ping()
    await server.stop()
    await second.start()
    await second.stop()


async def test_a_second_cody_on_the_folder_is_refused_at_once(tmp_path: Path) -> None:
    with another_cody(tmp_path) as (cody, server_pid):
        ours = EmbeddedServer(BINARY, tmp_path, stop_deadline_s=3600)
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(StoreUnavailable) as caught:
                await ours.start()
        assert caught.value.details["pids"] == [cody.pid, server_pid]


async def test_starting_twice_is_refused(server: EmbeddedServer) -> None:
    await server.start()
    pid = server.pid
    with pytest.raises(RuntimeError, match="started already"):
        await server.start()
    assert server.pid == pid


async def test_it_ends_when_its_cody_is_killed_and_the_next_one_takes_over(server: EmbeddedServer) -> None:
    with another_cody(server.folder.parent) as (cody, server_pid):
        os.kill(cody.pid, signal.SIGKILL)
        # Still a zombie, as for a parent that starts the next Cody before it has asked for the last one.
        wait_until(lambda: not runs(cody.pid))
        await server.start()
        assert not runs(server_pid)
        async with client_of(server) as client:
            assert await client.get("from") == b"cody"


async def test_a_server_that_outlives_its_cody_keeps_the_folder(tmp_path: Path) -> None:
    with another_cody(tmp_path) as (cody, server_pid):
        os.kill(server_pid, signal.SIGSTOP)
        cody.kill()
        cody.wait()
        ours = EmbeddedServer(BINARY, tmp_path, stop_deadline_s=0.2)
        with pytest.raises(StoreUnavailable, match=f"server {server_pid}"):
            await ours.start()
        os.kill(server_pid, signal.SIGCONT)
        ours = EmbeddedServer(BINARY, tmp_path, stop_deadline_s=DEADLINE_S)
        await ours.start()
        await ours.stop()


async def test_ctrl_c_leaves_it_running_until_cody_has_written_its_last_events(server: EmbeddedServer) -> None:
    with another_cody(server.folder.parent) as (cody, server_pid):
        assert os.getsid(server_pid) != os.getsid(cody.pid)
        assert os.getpgid(server_pid) != os.getpgid(cody.pid)
        os.killpg(cody.pid, signal.SIGINT)
        assert line_of(cody, "saved")
    await server.start()
    async with client_of(server) as client:
        assert await client.get("last") == b"event"


async def test_a_long_state_dir_gets_its_socket_elsewhere(tmp_path: Path, short_dir: Path) -> None:
    server = EmbeddedServer(BINARY, tmp_path / ("x" * 120), runtime_dir=short_dir)
    assert len(os.fsencode(server.socket_path)) <= MAX_SOCKET_PATH_BYTES
    await server.start()
    try:
        async with client_of(server) as client:
            assert await client.ping()
        assert server.socket_path.parent.parent == short_dir
        assert server.socket_path.parent.stat().st_mode & 0o777 == 0o700
    finally:
        await server.stop()
    assert list(short_dir.iterdir()) == []


async def test_a_runtime_folder_left_by_a_killed_cody_is_used_again(tmp_path: Path, short_dir: Path) -> None:
    for _ in range(2):
        server = EmbeddedServer(BINARY, tmp_path / ("x" * 120), runtime_dir=short_dir)
        await server.start()
        os.kill(server.pid, signal.SIGKILL)
        await server.wait_exit()
        assert server.socket_path.exists()
        await server.start()
        await server.stop()


@pytest.mark.parametrize("kind", ["link", "open to others", "file"])
async def test_a_runtime_folder_made_by_someone_else_is_refused(tmp_path: Path, short_dir: Path, kind: str) -> None:
    server = EmbeddedServer(BINARY, tmp_path / ("x" * 120), runtime_dir=short_dir)
    planted = server.socket_path.parent
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / server.socket_path.name).write_text("precious")
    match kind:
        case "link":
            planted.symlink_to(elsewhere)
        case "open to others":
            planted.mkdir()
            planted.chmod(0o777)
        case "file":
            planted.touch(mode=0o600)
    with pytest.raises(StoreUnavailable, match=str(planted)):
        await server.start()
    assert (elsewhere / server.socket_path.name).read_text() == "precious"
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.pid


def test_a_runtime_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    foreign = Path("/root")
    if os.geteuid() == 0:
        foreign = tmp_path / "foreign"
        foreign.mkdir(mode=0o700)
        os.chown(foreign, 65534, 65534)
    with pytest.raises(StoreUnavailable, match="other users"):
        claim_socket(foreign / "redis.sock", tmp_path)


async def test_a_stale_socket_is_replaced(server: EmbeddedServer) -> None:
    server.folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(server.socket_path))
    await server.start()
    async with client_of(server) as client:
        assert await client.ping()


async def test_what_is_no_socket_is_not_removed(server: EmbeddedServer) -> None:
    server.folder.mkdir(parents=True)
    server.socket_path.write_text("precious")
    with pytest.raises(StoreUnavailable, match="not a socket"):
        await server.start()
    assert server.socket_path.read_text() == "precious"


async def test_start_waits_until_the_data_is_loaded(server: EmbeddedServer) -> None:
    await server.start()
    async with client_of(server) as client:
        for first in range(0, 400_000, 50_000):
            script = "for i = ARGV[1], ARGV[1] + 49999 do redis.call('SET', 'key:' .. i, i) end"
            await client.eval(script, 0, str(first))
    await server.stop()
    await server.start()
    async with client_of(server) as client:
        assert await client.dbsize() == 400_000


async def test_a_failed_start_shows_the_log_and_lets_go_of_the_folder(server: EmbeddedServer) -> None:
    await server.start()
    async with client_of(server) as client:
        await client.set("key", "value")
    await server.stop()
    [increments] = (server.folder / "appendonlydir").glob("*.incr.aof")
    whole = increments.read_bytes()
    increments.write_bytes(b"nonsense\r\n" + whole)
    with pytest.raises(StoreUnavailable, match="Bad file format") as caught:
        await server.start()
    assert "exited with 1" in caught.value.message
    assert "bye bye" not in caught.value.message, "lines of the run before are shown"
    increments.write_bytes(whole)
    await server.start()
    async with client_of(server) as client:
        assert await client.get("key") == b"value"


async def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    never_ready = tmp_path / "never-ready"
    never_ready.write_text("#!/bin/sh\nexec sleep 3600\n")
    never_ready.chmod(0o755)
    server = EmbeddedServer(replace(BINARY, path=never_ready), tmp_path, start_deadline_s=0.1)
    with pytest.raises(StoreUnavailable, match=r"not ready after 0\.1 s"):
        await server.start()
    [_, server_pid] = (server.folder / "lock").read_text().split()
    assert not runs(int(server_pid))


async def test_a_cancelled_start_leaves_nothing_running(server: EmbeddedServer) -> None:
    starting = asyncio.create_task(server.start())
    lock = server.folder / "lock"
    while not lock.exists() or len(lock.read_text().split()) < 2:
        assert not starting.done()
        await asyncio.sleep(0)
    server_pid = int(lock.read_text().split()[1])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not runs(server_pid)
    await server.start()


def test_it_is_not_started_from_a_thread_that_may_end_before_cody(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            asyncio.run(EmbeddedServer(BINARY, tmp_path).start())
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught)
    assert list(tmp_path.iterdir()) == []


async def test_a_large_log_is_cut_to_its_end_at_start(server: EmbeddedServer) -> None:
    server.folder.mkdir(parents=True)
    server.log_path.write_bytes(b"old line\n" * (MAX_LOG_BYTES // 9) + b"the last old line\n")
    await server.start()
    kept = server.log_path.read_bytes()
    assert len(kept) < KEPT_LOG_BYTES + 10_000
    assert b"the last old line\n" in kept
    assert b"ready to accept connections" in kept.lower()


async def test_a_server_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    server = EmbeddedServer(BINARY, tmp_path, stop_deadline_s=0.2)
    await server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await server.stop()
    finally:
        if runs(pid):
            os.kill(pid, signal.SIGCONT)
    assert not runs(pid)
    assert not server.socket_path.exists()


def test_the_death_signal_wrapper_starts_nothing_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    sign = tmp_path / "started"
    command = [sys.executable, "-I", "-S", str(DIE_WITH_PARENT), "4194305", "/bin/sh", "-c", f"touch '{sign}'"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is gone" in done.stderr
    assert not sign.exists()
