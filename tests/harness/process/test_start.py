"""An agent behind a real guard, on both event loops: it starts as it was meant to, and is heard."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from harness.process import AgentStartError, ProcessExit
from tests.harness.process.spawned import AGENTS, PATH, Agent, Run, state, until


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
        await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)

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
