"""Waiting for an agent, giving up a start, and many of both: nothing is left, and nothing hangs."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from pathlib import Path

import pytest

from harness.process import Launch, spawn
from tests.harness.process.spawned import PATH, Agent, Run, alive, state, until


def test_wait_returns_although_a_stranger_holds_the_agents_output_open(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sh", "-c", "echo ready; exec sleep 600")
        await agent.ready()
        with open(f"/proc/{process.pid}/fd/1", "wb", buffering=0) as held:
            process.stop(5)
            # Without the event loop, which would begin to count the silence of the pipe.
            while state(process.guard_pid) != "Z":
                time.sleep(0.005)
            held.write(b"late\n")
            assert (await process.wait()).reason == "stopped"
            assert agent.stdout == b"ready\nlate\n"

    run(main())


def test_a_callback_that_fails_ends_the_agent_and_is_raised(run: Run, guard_id: str) -> None:
    async def main() -> None:
        def fail(data: bytes) -> None:
            raise OSError("disk full")

        launch = Launch(("yes",), Path("/"), {"PATH": PATH}, Path(os.devnull))
        process = await spawn(launch, guard_id=guard_id, grace_s=5, on_stdout=fail, on_stderr=fail)
        with pytest.raises(OSError, match="disk full"):
            await process.wait()
        assert alive(guard_id) == []

    run(main())


def test_a_cancelled_spawn_leaves_nothing(run: Run, guard_id: str) -> None:
    async def main() -> None:
        spawning = asyncio.create_task(Agent(guard_id).start("sleep", "600"))
        await until(lambda: alive(guard_id))
        spawning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await spawning
        assert alive(guard_id) == []

    run(main())


def test_cancelling_wait_stops_nothing(run: Run, guard_id: str) -> None:
    async def main() -> None:
        process = await Agent(guard_id).start("sleep", "600")
        waiting = asyncio.create_task(process.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: process.pid in alive(guard_id))
        process.stop(5)
        assert (await process.wait()).reason == "stopped"

    run(main())


def test_a_supervisor_with_a_thousand_descriptors_can_spawn(run: Run, guard_id: str) -> None:
    async def main() -> None:
        held = [os.dup(0) for _ in range(1100)]
        try:
            process = await Agent(guard_id).start("true")
            assert (await process.wait()).exit_code == 0
        finally:
            for fd in held:
                os.close(fd)

    run(main())


def test_two_hundred_spawns_leak_no_descriptor_and_no_zombie(run: Run, guard_id: str) -> None:
    async def main() -> None:
        async def one() -> int:
            # Several at a time have the same guard's name here; their control groups must not.
            process = await Agent(guard_id).start("true", env={"CODY_RUN_ID": str(uuid.uuid4())})
            assert (await process.wait()).exit_code == 0
            return process.guard_pid

        await one()
        descriptors = len(os.listdir("/proc/self/fd"))
        guards: list[int] = []
        for _ in range(50):
            guards += await asyncio.gather(*(one() for _ in range(4)))
        await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
        assert [state(pid) for pid in guards if state(pid) == "Z"] == []

    run(main())
