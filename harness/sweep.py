"""Ending processes that have lost their guard: found by their environment and their control group, not by their parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from cody.errors import CodyError
from harness.cgroup import end_groups
from harness.process_tree import Process, await_end, kill_marked, processes

PR_SET_CHILD_SUBREAPER = 36
REAP_TIMEOUT_S = 1.0
SWEEP_QUIET_S = 0.1
SWEEP_TIMEOUT_S = 10.0  # SIGKILL takes milliseconds, unless the kernel holds the process: a dead network disk


class ProcessesLeft(CodyError):
    """Some processes could not be ended; `details["pids"]` and `details["killed"]` name them and the others."""

    code: ClassVar[str] = "processes_left"


def become_subreaper() -> bool:
    """Makes this process the parent of orphans below it, so that none escapes to init when a guard is killed.

    Process-wide and for good. Sweeps find orphans without it too; with it, the exit code of an agent whose guard was
    killed is known, and init is left alone. False where the system has no such thing (macOS).
    """
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0


async def sweep(marker: Mapping[str, str]) -> list[int]:
    """Kills every process whose environment or control group holds all of `marker`, until none is left; gives their pids.

    For a restarted supervisor: {"CODY_RUN_ID": ..., "CODY_FENCE": ...} ends the tree of an older fence, with its guard,
    frozen or not. Only what this user may see and signal is found. The scan runs off the event loop; a cancelled sweep
    goes on in its thread. Raises ProcessesLeft if SIGKILL did not help, ValueError for an empty marker.
    """
    killed, left = await _kill(marker)
    pids = [process.pid for process in killed]
    if left:
        named = ", ".join(f"{process.pid} ({process.name})" for process in left)
        raise ProcessesLeft(
            f"Processes {named} did not end on SIGKILL: see whether their disk hangs, and end them by hand.",
            details={"pids": [process.pid for process in left], "killed": pids},
        )
    return pids


@dataclass(frozen=True)
class EndedTree:
    """What a sweep for a dead guard's tree did; `agent_status` is waitpid's, None if it was not ours to collect."""

    killed: tuple[Process, ...]
    left: tuple[Process, ...]
    agent_status: int | None


async def end_orphaned_tree(marker: Mapping[str, str], agent_pid: int) -> EndedTree:
    """Sweeps what is left of a tree whose guard is dead and collected, and collects the orphans that came here."""
    killed, left = await _kill(marker)
    statuses = await asyncio.to_thread(_reap, agent_pid, killed)
    return EndedTree(tuple(killed), tuple(left), statuses.get(agent_pid))


async def _kill(marker: Mapping[str, str]) -> tuple[list[Process], list[Process]]:
    if not marker:
        raise ValueError("an empty marker would match every process")
    return await asyncio.to_thread(_kill_both, dict(marker))


def _kill_both(marker: dict[str, str]) -> tuple[list[Process], list[Process]]:
    """By the kernel's list, where the agent had a group, and by the environment: each finds what the other misses."""
    killed, left = end_groups(marker, SWEEP_TIMEOUT_S)
    pairs = [os.fsencode(f"{name}={value}") for name, value in marker.items()]
    more, staying = kill_marked(pairs, quiet_s=SWEEP_QUIET_S, timeout_s=SWEEP_TIMEOUT_S)
    return _each_once(killed + more), _each_once(left + staying)


def _each_once(found: list[Process]) -> list[Process]:
    return list({(process.pid, process.started): process for process in found}.values())


def _reap(agent_pid: int, killed: list[Process]) -> dict[int, int]:
    statuses: dict[int, int] = {}
    sessions = {agent_pid, *(process.session for process in killed)}
    give_up_at = time.monotonic() + REAP_TIMEOUT_S
    while orphans := _adopted(sessions):
        await_end(orphans, give_up_at - time.monotonic())  # a process that is about to end has no environment any more
        for process in orphans:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                if pid:
                    statuses[pid] = status
        if time.monotonic() >= give_up_at:
            break
    return statuses


def _adopted(sessions: set[int]) -> list[Process]:
    """Children of this process that it did not start, and so may collect without taking an exit code from a Popen.

    A child of our own is in our session or leads one; so members of other sessions are not ours, nor is anything in the
    `sessions` of the swept tree. An orphan that led a session of its own, and ended unseen, stays a zombie.
    """
    own_pid, own_session = os.getpid(), os.getsid(0)
    children = [process for process in processes() if process.ppid == own_pid and process.session != own_session]
    return [child for child in children if child.session in sessions or child.session != child.pid]
