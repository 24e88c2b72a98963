"""The kernel's own list of an agent's processes: who hides from parents and markers is ended all the same.

Whether groups can be had is up to the machine; where they can't, the tests hold what is promised there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from harness.cgroup import Cgroup, folder_in, group_name, may_make, own_folder
from harness.findings import control_group
from harness.process import AgentStartError, sweep
from harness.process_tree import marked
from tests.harness.process.spawned import AGENTS, TREE, Agent, Run, alive, state, until

HIDDEN = (sys.executable, "-I", "-S", str(AGENTS / "hidden.py"))


@pytest.fixture(scope="module")
def grouped() -> bool:
    """Whether this machine lets agents have groups."""
    group = Cgroup.make(own_folder(), group_name({"CODY_GUARD_ID": str(uuid.uuid4())}))
    return group is not None and group.remove()


def group_of(pid: int) -> str:
    """Where the process is, in the words of the kernel."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


def folders(guard_id: str) -> list[Path]:
    parent = own_folder()
    return list(Path(parent).glob(f"cody.*{guard_id}")) if parent else []


async def told_pid(agent: Agent) -> int:
    await until(lambda: b"\n" in agent.stdout)
    return int(agent.stdout.split()[0])


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_an_agent_and_its_tree_are_in_a_group_that_goes_with_them(run: Run, guard_id: str, grouped: bool) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*TREE, env={"CODY_RUN_ID": "r1", "CODY_FENCE": "7"})
        await agent.ready()
        name = f"/cody.r1.7.{guard_id}"
        tree = set(alive(guard_id)) - {process.guard_pid}
        assert len(tree) == 4
        assert {group_of(pid).endswith(name) for pid in tree} == {grouped}
        assert group_of(process.guard_pid) == group_of(os.getpid())
        process.stop(5)
        await process.wait()
        assert folders(guard_id) == []

    run(main())


def test_an_agent_that_cannot_start_leaves_no_group(run: Run, guard_id: str) -> None:
    async def main() -> None:
        with pytest.raises(AgentStartError):
            await Agent(guard_id).start("no-such-agent")
        await until(lambda: folders(guard_id) == [])

    run(main())


def test_a_daemon_without_its_environment_ends_with_a_killed_guard(run: Run, guard_id: str, grouped: bool) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(*HIDDEN)
        hidden = await told_pid(agent)
        try:
            await until(lambda: hidden not in alive(guard_id))
            os.kill(process.guard_pid, signal.SIGKILL)
            assert (await process.wait()).reason == "guard_died"
            assert (state(hidden) in ("", "Z")) == grouped
            assert folders(guard_id) == []
        finally:
            end(hidden)

    run(main())


async def test_a_sweep_finds_by_run_and_fence_what_carries_no_marker(guard_id: str, grouped: bool) -> None:
    agent = Agent(guard_id)
    await agent.start(*HIDDEN, env={"CODY_RUN_ID": guard_id, "CODY_FENCE": "1"})
    hidden = await told_pid(agent)
    try:
        await until(lambda: hidden not in alive(guard_id))
        assert hidden not in [process.pid for process in marked([f"CODY_RUN_ID={guard_id}".encode()])]
        assert hidden not in await sweep({"CODY_RUN_ID": guard_id, "CODY_FENCE": "12"})
        assert hidden not in await sweep({"CODY_RUN_ID": guard_id, "CODY_FENCE": "1", "OTHER": "1"})
        assert state(hidden) not in ("", "Z")
        os.kill(agent.process.guard_pid, signal.SIGSTOP)
        assert (hidden in await sweep({"CODY_RUN_ID": guard_id})) == grouped
        assert (state(hidden) in ("", "Z")) == grouped
        await agent.process.wait()
        assert folders(guard_id) == []
    finally:
        end(hidden)


