"""Starting an agent behind its guard.

The supervisor holds the read ends of the agent's own stdout and stderr; the guard (guard.py) stands beside that stream,
not in it. What lives and ends is in agent_process.py.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from harness.agent_process import AgentProcess, GuardHandle, ProcessExit
from harness.cgroup import group_name
from harness.guard_clock import boottime_ns
from harness.guard_status import Leftover
from harness.launch import AgentStartError, Launch, guard_environment, packed
from harness.sweep import ProcessesLeft, become_subreaper, sweep

__all__ = [
    "AgentProcess",
    "AgentStartError",
    "Launch",
    "Leftover",
    "ProcessExit",
    "ProcessesLeft",
    "become_subreaper",
    "boottime_ns",
    "spawn",
    "sweep",
]

ROOT = str(Path(__file__).resolve().parents[1])
# By -c and import instead of as a script, so that the guard is loaded from its compiled form.
GUARD_COMMAND = (
    sys.executable,
    "-I",
    "-S",
    "-c",
    f"import sys; sys.path.append({ROOT!r}); from harness.guard import main; main(sys.argv[1:])",
)


async def spawn(
    launch: Launch,
    *,
    guard_id: str,
    grace_s: float,
    on_stdout: Callable[[bytes], None],
    on_stderr: Callable[[bytes], None],
    deadline: tuple[int, int] | None = None,
) -> AgentProcess:
    """The agent, running. Its output comes in chunks, at once and in order, by the callbacks on the event loop.

    `deadline` is (soft, hard) in nanoseconds of CLOCK_BOOTTIME, see `AgentProcess.extend_deadline`; None means none.
    `grace_s` is what processes get between SIGTERM and SIGKILL where no call says otherwise: the supervisor died, or
    they outlived the agent. A callback that raises ends the agent, and `wait` raises that error.
    Raises AgentStartError. If it is cancelled, the tree is ended before it returns.
    """
    loop = asyncio.get_running_loop()
    process = AgentProcess(loop, launch, _start_guard(launch, guard_id, grace_s, deadline), guard_id, grace_s)
    begun = loop.create_task(process.begin(on_stdout, on_stderr))
    try:
        await asyncio.shield(begun)
    except asyncio.CancelledError:
        process.stop(grace_s)
        with suppress(AgentStartError):
            await asyncio.shield(begun)
            await process.wait()
        raise
    return process


def _start_guard(launch: Launch, guard_id: str, grace_s: float, deadline: tuple[int, int] | None) -> GuardHandle:
    """Starts the guard; the event loop is held for about a millisecond. Raises AgentStartError."""
    content = packed(launch, guard_id)
    env = guard_environment(launch, guard_id)
    with ExitStack() as ours, ExitStack() as theirs:
        try:
            stdin = theirs.enter_context(open(launch.stdin, "rb", buffering=0))
        except OSError as error:
            raise AgentStartError(f"The agent's input {launch.stdin} cannot be read: {error.strerror}.") from error
        try:
            stdout, stdout_end = _pipe_from(ours, theirs)
            stderr, stderr_end = _pipe_from(ours, theirs)
            status, status_end = _pipe_from(ours, theirs)
            control_end, control = os.pipe()
            theirs.callback(os.close, control_end)
            ours.callback(os.close, control)
            os.set_blocking(control, False)
            if deadline is not None:
                os.write(control, b"deadline %d %d\n" % deadline)  # there before the guard looks: never without one
            spec = theirs.enter_context(_memory_file(content)).fileno()
            popen = subprocess.Popen(
                [*GUARD_COMMAND, *map(str, (control_end, status_end, spec, grace_s)), guard_id, group_name(env)],
                stdin=stdin,
                stdout=stdout_end,
                stderr=stderr_end,
                cwd="/",
                env=env,
                pass_fds=(control_end, status_end, spec),
                start_new_session=True,
            )
        except OSError as error:
            raise AgentStartError(f"No guard can be started for {launch.argv[0]!r}: {error.strerror}.") from error
        ours.pop_all()
    return GuardHandle(popen.pid, popen.poll, control, status, stdout, stderr)


def _pipe_from(ours: ExitStack, theirs: ExitStack) -> tuple[BinaryIO, int]:
    reading, writing = os.pipe()
    theirs.callback(os.close, writing)
    return ours.enter_context(os.fdopen(reading, "rb", buffering=0)), writing


def _memory_file(content: bytes) -> BinaryIO:
    """On no disk where the system allows it: an environment holds keys."""
    if sys.platform == "linux":
        file: BinaryIO = os.fdopen(os.memfd_create("cody-launch"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file
