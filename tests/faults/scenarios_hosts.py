"""Faults of the processes around an agent: its supervisor, its guard, the agent itself; killed, frozen, both at once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import uuid
from pathlib import Path

from harness.cgroup import Cgroup, group_name, own_folder
from tests.faults import evidence
from tests.faults.machines import Machine, agents, guards, is_running, marked
from tests.faults.stage import Measured, Stage, Watched, boottime_ns, stage, until

DEFAULT_TTL_MS = 15_000
AGENT_START_MS = 5_000
"""From the claim to the agent's first line, on a busy machine."""
DAEMON_AGENT = Path(__file__).with_name("daemon_agent.py")


async def supervisor_killed(seed: int) -> Measured:
    """kill -9 of the supervisor; another machine goes on."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.machine("b")
        await set_up.jitter()
        fault_ns = boottime_ns()
        first.kill()
        await run.marks_of(2)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        return await set_up.measure(run, fault_ns)


async def supervisor_killed_default(seed: int) -> Measured:
    """kill -9 with the default lease: another machine goes on within the lease and a scan (a third of it)."""
    async with stage(seed, ttl_ms=DEFAULT_TTL_MS) as set_up:
        first = await set_up.machine("a", grace_s=5.0)
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.machine("b", grace_s=5.0)
        await set_up.jitter(5.0)
        fault_ns = boottime_ns()
        first.kill()
        await run.marks_of(2)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        found = await set_up.measure(run, fault_ns)
        assert found.takeover_ms is not None
        assert found.takeover_ms < DEFAULT_TTL_MS * 4 / 3 + AGENT_START_MS, found
        return found


async def supervisor_restarted(seed: int) -> Measured:
    """kill -9 of the only supervisor; a new one on the same machine goes on."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a", isolated=False)
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        fault_ns = boottime_ns()
        first.kill()
        await set_up.machine("again", isolated=False, state_dir=set_up.folder / "state-a")
        await run.marks_of(2)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        return await set_up.measure(run, fault_ns)


async def supervisor_frozen(seed: int) -> Measured:
    """SIGSTOP of the supervisor, until another machine has worked for longer than a lease; then SIGCONT."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.machine("b")
        await set_up.jitter()
        fault_ns = boottime_ns()
        first.freeze()
        # Its successor has worked for longer than a lease.
        await run.marks_of(2, set_up.marks_in_lease(4 / 3))
        first.thaw()
        await run.marks_of(2, set_up.marks_in_lease(4 / 3) + 30)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        return await set_up.measure(run, fault_ns)


async def supervisor_frozen_alone(seed: int) -> Measured:
    """SIGSTOP of the only supervisor until its lease is over, then SIGCONT: it lost its lease and takes the run up anew."""
    async with stage(seed) as set_up:
        only = await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        fault_ns = boottime_ns()
        only.freeze()
        await until(lambda: not marked(run.run_id), "the guard has ended the agent")
        await until(lambda: set_up.is_free(run), "the lease is over")
        only.thaw()
        await run.marks_of(2)
        end = await run.end()
        assert end.status == "completed", end
        return await set_up.measure(run, fault_ns)


async def guard_killed(seed: int) -> Measured:
    """kill -9 of the guard: the agent dies with it, the turn is made again."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        (guard,) = guards(run.run_id)
        fault_ns = boottime_ns()
        os.kill(guard, signal.SIGKILL)
        await run.until(lambda: len(run.of("turn_started")) == 2, "a second turn")
        end = await run.end()
        assert (end.status, [event["reason"] for event in run.of("turn_interrupted")]) == ("completed", ["guard_died"])
        return await set_up.measure(run, fault_ns)


async def guard_frozen_with_supervisor(seed: int) -> Measured:
    """SIGSTOP of supervisor and guard together: the kernel's timer is what is left."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.machine("b")
        await set_up.jitter()
        (guard,) = guards(run.run_id)
        fault_ns = boottime_ns()
        first.freeze(guard)
        await run.marks_of(2, set_up.marks_in_lease(4 / 3))
        first.thaw()
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 2), end
        return await set_up.measure(run, fault_ns)


async def guard_and_supervisor_killed(seed: int) -> Measured:
    """kill -9 of both, with a setsid daemon in the agent's tree: what is left is swept when the run is taken up."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a", isolated=False)
        run = await set_up.run([sys.executable, "-I", "-S", str(DAEMON_AGENT), str(set_up.folder / "done0")])
        await run.until(lambda: run.of("subprocess_output"), "the daemon's pid")
        fault_ns, taken_ns = await _both_killed(set_up, first, run)
        fences = {
            int(pair.partition(b"=")[2])
            for pid in marked(run.run_id)
            for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if pair.startswith(b"CODY_FENCE=")
        }
        assert fences == {2}, fences
        await run.end()
        found = await set_up.measure(run, fault_ns)
        return Measured(found.orphans, found.lost, found.duplicated, found.gaps, 0, (taken_ns - fault_ns) / 1e6)


