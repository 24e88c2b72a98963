"""An agent is dead when its deadline has passed, whatever happened to its guard.

Where something must be done before a deadline passes, the deadline is far enough for a machine that stands still for a
moment, and is set when all is ready.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from cody.settings import Settings
from harness.lease_clock import NS_PER_MS, deadlines
from harness.process import ProcessExit, boottime_ns
from tests.harness.process.spawned import AGENTS, FAR, TREE, Agent, Run, alive, state, until

SOON = 300_000_000
LATER = 3_000_000_000
STEP = 100_000_000
"""An agent that beats every 5 ms and has a beat only after so long did not run in between."""
TTL_MS: int = Settings.model_fields["lock_ttl_ms"].default
MARGIN = TTL_MS * NS_PER_MS - deadlines(0, ttl_ms=TTL_MS, grace_s=0)[1]
"""What lies between the hard deadline and the end of a lease."""


def test_a_missed_deadline_ends_the_tree(run: Run, guard_id: str) -> None:
    async def main() -> None:
        now = boottime_ns()
        process = await Agent(guard_id).start("sleep", "600", deadline=(now + 2 * LATER, now + FAR))
        assert await process.wait() == ProcessExit(exit_code=None, signal=signal.SIGTERM, reason="deadline")
        assert boottime_ns() >= now + 2 * LATER

    run(main())


def test_an_agent_that_ignores_the_soft_deadline_is_dead_at_the_hard_one(
    run: Run, guard_id: str, tmp_path: Path
) -> None:
    """The agent's own record is the oracle: its last sign of life is before the lease could have been given away."""
    beats = tmp_path / "beats"

    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(sys.executable, str(AGENTS / "heartbeat.py"), str(beats))
        await agent.ready()
        now = boottime_ns()
        soft, hard = now + SOON, now + 3 * SOON
        process.extend_deadline(soft, hard)
        ended = await process.wait()
        assert (ended.signal, ended.reason) == (signal.SIGKILL, "deadline")
        assert boottime_ns() >= hard
        told = [int(beat) for beat in beats.read_text().splitlines()]
        # How long it lived on, as far as it ran: where the machine stood still, two beats are far from each other.
        lived_on = sum(min(after - max(before, hard), STEP) for before, after in pairwise(told) if after > hard)
        assert lived_on < MARGIN

    run(main())


def test_an_extended_deadline_keeps_the_agent_alive(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sleep", "600")
        now = boottime_ns()
        soft, hard = now + LATER, now + LATER + 100_000_000
        await agent.deadline(soft, hard)
        process.extend_deadline(now + FAR, now + FAR)
        await until(lambda: boottime_ns() > hard + 500_000_000)  # past the backstop too
        assert process.pid in alive(guard_id)
        process.stop(5)
        assert (await process.wait()).reason == "stopped"

    run(main())


def test_an_extension_counts_that_came_while_the_guard_was_frozen(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sleep", "600")
        now = boottime_ns()
        await agent.deadline(now + LATER, now + FAR)
        os.kill(process.guard_pid, signal.SIGSTOP)
        await until(lambda: state(process.guard_pid) == "T")
        process.extend_deadline(now + FAR, now + FAR)
        await until(lambda: boottime_ns() > now + LATER)
        os.kill(process.guard_pid, signal.SIGCONT)
        process.stop(5)
        assert (await process.wait()).reason == "stopped"

    run(main())


def test_a_guard_frozen_past_its_deadline_acts_when_it_is_thawed(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sleep", "600")
        now = boottime_ns()
        await agent.deadline(now + LATER, now + FAR)
        os.kill(process.guard_pid, signal.SIGSTOP)
        await until(lambda: boottime_ns() > now + LATER)
        os.kill(process.guard_pid, signal.SIGCONT)
        assert (await process.wait()).reason == "deadline"

    run(main())


def test_the_agent_of_a_guard_that_stays_frozen_dies_all_the_same(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*TREE, "ignore-term")
        await agent.ready()
        now = boottime_ns()
        await agent.deadline(now + LATER, now + LATER + 100_000_000)
        os.kill(process.guard_pid, signal.SIGSTOP)
        assert (await process.wait()).reason == "guard_died"
        assert alive(guard_id) == []

    run(main())


def test_a_frozen_guard_never_blocks_the_supervisor(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sleep", "600")
        os.kill(process.guard_pid, signal.SIGSTOP)
        for _ in range(5_000):
            process.extend_deadline(boottime_ns() + FAR, boottime_ns() + FAR)
        with suppress(BlockingIOError):  # the last bytes of room, too few for a deadline
            while True:
                os.write(process._control, b"\n")
        process.stop(5)
        os.kill(process.guard_pid, signal.SIGCONT)
        assert (await process.wait()).reason == "supervisor_gone"
        process.extend_deadline(1, 1)
        process.stop(5)

    run(main())


def test_the_tree_of_a_killed_guard_is_ended(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*TREE, "ignore-term")
        await agent.ready()
        os.kill(process.guard_pid, signal.SIGKILL)
        assert (await process.wait()).reason == "guard_died"
        assert alive(guard_id) == []

    run(main())
