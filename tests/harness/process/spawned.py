"""An agent that a test spawned, and looks at processes that do not ask Cody."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.process import AgentProcess, Launch, spawn

AGENTS = Path(__file__).parents[1] / "agents"
ROOT = Path(__file__).resolve().parents[3]
PATH = os.environ["PATH"]
TREE = (sys.executable, str(AGENTS / "tree.py"))
HANG_S = 60.0
FAR = 3600 * 10**9
Run = Callable[[Coroutine[Any, Any, None]], None]


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

    async def deadline(self, soft_ns: int, hard_ns: int) -> None:
        """Sets a deadline; returns when the guard has it."""
        self.process.extend_deadline(soft_ns, hard_ns)
        await until(lambda: not any(fcntl.ioctl(self.process._control, termios.FIONREAD, bytes(4))))

    async def ready(self) -> None:
        await until(lambda: b"ready\n" in self.stdout)
