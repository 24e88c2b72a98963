"""What a guard reports, as values: one status line in, one of the classes below out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

# "guard_died" is never reported: the supervisor finds it out.
EndReason = Literal["exited", "stopped", "deadline", "supervisor_gone", "guard_died"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process as the guard saw it; `name` is the kernel's, at most 15 characters."""

    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class Started:
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    errno: int
    stage: str


@dataclass(frozen=True, slots=True)
class Exited:
    code: int | None
    signal: int | None


@dataclass(frozen=True, slots=True)
class Leftovers:
    processes: tuple[Leftover, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    reason: EndReason
    survivors: tuple[Leftover, ...]


@dataclass(frozen=True, slots=True)
class GuardFailed:
    message: str


GuardStatus = Started | SpawnFailed | Exited | Leftovers | Gone | GuardFailed


def parse_status(line: bytes) -> GuardStatus:
    """The report in one line of the status pipe; the format is guard.py's.

    Raises ValueError for anything else: only a guard of another version can write that.
    """
    status: dict[str, Any] = orjson.loads(line)
    match status:
        case {"event": "started", "pid": pid}:
            return Started(pid)
        case {"event": "spawn_failed", "errno": errno, "stage": stage}:
            return SpawnFailed(errno, stage)
        case {"event": "exited", "code": code, "signal": signum}:
            return Exited(code, signum)
        case {"event": "leftovers", "pids": pids, "names": names}:
            return Leftovers(_processes(pids, names))
        case {"event": "gone", "reason": reason, "pids": pids, "names": names}:
            return Gone(reason, _processes(pids, names))
        case {"event": "guard_failed", "message": message}:
            return GuardFailed(message)
        case _:
            raise ValueError(f"not a guard's status: {status}")


def _processes(pids: list[int], names: list[str]) -> tuple[Leftover, ...]:
    return tuple(Leftover(pid, name) for pid, name in zip(pids, names, strict=True))