@pytest.mark.parametrize("agent_ends", [False, True])
def test_who_was_put_into_the_group_by_someone_else_ends_with_it(
    run: Run, guard_id: str, grouped: bool, tmp_path: Path, agent_ends: bool
) -> None:
    """No child of the guard, no marker: the list alone tells of it."""
    go = tmp_path / "go"

    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sh", "-c", f"echo ready; while [ ! -e {go} ]; do sleep 0.01; done")
        await agent.ready()
        outsider = subprocess.Popen(["sleep", "600"], env={})
        try:
            for folder in folders(guard_id):
                (folder / "cgroup.procs").write_text(str(outsider.pid))
            if agent_ends:
                go.touch()
            else:
                process.stop(0)
            await process.wait()
            assert folders(guard_id) == []
            if grouped:
                await until(lambda: outsider.poll() == -signal.SIGKILL)
            else:
                assert outsider.poll() is None
        finally:
            outsider.kill()
            outsider.wait()

    run(main())


def test_the_doctor_tells_whether_there_are_groups(grouped: bool) -> None:
    found = control_group()
    assert found.state == "ok"
    assert ("are killed by cgroup v2" in found.found) == grouped
    assert ("Delegate=yes" in found.found) != grouped


async def test_an_empty_group_that_was_left_goes_when_the_next_one_is_made(grouped: bool) -> None:
    parent = Cgroup(f"{own_folder()}/test-{uuid.uuid4()}")
    if not grouped:
        assert Cgroup.make(parent.folder, "cody.left") is None
        return
    os.mkdir(parent.folder)
    living = subprocess.Popen(["sleep", "600"], env={})
    try:
        left, used = (Cgroup.make(parent.folder, name) for name in ("cody.left", "cody.used"))
        assert left is not None
        assert used is not None
        Path(used.folder, "cgroup.procs").write_text(str(living.pid))
        young = Cgroup.make(parent.folder, "cody.young")
        assert young is not None
        assert {"cody.left", "cody.used", "cody.young"} <= set(os.listdir(parent.folder))
        # The kernel's clock for files goes in steps: who is made right after another is not older than it.
        gone = (left.folder, young.folder)
        await until(
            lambda: (
                Cgroup.make(parent.folder, f"cody.{uuid.uuid4()}", left_s=0)
                and not any(os.path.isdir(folder) for folder in gone)
            )
        )
        assert os.path.isdir(used.folder)
    finally:
        living.kill()
        living.wait()
        parent.end(5)


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path) -> None:
    assert Cgroup.make(None, "cody.a") is None
    assert Cgroup.make(str(tmp_path / "away"), "cody.a") is None
    assert Cgroup.make(str(tmp_path), "cody.a") is None, "no control group at all"
    assert list(tmp_path.iterdir()) == []
    assert not may_make(str(tmp_path))


def test_a_group_that_is_away_holds_nothing(tmp_path: Path) -> None:
    group = Cgroup(str(tmp_path / "away"))
    group.enter()
    group.kill()
    assert (group.processes(), group.end(0), group.remove()) == ([], ([], []), True)


@pytest.mark.parametrize(
    ("mount", "own", "folder"),
    [
        ("30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw", "/", "/sys/fs/cgroup"),
        (
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "/user.slice/a.scope",
            "/sys/fs/cgroup/user.slice/a.scope",
        ),
        ("30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw", "/docker/abc/x", "/sys/fs/cgroup/x"),
        ("30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw", "/docker/abcd", None),
        ("30 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu", "/", None),
        ("30 23 0:26 / /mnt/a\\040b rw - cgroup2 cgroup2 rw", "/", None),
        ("", "/", None),
    ],
)
def test_the_place_is_read_from_what_the_kernel_tells(mount: str, own: str, folder: str | None) -> None:
    mounts = f"22 1 8:1 / / rw - ext4 /dev/sda rw\n{mount}\n".encode()
    assert folder_in(mounts, f"4:memory:/elsewhere\n0::{own}\n".encode()) == folder
    assert folder_in(mounts, b"4:memory:/elsewhere\n") is None


def test_a_name_holds_no_separator() -> None:
    env = {"CODY_RUN_ID": "../a.b/c\n", "CODY_GUARD_ID": "ok-1_2", "PATH": "/bin"}
    assert group_name(env) == "cody.___a_b_c_..ok-1_2"
