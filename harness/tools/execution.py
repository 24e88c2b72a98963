"""Running one command for the model: behind a guard, in the sandbox, within its time, with bounded output."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.agent_process import ProcessExit
from harness.process import AgentProcess, Launch, boottime_ns, spawn

NS = 1_000_000_000
NO_INPUT = Path("/dev/null")


@dataclass(frozen=True, slots=True)
class ExecLimits:
    wall_s: float = 120.0
    """What a command gets that asks for nothing."""
    max_wall_s: float = 600.0
    grace_s: float = 2.0
    """Between SIGTERM and SIGKILL."""
    max_output_bytes: int = 64 << 10
    """Kept of stdout and stderr together: the beginning and the end, half each."""
    max_flood_bytes: int = 64 << 20
    """A command that has written more is ended."""


@dataclass(frozen=True, slots=True)
class Executed:
    """How a command ended, and what it wrote: stdout and stderr as they came."""

    end: ProcessExit
    output: bytes
    flooded: bool


class _Kept:
    """The beginning and the end of what was written."""

    def __init__(self, max_bytes: int) -> None:
        self._head_bytes = max_bytes // 2
        self._tail_bytes = max_bytes - self._head_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._tail_bytes :] if len(data) > self._tail_bytes else data
        if len(self._tail) > 2 * self._tail_bytes:
            del self._tail[: -self._tail_bytes]

    def content(self) -> bytes:
        tail = bytes(self._tail[-self._tail_bytes :])
        omitted = self.total - len(self._head) - len(tail)
        middle = b"\n[%d bytes omitted]\n" % omitted if omitted else b""
        return bytes(self._head) + middle + tail


async def execute(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], wall_s: float, limits: ExecLimits
) -> Executed:
    """Run it to its end, its time's end, or its flood's end; no process of it is left. Raises AgentStartError.

    When it is cancelled, the command is ended before it returns.
    """
    kept = _Kept(limits.max_output_bytes)
    flooded = False
    process: AgentProcess | None = None

    def heard(data: bytes) -> None:
        nonlocal flooded
        kept.add(data)
        if kept.total > limits.max_flood_bytes and not flooded:
            flooded = True
            if process is not None:
                process.stop(limits.grace_s)

    now = boottime_ns()
    soft = now + int(min(wall_s, limits.max_wall_s) * NS)
    process = await spawn(
        Launch(tuple(argv), cwd, env, NO_INPUT),
        guard_id=uuid.uuid4().hex,
        grace_s=limits.grace_s,
        on_stdout=heard,
        on_stderr=heard,
        deadline=(soft, soft + int(limits.grace_s * NS)),
    )
    if flooded:
        process.stop(limits.grace_s)
    try:
        end = await process.wait()
    except BaseException:
        process.stop(limits.grace_s)
        await process.wait()
        raise
    return Executed(end, kept.content(), flooded)


def told(executed: Executed, wall_s: float) -> tuple[str, bool]:
    """What the model is told, and whether the command succeeded. Pure."""
    end = executed.end
    if executed.flooded:
        how = "ended by Cody: it wrote too much"
    elif end.reason == "deadline":
        how = f"ended by Cody: it took longer than {wall_s:g} s"
    elif end.reason != "exited":
        how = f"ended by Cody ({end.reason.replace('_', ' ')})"
    elif end.signal is not None:
        how = f"ended by signal {end.signal}"
    else:
        how = f"exit code {end.exit_code}"
    left = f"\n[{len(end.leftovers)} processes that it left behind were ended]" if end.leftovers else ""
    output = executed.output.decode("utf-8", "replace")
    success = end.reason == "exited" and end.exit_code == 0 and not executed.flooded
    return f"{how}{left}\n{output}", success
