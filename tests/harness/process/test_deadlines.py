"""An agent is dead when its deadline has passed, whatever happened to its guard."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from harness.process import ProcessExit, boottime_ns
from tests.harness.process.spawned import AGENTS, FAR, TREE, Agent, Run, alive, state, until


def test_a_missed_deadline_ends_the_tree(run: Run, guard_id: str) -> None:
    async def main() -> None:
        now = boottime_ns()
        process = await Agent(guard_id).start("sleep", "600", deadline=(now + 300_000_000, now + FAR))
        assert await process.wait() == ProcessExit(exit_code=None, signal=signal.SIGTERM, reason="deadline")
        assert boottime_ns() >= now + 300_000_000

    run(main())


def test_an_agent_that_ignores_the_soft_deadline_is_dead_at_the_hard_one(
    run: Run, guard_id: str, tmp_path: Path
) -> None:
    """The agent's own record is the oracle: its last sign of life is before the lease could have been given away."""
    beats = tmp_path / "beats"

    async def main() -> None:
        now = boottime_ns()
        soft, hard = now + 500_000_000, now + 1_000_000_000
        agent = Agent(guard_id)
        process = await agent.start(sys.executable, str(AGENTS / "heartbeat.py"), str(beats), deadline=(soft, hard))
        ended = await process.wait()
        assert (ended.signal, ended.reason) == (signal.SIGKILL, "deadline")
        assert soft < int(beats.read_text().splitlines()[-1]) < hard + 500_000_000

    run(main())


def test_an_extended_deadline_keeps_the_agent_alive(run: Run, guard_id: str) -> None:
    async def main() -> None:
        now = boottime_ns()
        soft, hard = now + 400_000_000, now + 500_000_000
        process = await Agent(guard_id).start("sleep", "600", deadline=(soft, hard))
        process.extend_deadline(now + FAR, now + FAR)
        await until(lambda: boottime_ns() > hard + 500_000_000)  # past the backstop too
        assert process.pid in alive(guard_id)
        process.stop(5)
        assert (await process.wait()).reason == "stopped"

    run(main())


def test_an_extension_counts_that_came_while_the_guard_was_frozen(run: Run, guard_id: str) -> None:
    async def main() -> None:
        now = boottime_ns()
        process = await Agent(guard_id).start("sleep", "600", deadline=(now + 400_000_000, now + FAR))
        os.kill(process.guard_pid, signal.SIGSTOP)
        await until(lambda: state(process.guard_pid) == "T")
        process.extend_deadline(now + FAR, now + FAR)
        await until(lambda: boottime_ns() > now + 400_000_000)
        os.kill(process.guard_pid, signal.SIGCONT)
        process.stop(5)
        assert (await process.wait()).reason == "stopped"

    run(main())


def test_a_guard_frozen_past_its_deadline_acts_when_it_is_thawed(run: Run, guard_id: str) -> None:
    async def main() -> None:
        now = boottime_ns()
        process = await Agent(guard_id).start("sleep", "600", deadline=(now + 400_000_000, now + FAR))
        os.kill(process.guard_pid, signal.SIGSTOP)
        await until(lambda: boottime_ns() > now + 400_000_000)
        os.kill(process.guard_pid, signal.SIGCONT)
        assert (await process.wait()).reason == "deadline"

    run(main())


def test_the_agent_of_a_guard_that_stays_frozen_dies_all_the_same(run: Run, guard_id: str) -> None:
    async def main() -> None:
        now = boottime_ns()
        agent = Agent(guard_id)
        process = await agent.start(*TREE, "ignore-term", deadline=(now + 1_000_000_000, now + 1_100_000_000))
        await agent.ready()
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
