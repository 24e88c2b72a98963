"""Goals 9 and 10: a turn of codex with and without Cody, a server's start, its size."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.replay.codex_home import write_codex_home
from harness.replay.scenario_file import load_scenario
from harness.replay.server import ReplayServer
from tests.bench.client import Client, received
from tests.bench.figures import Figure, median
from tests.bench.processes import GUARD_MS
from tests.bench.stand import rss_bytes, stand
from tests.harness.replay_codex import run_codex
from tests.server.cody_server import REPOSITORY, launch

STARTS = 5
IDLE_S = 2.0
SCENARIO = "commands"


def _help_ms() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cody.cli", "--help"], cwd=REPOSITORY, check=True, capture_output=True)
    return (time.perf_counter() - began) * 1_000


def cold_start() -> list[Figure]:
    """Goal 10: `cody serve` with a Valkey of its own, each time in a new folder."""
    starts, sizes = [], []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory(prefix="cody-bench-") as folder:
            began = time.perf_counter()
            server = launch(Path(folder), has_archive=False)
            starts.append(time.perf_counter() - began)
            try:
                assert server.url, server.stderr
                time.sleep(IDLE_S)
                sizes.append(rss_bytes(server.process.pid) / (1 << 20))
            finally:
                server.discard()
    return [
        Figure(10, "`cody serve` until its URL, with its own Valkey", median(starts), "s", 1.5),
        Figure(10, "its memory, idle", median(sizes), "MiB", 90),
        Figure(10, "`cody --help`", median([_help_ms() for _ in range(STARTS)]), "ms", 150),
    ]


async def codex_turns(*, quick: bool) -> list[Figure]:
    """Goal 9: the same recorded turn of the real codex, from start to exit, and from turn_started to run_completed."""
    bare: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory(prefix="cody-bench-") as name:
        folder = Path(name)
        async with stand() as made:
            with made.server() as server:
                client = Client(server)
                for number in range(2 if quick else STARTS):
                    async with ReplayServer(load_scenario(SCENARIO), delay_factor=1) as replay:
                        env = write_codex_home(folder / f"bare-home{number}", replay.base_url)
                        workspace = folder / f"bare{number}"
                        workspace.mkdir()
                        began = time.perf_counter()
                        assert (await run_codex(workspace, env, sandbox="workspace-write")).code == 0
                        bare.append((time.perf_counter() - began) * 1_000)
                    async with ReplayServer(load_scenario(SCENARIO), delay_factor=1) as replay:
                        env = write_codex_home(folder / f"home{number}", replay.base_url)
                        workspace = made.folder / f"cody{number}"

                        def turn() -> float:
                            began = time.perf_counter()
                            run_id = client.start(workspace, None, agent="codex", env=env)  # noqa: B023
                            for _ in received(server, run_id):
                                pass
                            return (time.perf_counter() - began) * 1_000

                        ours.append(await asyncio.to_thread(turn))
                client.close()
    wanted = 1.03 * median(bare) + GUARD_MS
    note = f"wanted: 1.03 x bare codex ({median(bare):,.0f} ms) + 40 ms for the guard"
    return [
        Figure(9, "a turn of codex under Cody, POST to the end of its stream", median(ours), "ms", wanted, note=note)
    ]


async def measure(*, quick: bool) -> list[Figure]:
    """Goals 9 and 10."""
    return cold_start() + await codex_turns(quick=quick)
