"""Real agents behind real guards, on both event loops: they start, they are heard, and nothing outlives them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from harness.process import AgentProcess, AgentStartError, Launch, ProcessExit, boottime_ns, spawn, sweep

AGENTS = Path(__file__).parent / "agents"
ROOT = Path(__file__).resolve().parents[2]
PATH = os.environ["PATH"]
TREE = (sys.executable, str(AGENTS / "tree.py"))
HANG_S = 30.0
FAR = 3600 * 10**9

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on each of the two event loops."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 3 * HANG_S))


@pytest.fixture
def guard_id() -> Iterator[str]:
    """A marker of this test's own; what still carries it at the end failed the test, and is ended."""
    marker = str(uuid.uuid4())
    yield marker
    left = alive(marker)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []


def alive(guard_id: str) -> list[int]:
    """The pids of all processes that were started with this marker and live, by a reading of /proc of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"CODY_GUARD_ID={guard_id}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return found


def state(pid: int) -> str:
    """The kernel's letter: S sleeping, T stopped, Z zombie; empty if there is none."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(HANG_S):
        while not holds():
            await asyncio.sleep(0.005)


class Agent:
    """A spawned agent and all that it wrote."""

    def __init__(self, guard_id: str) -> None:
        self.guard_id = guard_id
        self.stdout, self.stderr = bytearray(), bytearray()
        self.process: AgentProcess

    async def start(
        self,
        *argv: str,
        cwd: Path = Path("/"),
        env: dict[str, str] | None = None,
        stdin: Path = Path(os.devnull),
        grace_s: float = 5.0,
        deadline: tuple[int, int] | None = None,
    ) -> AgentProcess:
        self.process = await spawn(
            Launch(argv, cwd, {"PATH": PATH, **(env or {})}, stdin),
            guard_id=self.guard_id,
            grace_s=grace_s,
            on_stdout=self.stdout.extend,
            on_stderr=self.stderr.extend,
            deadline=deadline,
        )
        return self.process

    async def ready(self) -> None:
        await until(lambda: b"ready\n" in self.stdout)


def test_reads_the_prompt_and_reports_output_and_exit_code(run: Run, guard_id: str, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.md"
    prompt.write_text("do it\n")

    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sh", "-c", "cat; pwd; echo no >&2; exit 3", stdin=prompt, cwd=tmp_path)
        assert await process.wait() == ProcessExit(exit_code=3, signal=None, reason="exited")
        assert agent.stdout.decode() == f"do it\n{tmp_path}\n"
        assert agent.stderr == b"no\n"
        assert state(process.guard_pid) == ""

    run(main())


def test_reports_the_signal_that_ended_the_agent(run: Run, guard_id: str) -> None:
    async def main() -> None:
        process = await Agent(guard_id).start("sh", "-c", "kill -SEGV $$")
        assert await process.wait() == ProcessExit(exit_code=None, signal=signal.SIGSEGV, reason="exited")

    run(main())


def test_the_agent_gets_its_environment_and_nothing_of_ours(run: Run, guard_id: str, tmp_path: Path) -> None:
    """Blocked signals and stray descriptors would be inherited by every command that the agent runs."""

    async def main() -> None:
        agent = Agent(guard_id)
        env = {"CODY_RUN_ID": "r1", "LC_CTYPE": "C.UTF-8", "EMPTY": "", "KEY": "a=b\nc"}
        process = await agent.start(sys.executable, str(AGENTS / "introspect.py"), cwd=tmp_path, env=env)
        await process.wait()
        assert json.loads(agent.stdout) == {
            "cwd": str(tmp_path),
            "env": {"PATH": PATH, "CODY_GUARD_ID": guard_id, **env},
            "fds": [0, 1, 2],
            "leads_session": True,
            "blocked": 0,
        }

    run(main())


def test_no_signal_is_ignored_in_the_agent(run: Run, guard_id: str) -> None:
    """The guard ignores several, and Python SIGPIPE: `yes | head` would not end in an agent that inherited that."""

    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("grep", "^SigIgn:", "/proc/self/status")
        await process.wait()
        ignored = {bit + 1 for bit in range(64) if int(agent.stdout.split()[1], 16) >> bit & 1}
        assert ignored <= {32, 33}, "those two are the C library's own: no caller of it may set them, whoever began it"

    run(main())


def test_the_guard_takes_only_the_markers_of_the_agents_environment(run: Run, guard_id: str) -> None:
    """LD_PRELOAD and the like, meant for the agent, must not change what guards it."""

    async def main() -> None:
        env = {"CODY_RUN_ID": "r1", "CODY_FENCE": "7", "LD_BIND_NOW": "1"}
        process = await Agent(guard_id).start("sleep", "600", env=env)
        guard = Path(f"/proc/{process.guard_pid}/environ").read_text().split("\0")
        assert sorted(filter(None, guard)) == ["CODY_FENCE=7", f"CODY_GUARD_ID={guard_id}", "CODY_RUN_ID=r1"]
        process.stop(0)
        await process.wait()

    run(main())


@pytest.mark.parametrize(
    ("argv", "cwd", "errno", "says"),
    [
        (("no-such-agent",), "/", "ENOENT", f"'no-such-agent' was not found on PATH ({PATH})"),
        (("{tmp}/missing",), "/", "ENOENT", "missing' , or the interpreter".replace(" ,", ",")),
        (("{tmp}/plain.sh",), "/", "EACCES", "is not executable"),
        (("{tmp}/garbage",), "/", "ENOEXEC", "neither a binary for this machine nor a script"),
        (("true",), "{tmp}/gone", "ENOENT", "The working folder {tmp}/gone does not exist"),
        (("true",), "{tmp}/plain.sh", "ENOTDIR", "is not a folder"),
        (("true", "x" * 300_000), "/", "E2BIG", "too long"),
    ],
)
def test_says_why_an_agent_cannot_start(
    run: Run, guard_id: str, tmp_path: Path, argv: tuple[str, ...], cwd: str, errno: str, says: str
) -> None:
    (tmp_path / "plain.sh").write_text("#!/bin/sh\n")
    (tmp_path / "garbage").write_bytes(b"\x7fnot ELF\n")
    (tmp_path / "garbage").chmod(0o755)
    full = [word.replace("{tmp}", str(tmp_path)) for word in argv]
    folder = Path(cwd.replace("{tmp}", str(tmp_path)))

    async def main() -> None:
        await (await Agent(guard_id).start("true")).wait()  # uvloop opens a /dev/null of its own with its first pipe
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.raises(AgentStartError) as caught:
            await Agent(guard_id).start(*full, cwd=folder)
        assert says.replace("{tmp}", str(tmp_path)) in caught.value.message
        assert caught.value.code == "agent_start_failed"
        assert caught.value.details["errno"] == errno
        await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)

    run(main())


