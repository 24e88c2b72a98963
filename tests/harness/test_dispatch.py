"""Runs over hosts: at most so many at a time, the rest in line; a host that goes hands its runs on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio import Redis

from cody.settings import Settings
from cody.store import keys
from cody.store.reader import BLOCK_MS
from harness.service import RunService
from tests.harness.conftest import Watched, serving
from tests.harness.process.spawned import state
from tests.harness.test_run_control import marked

Eventually = Callable[..., Awaitable[None]]

GATED = """
    print("started", flush=True)
    while not Path("../go").exists(): time.sleep(0.01)
"""


async def watched(service: RunService, request: Any) -> Watched:
    run = Watched(service, (await service.start(request)).run_id)
    run.listen()
    return run


async def test_the_runs_above_the_concurrency_wait_in_line(
    workspace: Any, settings: Settings, redis: Redis, eventually: Eventually
) -> None:
    async with serving(settings.model_copy(update={"concurrency": 2})) as service:
        request = workspace.request(GATED, maxTurns=1)  # no stop file: the epic is the same for all of them
        runs = [await watched(service, request) for _ in range(2)]
        for run in runs:
            await run.until("turn_started")
        runs += [await watched(service, request) for _ in range(3)]

        async def places() -> list[int | None]:
            return [(await service.records.snapshot(run.run_id)).queue_place for run in runs]

        async def three_wait() -> bool:
            return await places() == [None, None, 1, 2, 3]

        await eventually(three_wait)
        # One that waits can be cancelled at once, without a slot.
        await service.control(runs[3].run_id, "cancel", None)
        assert (await runs[3].end()).status == "cancelled"
        assert "turn_started" not in runs[3].types
        # One that is paused gives its place to the next.
        (workspace.path.parent / "go").touch()
        for run in (runs[0], runs[1], runs[2], runs[4]):
            assert (await run.end()).status == "completed"
        assert await redis.zcard(keys.QUEUED) == 0
        assert await redis.zcard(keys.ACTIVE) == 0


async def test_a_paused_run_makes_room_and_waits_for_room_to_go_on(
    workspace: Any, settings: Settings, redis: Redis, eventually: Eventually
) -> None:
    turns = "print('x', flush=True)\n    while not Path(f'../go{TURN}').exists(): time.sleep(0.01)"
    async with serving(settings.model_copy(update={"concurrency": 1})) as service:
        first = await watched(service, workspace.request("\n    " + turns))
        await first.until("turn_started")
        second = await watched(service, workspace.request("\n    " + turns))
        await service.control(first.run_id, "pause", None)
        await first.until("run_pausing")
        (workspace.path.parent / "go1").touch()
        await first.until("run_paused")
        # The second takes the room.
        await second.until("turn_started")
        await service.control(first.run_id, "resume", None)
        await first.until("run_resumed")
        assert first.types.count("turn_started") == 1
        await service.control(second.run_id, "cancel", None)
        await second.end()
        await first.until(lambda events: [e["type"] for e in events].count("turn_started") == 2)
        await service.control(first.run_id, "cancel", None)
        await first.end()


async def test_control_is_waited_for_and_never_asked_for(
    workspace: Any, settings: Settings, redis: Redis, valkey_url: str
) -> None:
    """While a run works, its host looks after the lease, again and again, and has one read open that control will end."""
    async with serving(settings.model_copy(update={"lock_ttl_ms": 9_000})) as service:
        run = await watched(service, workspace.request(GATED))
        await run.until("subprocess_output")
        async with commands(valkey_url) as sent:
            of_lease: list[str] = []
            of_control: list[str] = []
            begun_s = time.monotonic()
            while len(of_lease) < 8:
                command = await anext(sent)
                of_lease += [command] * (keys.lock(run.run_id) in command)
                of_control += [command] * (keys.control(run.run_id) in command)
            # A read is begun anew every 20 s.
            assert len(of_control) <= 1 + (time.monotonic() - begun_s) * 1000 / BLOCK_MS, of_control
            await service.control(run.run_id, "pause", None)
            await run.until("run_pausing")
            await service.control(run.run_id, "cancel", None)
            assert (await run.end()).status == "cancelled"


@asynccontextmanager
async def commands(url: str) -> AsyncIterator[AsyncIterator[str]]:
    """What all clients of this Valkey (on a unix socket) send from now on, a line each; not what scripts then do."""
    reader, writer = await asyncio.open_unix_connection(unquote(urlsplit(url).path), limit=1 << 24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    try:
        yield (line.decode("utf-8", "replace") async for line in reader if b" lua] " not in line)
    finally:
        writer.close()


async def test_a_server_without_slots_only_hands_out(workspace: Any, settings: Settings, redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(serving(settings.model_copy(update={"concurrency": 0})))
        run = await watched(front, workspace.request("STOP.touch()"))
        assert (await front.records.snapshot(run.run_id)).status == "queued"
        other = settings.model_copy(update={"state_dir": settings.state_dir.with_name("other")})
        await stack.enter_async_context(serving(other))
        assert (await run.end()).status == "completed"


def host(settings: Settings, state_dir: Path, **env: str) -> subprocess.Popen[bytes]:
    """A real `cody worker`."""
    assert settings.redis_url is not None
    with log_of(state_dir).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.host", "--state-dir", str(state_dir), "--concurrency", "2"],
            env={
                **os.environ,
                "REDIS_URL": settings.redis_url,
                "CODY_LOCK_TTL_MS": str(settings.lock_ttl_ms),
                "CODY_GRACE_SEC": "0.5",
                "CODY_WORKSPACE_ROOTS": str(state_dir.parent),
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=log,
        )


def log_of(state_dir: Path) -> Path:
    """Where the host with this folder writes what it does."""
    return state_dir.with_name(f"{state_dir.name}.log")


async def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    assert b"working on" in line


def ended(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    try:
        return process.wait(60)
    finally:
        process.kill()
        process.stdout.close()


async def test_a_killed_hosts_run_is_taken_over_under_a_new_fence(
    workspace: Any, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    async with serving(settings.model_copy(update={"concurrency": 0})) as front:
        first = host(settings, tmp_path / "one")
        second: subprocess.Popen[bytes] | None = None
        try:
            await ready(first)
            run = await watched(front, workspace.request("if TURN == 1: time.sleep(600)\nSTOP.touch()"))
            await run.until("turn_started")
            agent = run.of("turn_started")[0]["pid"]
            second = host(settings, tmp_path / "two")
            await ready(second)
            os.kill(first.pid, signal.SIGKILL)
            await asyncio.to_thread(first.wait)
            # Its lease runs out by itself; all of it need not be waited for.
            assert 0 < await redis.pttl(keys.lock(run.run_id)) <= settings.lock_ttl_ms
            await redis.pexpire(keys.lock(run.run_id), 1_000)
            end = await run.end()
            assert end.status == "completed"
            assert end.fence == 2
            (recovered,) = run.of("run_recovered")
            assert recovered["fromWorker"] != recovered["toWorker"]
            assert run.of("turn_interrupted")[0]["reason"] == "worker_lost"
            assert state(agent) in ("", "Z")
            assert marked(run.run_id) == []
        finally:
            for process in (first, second):
                if process is not None:
                    process.terminate()
                    ended(process)


@pytest.mark.parametrize(("mode", "cut_off"), [("finish-turn", []), ("resume", ["shutdown"])])
async def test_a_worker_that_is_told_to_end_hands_its_run_on_at_once(
    workspace: Any,
    settings: Settings,
    redis: Redis,
    tmp_path: Path,
    eventually: Eventually,
    mode: str,
    cut_off: list[str],
) -> None:
    """finish-turn: the turn is made to its end; resume: it is cut off and made again. The next one is another worker's."""
    # No scan, which would find the run too, comes in time.
    settings = settings.model_copy(update={"lock_ttl_ms": 600_000})
    async with serving(settings.model_copy(update={"concurrency": 0})) as front:
        first = host(settings, tmp_path / "one", CODY_ON_SHUTDOWN=mode)
        second: subprocess.Popen[bytes] | None = None
        try:
            await ready(first)
            code = """
                print("started", flush=True)
                while TURN == 1 and not Path("../go").exists(): time.sleep(0.01)
                if TURN == 2: STOP.touch()
            """
            run = await watched(front, workspace.request(code))
            await run.until("subprocess_output")
            second = host(settings, tmp_path / "two")
            await ready(second)
            first.terminate()
            await eventually(lambda: b"host.stopping" in log_of(tmp_path / "one").read_bytes(), deadline_s=60)
            if mode == "resume":
                # Nothing lets the turn end: the worker ends it.
                await run.until("turn_interrupted")
            (workspace.path.parent / "go").touch()
            end = await run.end()
            assert ended(first) == 0
            assert (end.status, end.fence) == ("completed", 2)
            assert [event["reason"] for event in run.of("turn_interrupted")] == cut_off
            assert [event["turn"] for event in run.of("turn_completed")] == ([2] if cut_off else [1, 2])
        finally:
            for process in (first, second):
                if process is not None and process.poll() is None:
                    process.terminate()
                    ended(process)


def test_a_worker_without_redis_refuses_to_start(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    for extra in ({}, {"CODY_EMBEDDED_REDIS": "off"}):
        answer = subprocess.run(
            [sys.executable, "-m", "harness.host", "--state-dir", str(tmp_path / "s")],
            env=env | extra,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert answer.returncode != 0
        assert "REDIS_URL" in answer.stderr
        assert "Traceback" not in answer.stderr
