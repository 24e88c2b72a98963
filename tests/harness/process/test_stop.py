"""A stop ends an agent with its whole tree: politely first, and for certain."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from harness.process import ProcessExit
from tests.harness.process.spawned import HANG_S, PATH, TREE, Agent, Run, alive, state, until


def test_stop_lets_the_agent_end_by_itself_first(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(
            "sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
        )
        await agent.ready()
        process.stop(HANG_S)
        ended = await process.wait()
        assert (ended.exit_code, ended.reason) == (7, "stopped")
        assert agent.stdout == b"ready\nbye\n"

    run(main())


def test_stop_reaches_an_agent_that_is_frozen(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(
            "sh", "-c", "trap 'exit 7' TERM; echo ready; kill -STOP $$; while :; do sleep 0.01; done"
        )
        await until(lambda: state(process.pid) == "T")
        process.stop(HANG_S)
        assert (await process.wait()).exit_code == 7

    run(main())


def test_stop_ends_a_tree_that_ignores_sigterm_daemons_included(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*TREE, "ignore-term")
        await agent.ready()
        assert len(alive(guard_id)) == 5  # the guard, the agent, its three
        process.stop(0.05)
        assert await process.wait() == ProcessExit(exit_code=None, signal=signal.SIGKILL, reason="stopped")
        assert alive(guard_id) == []

    run(main())


def test_a_second_stop_shortens_the_grace(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*TREE, "ignore-term")
        await agent.ready()
        process.stop(3600)
        process.stop(0)
        assert (await process.wait()).signal == signal.SIGKILL

    run(main())


def test_stop_also_ends_what_another_process_started_for_the_turn(run: Run, guard_id: str) -> None:
    async def main() -> None:
        process = await Agent(guard_id).start("sleep", "600")
        outsider = subprocess.Popen(["sleep", "600"], env={"PATH": PATH, "CODY_GUARD_ID": guard_id})
        # Its exec has begun, and may have shown no environment yet.
        await until(lambda: outsider.pid in alive(guard_id))
        process.stop(5)
        await process.wait()
        assert outsider.wait(HANG_S) == -signal.SIGKILL

    run(main())


def test_what_outlives_the_agent_is_named_and_ended(run: Run, guard_id: str, tmp_path: Path) -> None:
    """Also under a name that makes /proc/PID/stat hard to read."""
    daemon = tmp_path / "a) S 1 (b"
    daemon.symlink_to("/bin/sleep")
    script = 'setsid "$0" 600 & until grep -qs "a) S" /proc/$!/comm; do :; done; exit 4'

    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sh", "-c", script, str(daemon))
        ended = await process.wait()
        assert (ended.exit_code, ended.reason) == (4, "exited")
        assert [process.name for process in ended.leftovers] == ["a) S 1 (b"]
        assert alive(guard_id) == []

    run(main())


def test_leftovers_that_ignore_sigterm_are_killed_after_the_grace(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*TREE, "ignore-term", "exit", "0", grace_s=0.05)
        ended = await process.wait()
        assert (ended.exit_code, ended.reason, len(ended.leftovers)) == (0, "exited", 3)
        assert {left.name for left in ended.leftovers} == {Path(sys.executable).name}
        assert alive(guard_id) == []

    run(main())
