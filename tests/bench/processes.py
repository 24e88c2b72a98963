"""Goals 5, 6, 7: starting an agent, an idle run's cost, a signal's way."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import cast

import psutil

from cody.contracts.run_config import RunConfig
from cody.store import leases, runs
from cody.store.clients import blocking_client
from cody.store.leases import Claim
from tests.bench.client import Client, received, until
from tests.bench.figures import Figure, median, quantile
from tests.bench.lines import AGENT, PER_SECOND
from tests.bench.stand import Stand, cpu_s, rss_bytes, stand
from tests.server.cody_server import CodyServer

STARTS = 20
WARM_UPS = 4
IDLE_RUNS = 40
IDLE_S = 10.0
SPELLS = 3
SETTLED_S = 3.0
LEASES = 1_000
GUARD_MS = 40.0


def _echo(fifo: Path) -> list[str]:
    return ["/bin/sh", "-c", f'echo > "{fifo}"']


def _spawned_ms(fifo: Path) -> float:
    """posix_spawn of a shell until its first action."""
    began = time.perf_counter()
    pid = os.posix_spawn("/bin/sh", _echo(fifo), os.environ)
    with fifo.open("rb") as file:
        file.read(1)
    took = time.perf_counter() - began
    os.waitpid(pid, 0)
    return took * 1_000


def _started_ms(client: Client, folder: Path, fifo: Path) -> float:
    """POST of a run until the same action of its agent."""
    began = time.perf_counter()
    run_id = client.start(folder, _echo(fifo))
    with fifo.open("rb") as file:
        file.read(1)
    took = time.perf_counter() - began
    _await_status(client, run_id, "completed")
    return took * 1_000


def _await_status(client: Client, run_id: str, status: str) -> None:
    until(lambda: client.call("GET", f"/api/runs/{run_id}")["status"] == status, f"run {run_id} is {status}")


def _await_pid(client: Client, run_id: str) -> None:
    until(lambda: client.call("GET", f"/api/runs/{run_id}").get("pid"), f"run {run_id} has an agent")


def starts(made: Stand, client: Client) -> list[Figure]:
    """Goal 5."""
    fifo = made.folder / "started"
    os.mkfifo(fifo)
    floor = [_spawned_ms(fifo) for _ in range(STARTS)]
    ours = [_started_ms(client, made.folder / "starts", fifo) for _ in range(STARTS)]
    wanted = 3 * median(floor) + GUARD_MS
    note = f"wanted: 3 x posix_spawn ({median(floor):.1f} ms) + 40 ms for the guard"
    return [Figure(5, "POST -> agent running, p50", median(ours), "ms", wanted, note=note)]


async def idle(made: Stand, client: Client, pid: int) -> list[Figure]:
    """Goal 6."""

    async def connections() -> int:
        return int((await made.redis.info("clients"))["connected_clients"])

    process = psutil.Process(pid)
    # What the first runs make the process load, and the threads and connections that it keeps for all, are no run's own.
    for number in range(WARM_UPS):
        _end_idle(client, _begin_idle(client, made.folder / f"first{number}"))
    before = rss_bytes(pid), process.num_threads(), await connections()
    without_runs = _load(pid)
    ids = _begin_idle(client, made.folder / "idle")
    guards = [one for one in psutil.process_iter(["name"]) if one.info["name"] == "cody-guard"]
    guard_mb = max((one.memory_full_info().uss for one in guards), default=0) / 1e6
    load = max(0.0, _load(pid) - without_runs)
    after = rss_bytes(pid), process.num_threads(), await connections()
    _end_idle(client, ids)
    return [
        Figure(6, "memory of an idle run in the supervisor", (after[0] - before[0]) / 1_024 / IDLE_RUNS, "KiB", 16),
        Figure(
            6,
            "threads of an idle run",
            (after[1] - before[1]) / IDLE_RUNS,
            "threads",
            1 / IDLE_RUNS,
            note="one for all",
        ),
        Figure(6, "connections of an idle run", max(0, after[2] - before[2]) / IDLE_RUNS, "connections", 0),
        Figure(6, "1,000 idle runs", load / IDLE_RUNS * 1_000 * 100, "% of a core", 3, note=f"from {IDLE_RUNS}"),
        Figure(5, "a guard's own memory", guard_mb, "MB", 15),
    ]


def _load(pid: int) -> float:
    """The share of a core that this process uses now: the median of some spells, for one may have another task's end in it."""
    time.sleep(SETTLED_S)
    return median([_load_once(pid) for _ in range(SPELLS)])


