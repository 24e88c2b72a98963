"""Faults of the agent and of the machine under it: what it writes, what it refuses, a full disk, a stepped clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from tests.faults import evidence
from tests.faults.evidence import Event
from tests.faults.machines import Machine, agents, can_isolate, marked
from tests.faults.stage import Measured, Stage, Watched, boottime_ns, leases, settled_orphans, stage

HOSTILE = Path(__file__).with_name("hostile.py")
DAEMON_AGENT = Path(__file__).with_name("daemon_agent.py")
HEAVY_TTL_MS = 15_000
"""On a busy machine 10^6 lines keep the supervisor from renewing a lease of 1.5 s in time."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def hostile(kind: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(HOSTILE), kind]


async def _whole(set_up: Stage, run: Watched) -> Measured:
    """The last line of each turn came, each event once, nothing is left."""
    kept = await set_up.stream(run)
    seen = [event for event in kept if event["type"] == "custom" and event["name"] == "mark"]
    turns = {event["turn"] for event in run.of("turn_started")}
    return Measured(
        orphans=len(await settled_orphans(run.run_id)),
        lost=len(turns - {event["turn"] for event in seen}),
        duplicated=len(seen) - len({event["turn"] for event in seen}),
        gaps=max(evidence.gaps(kept), evidence.gaps(run.events)),
    )


async def _peak_rss(machine: Machine, run: Watched) -> int:
    """The most memory that the supervisor had until the run's end."""
    peak = 0
    while not (run.of("run_completed") or run.of("run_failed")):
        peak = max(peak, psutil.Process(machine.pid).memory_info().rss)
        await asyncio.sleep(0.02)
    return peak


async def line_of_50_mb(seed: int) -> Measured:
    """One line of 50 MB: the supervisor's memory stays small, the line is cut and counted, the next one is whole."""
    async with stage(seed, ttl_ms=HEAVY_TTL_MS) as set_up:
        machine = await set_up.machine("a")
        before = psutil.Process(machine.pid).memory_info().rss
        run = await set_up.run(hostile("long_line"), maxTurns=1)
        async with asyncio.timeout(90):
            peak = await _peak_rss(machine, run)
        assert (await run.end()).status == "completed"
        assert peak - before < 40 << 20, f"{(peak - before) >> 20} MiB more"
        dropped = sum(event["bytes"] for event in run.of("output_dropped"))
        assert dropped > 49 << 20, dropped
        assert (await set_up.front.records.turn(run.run_id, 1)).output_bytes > 50 << 20
        return await _whole(set_up, run)


async def million_lines(seed: int) -> Measured:
    """10^6 lines: few events, every byte in the turn's log, the last line arrives."""
    async with stage(seed, ttl_ms=HEAVY_TTL_MS) as set_up:
        machine = await set_up.machine("a")
        before = psutil.Process(machine.pid).memory_info().rss
        run = await set_up.run(hostile("many_lines"), maxTurns=1)
        async with asyncio.timeout(90):
            peak = await _peak_rss(machine, run)
        assert (await run.end()).status == "completed"
        assert peak - before < 60 << 20, f"{(peak - before) >> 20} MiB more"
        assert len(run.events) < 1_000
        assert len(run.of("turn_started")) == 1
        said = sum(len(event["text"].encode()) + 1 for event in run.of("subprocess_output"))
        dropped = sum(event["bytes"] for event in run.of("output_dropped"))
        assert said + dropped >= 9_000_000, (said, dropped)
        return await _whole(set_up, run)


async def garbage(seed: int) -> Measured:
    """Invalid UTF-8, NUL, half a JSON, NaN, 5,000 levels deep: plain output, nothing more."""
    return await _harmless(seed, "garbage")


async def forged_sentinels(seed: int) -> Measured:
    """Sentinels that call themselves run_completed and the like, SSE framing in the output: kept, without power."""
    return await _harmless(seed, "forged")


async def _harmless(seed: int, kind: str) -> Measured:
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run(hostile(kind), maxTurns=2)
        end = await run.end()
        assert (end.status, end.completion.source, end.stats.turns) == ("completed", "max_turns", 2), end
        assert [event["type"] for event in run.events].count("run_completed") == 1
        return await _whole(set_up, run)


async def stop_file_that_is_none(seed: int) -> Measured:
    """The stop file as a symbolic link, a FIFO, a folder, a socket: refused with a warning, nothing hangs."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        found: list[Measured] = []
        for kind in ("stop_symlink", "stop_fifo", "stop_folder", "stop_socket"):
            run = await set_up.run(hostile(kind), maxTurns=2)
            end = await run.end()
            assert (end.status, end.completion.source) == ("completed", "max_turns"), (kind, end)
            assert any(event["code"] == "stop_file_refused" for event in run.of("warning")), (kind, run.of("warning"))
            found.append(await _whole(set_up, run))
        return _sum(found)


async def sigterm_ignored(seed: int) -> Measured:
    """An agent and its setsid daemon ignore SIGTERM: cancel ends both within the grace."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run([sys.executable, "-I", "-S", str(DAEMON_AGENT), "/nowhere"])
        await run.until(lambda: run.of("subprocess_output"), "the daemon's start")
        assert len(agents(run.run_id)) == 2
        await set_up.jitter()
        await set_up.front.control(run.run_id, "cancel", None)
        end = await run.end()
        assert end.status == "cancelled", end
        kept = await set_up.stream(run)
        return Measured(orphans=len(marked(run.run_id)), gaps=evidence.gaps(kept))