@pytest.mark.parametrize(
    ("argv", "env", "stdin", "says"),
    [
        ((), {}, os.devnull, "command is empty"),
        (("true\0",), {}, os.devnull, "NUL"),
        (("true",), {"A=B": "1"}, os.devnull, "'A=B' cannot be the name"),
        (("true",), {"A": "\ud800"}, os.devnull, "not valid text"),
        (("true",), {}, "/no/prompt.md", "/no/prompt.md cannot be read"),
    ],
)
def test_says_what_no_program_can_be_given(
    run: Run, guard_id: str, argv: tuple[str, ...], env: dict[str, str], stdin: str, says: str
) -> None:
    async def main() -> None:
        with pytest.raises(AgentStartError, match=says):
            await Agent(guard_id).start(*argv, env=env, stdin=Path(stdin))

    run(main())


def test_every_byte_of_both_streams_arrives_in_order(run: Run, guard_id: str) -> None:
    size = 5_000_000
    script = (
        "import os, threading\n"
        f"data = bytes(range(256)) * {size // 256}\n"
        "def flood(fd):\n"
        "    at = 0\n"
        "    while at < len(data): at += os.write(fd, data[at:])\n"
        "threads = [threading.Thread(target=flood, args=(fd,)) for fd in (1, 2)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )

    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start(sys.executable, "-c", script)
        assert (await process.wait()).exit_code == 0
        expected = bytes(range(256)) * (size // 256)
        assert bytes(agent.stdout) == expected
        assert bytes(agent.stderr) == expected

    run(main())


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


def test_wait_returns_although_a_stranger_holds_the_agents_output_open(run: Run, guard_id: str) -> None:
    async def main() -> None:
        agent = Agent(guard_id)
        process = await agent.start("sh", "-c", "echo ready; exec sleep 600")
        await agent.ready()
        with open(f"/proc/{process.pid}/fd/1", "wb", buffering=0) as held:
            process.stop(5)
            await until(lambda: state(process.guard_pid) == "")
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
        assert process.pid in alive(guard_id)
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
            process = await Agent(guard_id).start("true")
            assert (await process.wait()).exit_code == 0
            return process.guard_pid

        await one()
        descriptors = len(os.listdir("/proc/self/fd"))
        guards: list[int] = []
        for _ in range(50):
            guards += await asyncio.gather(*(one() for _ in range(4)))
        await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)
        assert [state(pid) for pid in guards if state(pid) == "Z"] == []

    run(main())


async def test_sweep_ends_exactly_what_carries_all_of_the_marker(guard_id: str) -> None:
    def start(fence: str) -> subprocess.Popen[bytes]:
        env = {"PATH": PATH, "CODY_GUARD_ID": guard_id, "CODY_FENCE": fence}
        return subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)

    old, other_old, new = start("1"), start("1"), start("12")
    try:
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
        env = {"PATH": PATH}
        job = {"argv": argv, "guard_id": guard_id, "grace_s": 0.2, "env": env, **task}
        self.popen = subprocess.Popen(
            [sys.executable, str(AGENTS / "supervisor.py"), json.dumps(job)],
            env={**env, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self, key: str) -> Any:
        """The first thing that it says which has this key."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            said = json.loads(line)
            if key in said:
                return said
        raise AssertionError(f"the supervisor ended without saying {key}")

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
    with Supervisor(guard_id, (*TREE, "ignore-term"), deadline_s=[1.5, 1.7]) as supervisor:
        supervisor.hear("stdout")
        supervisor.popen.send_signal(signal.SIGSTOP)
        await until(lambda: not alive(guard_id))
        assert state(supervisor.popen.pid) == "T"
        supervisor.popen.send_signal(signal.SIGCONT)
        assert supervisor.hear("ended")["ended"]["reason"] == "deadline"


async def test_the_agent_is_dead_although_supervisor_and_guard_are_frozen(guard_id: str) -> None:
    with Supervisor(guard_id, (*TREE, "ignore-term"), deadline_s=[1.5, 1.7]) as supervisor:
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