def _load_once(pid: int) -> float:
    spent, began = cpu_s(pid), time.perf_counter()
    time.sleep(IDLE_S)
    return (cpu_s(pid) - spent) / (time.perf_counter() - began)


def _begin_idle(client: Client, folder: Path) -> list[str]:
    ids = [client.start(folder / str(number), ["/bin/sleep", "600"]) for number in range(IDLE_RUNS)]
    for run_id in ids:
        _await_pid(client, run_id)
    return ids


def _end_idle(client: Client, ids: list[str]) -> None:
    for run_id in ids:
        client.call("POST", f"/api/runs/{run_id}/cancel")
    for run_id in ids:
        _await_status(client, run_id, "cancelled")


async def renewals(made: Stand) -> list[Figure]:
    """Goal 6, the leases."""
    ids = [str(uuid.uuid4()) for _ in range(LEASES)]
    config = RunConfig(working_dir="/r", agent="command", command=["true"])
    for run_id in ids:
        await runs.create(made.redis, run_id, epic_id="e", config=config, now_ms=1)
        claim = await leases.acquire(made.redis, run_id, worker_id="w", host="h", ttl_ms=600_000)
        assert isinstance(claim, Claim)

    async def renew(some: list[str]) -> None:
        assert not await leases.renew(made.redis, some, worker_id="w", ttl_ms=600_000)

    at_once, one_by_one = [], []
    for _ in range(5):
        began = time.perf_counter()
        await renew(ids)
        at_once.append((time.perf_counter() - began) * 1_000)
    began = time.perf_counter()
    for run_id in ids:
        await renew([run_id])
    one_by_one.append((time.perf_counter() - began) * 1_000)
    return [
        Figure(6, "1,000 leases renewed in one call, against one by one", median(at_once), "ms", 0.1, one_by_one[0])
    ]


async def _xadd_xread_ms(made: Stand, count: int) -> list[float]:
    """XADD until an XREAD that waits for it has it, both by redis-py."""
    reader = blocking_client(made.valkey.url)
    await reader.ping()
    got: list[float] = []
    for _ in range(count):
        waiting = asyncio.ensure_future(cast("Awaitable[object]", reader.xread({"signals": "$"}, block=10_000)))
        await asyncio.sleep(1 / PER_SECOND)
        began = time.perf_counter()
        await made.redis.xadd("signals", {"a": "b"}, maxlen=10)
        await waiting
        got.append((time.perf_counter() - began) * 1_000)
    await reader.aclose()
    return got


async def signals(made: Stand, client: Client, server: CodyServer) -> list[Figure]:
    """Goal 7: cancel until the agent's own handler."""
    floor, ours = await _xadd_xread_ms(made, 100), []
    for number in range(STARTS):
        heard = made.folder / f"heard{number}"
        run_id = client.start(made.folder / "signals", [*AGENT, "signalled", str(heard)])
        _await_line(server, run_id)
        began_ns = time.monotonic_ns()
        client.call("POST", f"/api/runs/{run_id}/cancel")
        until(heard.exists, "the signal's arrival")
        ours.append((int(heard.read_text("ascii")) - began_ns) / 1e6)
        _await_status(client, run_id, "cancelled")
    what = "cancel -> the agent's SIGTERM handler, against XADD -> XREAD"
    return [
        Figure(7, f"{what}, p50", quantile(ours, 0.5), "ms", 3, quantile(floor, 0.5)),
        Figure(7, f"{what}, p99", quantile(ours, 0.99), "ms", 3, quantile(floor, 0.99)),
    ]


def _await_line(server: CodyServer, run_id: str) -> None:
    """A line of the agent has been read: its handler is in place."""
    for _, data in received(server, run_id):
        if b'"name":"mark"' in data:
            return


async def measure(*, quick: bool) -> list[Figure]:
    """Goals 5 to 7."""
    async with stand() as made:
        with made.server(concurrency=IDLE_RUNS) as server:
            client = Client(server)
            figures = (
                starts(made, client)
                + await signals(made, client, server)
                + await idle(made, client, server.process.pid)
            )
            client.close()
        return figures + await renewals(made)