async def daemon_left_behind(seed: int) -> Measured:
    """The agent ends well and leaves a setsid daemon: it is ended, and named in a warning."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        done = set_up.folder / "done0"
        run = await set_up.run([sys.executable, "-I", "-S", str(DAEMON_AGENT), str(done)])
        await run.until(lambda: run.of("subprocess_output"), "the daemon's start")
        end = await run.end()
        assert end.status == "completed", end
        assert any(event["code"] == "leftover_processes" for event in run.of("warning"))
        return Measured(orphans=len(marked(run.run_id)), gaps=evidence.gaps(await set_up.stream(run)))


async def silence(seed: int) -> Measured:
    """An agent that says nothing: budget.maxIdleSec ends the turn and says why."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run(hostile("silence"), budget={"maxIdleSec": 1})
        end = await run.end()
        assert end.error is not None
        assert (end.status, end.error.code) == ("failed", "turn_idle"), end
        return Measured(orphans=len(await settled_orphans(run.run_id)), gaps=evidence.gaps(await set_up.stream(run)))


async def disk_full(seed: int) -> Measured:
    """The state folder on a tmpfs of 1 MiB: the turn goes on, its log says that it is not whole, events all arrive."""
    with contextlib.ExitStack() as stack:
        async with stage(seed, ttl_ms=HEAVY_TTL_MS) as set_up:
            state = set_up.folder / "small"
            state.mkdir()
            stack.enter_context(small_disk(state))
            # In our mount namespace: a machine of its own would not see a mount that is made later.
            machine = await set_up.machine("a", state_dir=state)
            run = await set_up.run(hostile("many_lines"), maxTurns=1)
            end = await run.end()
            assert end.status == "completed", end
            assert any(event["code"] == "turn_log_incomplete" for event in run.of("warning")), run.of("warning")
            first = await _whole(set_up, run)
            # Now not even a prompt can be kept: the run fails and says what to do.
            filler = state / "filler"
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(b"x" * 4_096)
                    file.flush()
            second = await set_up.run(hostile("many_lines"), maxTurns=1)
            failed = await second.end()
            assert failed.error is not None
            assert (failed.status, failed.error.code) == ("failed", "host_io_error"), failed
            await machine.end()
            set_up.machines.remove(machine)
            stack.close()
            return first


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A tmpfs of 1 MiB there; only as root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


async def clock_stepped(seed: int) -> Measured:
    """The supervisor's wall clock jumps an hour ahead, then two back: no lease and no turn is harmed."""
    async with stage(seed, ttl_ms=leases.long_ms) as set_up:
        clock = set_up.folder / "clock"
        clock.write_text("+0", encoding="ascii")
        await set_up.machine(
            "a",
            isolated=False,
            LD_PRELOAD=str(FAKETIME),
            FAKETIME_TIMESTAMP_FILE=str(clock),
            FAKETIME_CACHE_DURATION="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )
        run = await set_up.run()
        await run.marks_of(1)
        fault_ns = boottime_ns()
        for step in ("+3600", "-3600"):
            known = {_hour(event) for event in run.events}
            clock.write_text(step, encoding="ascii")
            await run.until(lambda known=known: _hour(run.events[-1]) not in known, "the clock was stepped")  # type: ignore[misc]
            await set_up.renewals(run, 4)  # more than a lease long, under the new time
            await run.more(40)
        end = await run.end()
        assert (end.status, end.fence, len(run.of("turn_started"))) == ("completed", 1, 1), end
        days = {_hour(event) for event in run.events}
        assert len(days) >= 3, f"the clock was not stepped: {days}"
        return await set_up.measure(run, fault_ns)


def _hour(event: Event) -> str:
    return str(event["ts"])[:13]


def _sum(found: list[Measured]) -> Measured:
    return replace(
        found[0],
        orphans=sum(one.orphans for one in found),
        lost=sum(one.lost for one in found),
        duplicated=sum(one.duplicated for one in found),
        gaps=sum(one.gaps for one in found),
    )


def can_mount() -> bool:
    """Whether a tmpfs can be mounted here."""
    return can_isolate() and os.access("/proc/filesystems", os.R_OK)


def can_step_clock() -> bool:
    """Whether libfaketime is installed (Debian: apt-get install libfaketime)."""
    return FAKETIME.exists()
