"""What a dead or frozen supervisor leaves is ended, and nobody else is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from harness.process import sweep
from tests.harness.process.spawned import AGENTS, PATH, ROOT, TREE, Agent, alive, state, until

FAR_ENOUGH = [8, 8.2]
"""Until this deadline an agent is started and its supervisor frozen, also by a machine that stands still for a moment."""


async def test_sweep_ends_exactly_what_carries_all_of_the_marker(guard_id: str) -> None:
    def start(fence: str) -> subprocess.Popen[bytes]:
        env = {"PATH": PATH, "CODY_GUARD_ID": guard_id, "CODY_FENCE": fence}
        return subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)

    old, other_old, new = start("1"), start("1"), start("12")
    try:
        await until(lambda: {old.pid, other_old.pid, new.pid} <= {*alive(guard_id)})
        assert sorted(await sweep({"CODY_GUARD_ID": guard_id, "CODY_FENCE": "1"})) == sorted([old.pid, other_old.pid])
        assert (old.wait(), other_old.wait()) == (-signal.SIGKILL, -signal.SIGKILL)
        assert new.poll() is None
        assert await sweep({"CODY_GUARD_ID": guard_id, "CODY_FENCE": "2"}) == []
    finally:
        new.kill()
        new.wait()


async def test_sweep_ends_a_frozen_guard_with_its_tree(guard_id: str) -> None:
    agent = Agent(guard_id)
    process = await agent.start(*TREE, "ignore-term", env={"CODY_RUN_ID": guard_id, "CODY_FENCE": "1"})
    await agent.ready()
    os.kill(process.guard_pid, signal.SIGSTOP)
    killed = await sweep({"CODY_RUN_ID": guard_id, "CODY_FENCE": "1"})
    assert process.guard_pid in killed
    assert alive(guard_id) == []
    assert (await process.wait()).reason == "guard_died"


async def test_sweep_refuses_a_marker_that_matches_everything() -> None:
    with pytest.raises(ValueError, match="every process"):
        await sweep({})


class Supervisor:
    """A supervisor in a process of its own (agents/supervisor.py)."""

    def __init__(self, guard_id: str, argv: tuple[str, ...], **task: Any) -> None:
        self.said: list[dict[str, Any]] = []
        env = {"PATH": PATH}
        job = {"argv": argv, "guard_id": guard_id, "grace_s": 0.2, "env": env, **task}
        self.popen = subprocess.Popen(
            [sys.executable, str(AGENTS / "supervisor.py"), json.dumps(job)],
            env={**env, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self, key: str) -> Any:
        """The first thing that it said, or will say, which has this key: in which order it says them is open."""
        assert self.popen.stdout is not None
        while not (found := [said for said in self.said if key in said]):
            line = self.popen.stdout.readline()
            assert line, f"the supervisor ended without saying {key}"
            self.said.append(json.loads(line))
        return found[0]

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.__exit__(None, None, None)


async def test_nothing_survives_a_killed_supervisor(guard_id: str) -> None:
    with Supervisor(guard_id, (*TREE, "ignore-term")) as supervisor:
        supervisor.hear("stdout")
        supervisor.popen.kill()
        await until(lambda: not alive(guard_id))


async def test_a_frozen_supervisors_agent_is_dead_before_it_is_thawed(guard_id: str) -> None:
    with Supervisor(guard_id, (*TREE, "ignore-term"), deadline_s=FAR_ENOUGH) as supervisor:
        supervisor.hear("stdout")
        supervisor.popen.send_signal(signal.SIGSTOP)
        await until(lambda: not alive(guard_id))
        assert state(supervisor.popen.pid) == "T"
        supervisor.popen.send_signal(signal.SIGCONT)
        assert supervisor.hear("ended")["ended"]["reason"] == "deadline"


async def test_the_agent_is_dead_although_supervisor_and_guard_are_frozen(guard_id: str) -> None:
    with Supervisor(guard_id, (*TREE, "ignore-term"), deadline_s=FAR_ENOUGH) as supervisor:
        pids = supervisor.hear("agent")
        supervisor.popen.send_signal(signal.SIGSTOP)
        os.kill(pids["guard"], signal.SIGSTOP)
        await until(lambda: state(pids["agent"]) in ("", "Z"))
        assert state(supervisor.popen.pid) == "T"
        supervisor.popen.send_signal(signal.SIGCONT)
        assert supervisor.hear("ended")["ended"]["reason"] == "guard_died"
        assert alive(guard_id) == []


async def test_a_subreaper_collects_the_orphans_of_a_killed_guard_and_no_one_elses_child(guard_id: str) -> None:
    with Supervisor(guard_id, (*TREE, "ignore-term"), subreaper=True) as supervisor:
        pids = supervisor.hear("agent")
        supervisor.hear("stdout")
        os.kill(pids["guard"], signal.SIGKILL)
        said = supervisor.hear("ended")
        assert (said["ended"]["signal"], said["ended"]["reason"]) == (signal.SIGKILL, "guard_died")
        assert (said["zombies"], said["bystander"]) == (0, 5)
        assert alive(guard_id) == []