async def _both_killed(set_up: Stage, first: Machine, run: Watched) -> tuple[int, int]:
    """kill -9 of guard and supervisor, and a second turn on a machine that is started again; the instants of both."""
    (guard,) = guards(run.run_id)
    await set_up.jitter()
    # Awake, it would hear of the first kill, and could be at its work before the second.
    os.kill(guard, signal.SIGSTOP)
    fault_ns = boottime_ns()
    first.kill()
    os.kill(guard, signal.SIGKILL)
    await set_up.machine("again", isolated=False, state_dir=set_up.folder / "state-a")
    await run.until(lambda: len(run.of("turn_started")) == 2, "a second turn")
    return fault_ns, boottime_ns()


def can_have_groups() -> bool:
    """Whether this machine lets agents have control groups."""
    group = Cgroup.make(own_folder(), group_name({"CODY_GUARD_ID": str(uuid.uuid4())}))
    return group is not None and group.remove()


async def hidden_daemon_orphaned(seed: int) -> Measured:
    """kill -9 of both, and a daemon that dropped its environment: its control group is what still tells of it."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a", isolated=False)
        agent = [sys.executable, "-I", "-S", str(DAEMON_AGENT), str(set_up.folder / "done0"), "hidden"]
        run = await set_up.run(agent)

        def daemons() -> list[int]:
            said = " ".join(event["text"] for event in run.of("subprocess_output"))
            return [int(pid) for pid in re.findall(r"hidden daemon (\d+)", said)]

        await run.until(daemons, "the daemon's pid")
        (hidden,) = daemons()
        await until(lambda: hidden not in marked(run.run_id), "the daemon has dropped its environment")
        fault_ns, taken_ns = await _both_killed(set_up, first, run)
        assert not is_running(hidden), "the first turn's daemon lives beside the second turn"
        await run.end()
        found = await set_up.measure(run, fault_ns)
        orphans = found.orphans + sum(map(is_running, daemons()))
        return Measured(orphans, found.lost, found.duplicated, found.gaps, 0, (taken_ns - fault_ns) / 1e6)


async def agent_killed(seed: int) -> Measured:
    """kill -9 of the agent: the turn failed, and says by what."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        await set_up.jitter()
        (agent,) = agents(run.run_id)
        os.kill(agent, signal.SIGKILL)
        end = await run.end()
        assert end.status == "failed"
        assert end.error is not None
        assert "SIGKILL" in end.error.message or "9" in end.error.message, end.error
        return await set_up.measure(run, boottime_ns())


async def crash_loop(seed: int) -> Measured:
    """The guard is killed in every turn: so many restarts, ever later, then the run fails with what was seen."""
    async with stage(seed) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        fault_ns = boottime_ns()
        killed: set[int] = set()

        async def hunt() -> None:
            while True:
                for guard in guards(run.run_id):
                    if guard not in killed and agents(run.run_id):
                        killed.add(guard)
                        os.kill(guard, signal.SIGKILL)
                await asyncio.sleep(0.02)

        hunting = asyncio.create_task(hunt())
        try:
            await run.until(lambda: run.of("run_failed"), "the end of the restart budget", 90)
        finally:
            hunting.cancel()
        end = await run.end()
        assert end.error is not None
        assert end.error.code == "restart_budget_exhausted", end.error
        begins = [life.begin_ns for life in evidence.lifetimes(run.evidence)]
        assert len((await set_up.front.records.turns(run.run_id)).turns) == 6, begins
        return await set_up.measure(run, fault_ns)


async def hosts_end_in_a_row(seed: int) -> Measured:
    """Each worker that takes the run is killed, three times over; the fourth makes it to the end."""
    async with stage(seed) as set_up:
        run = await set_up.run()
        fault_ns = 0
        for number in range(1, 4):
            machine = await set_up.machine(f"m{number}")
            await run.marks_of(number)
            await set_up.jitter()
            fault_ns = boottime_ns()
            machine.kill()
        await set_up.machine("last")
        await run.marks_of(4)
        end = await run.end()
        assert (end.status, end.fence) == ("completed", 4), end
        await until(lambda: not marked(run.run_id), "no process is left")
        return await set_up.measure(run, fault_ns)
