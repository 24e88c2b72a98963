"""Ending processes that have lost their guard: found by what their environment says, not by who their parent is."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import ClassVar

from cody.errors import CodyError
from harness.process_tree import Process, await_end, kill_marked, processes

PR_SET_CHILD_SUBREAPER = 36
REAP_TIMEOUT_S = 1.0
SWEEP_TIMEOUT_S = 10.0  # SIGKILL takes milliseconds, unless the kernel holds the process: a dead network disk


class ProcessesLeft(CodyError):
    """Some processes could not be ended; `details["pids"]` and `details["killed"]` name them and the others."""

    code: ClassVar[str] = "processes_left"


def become_subreaper() -> bool:
    """Makes this process the parent of orphans below it, so that none escapes to init when a guard is killed.

    Process-wide and for good. Orphans that end stay zombies until `reap_adopted`, which AgentProcess calls when its
    guard was killed. False where the system has no such thing (macOS).
    """
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0


async def reap_adopted(pids: Iterable[int]) -> dict[int, int]:
    """Collects orphans that this process has adopted, after a sweep; gives their exit statuses (waitpid's) by pid.

    Never takes an exit code from a Popen: only `pids`, which the caller knows to be none of its own children, and
    processes of a foreign session. A child of our own is in our session or leads one.
    """
    return await asyncio.to_thread(_reap, frozenset(pids))


def _reap(known: frozenset[int]) -> dict[int, int]:
    statuses: dict[int, int] = {}
    give_up_at = time.monotonic() + REAP_TIMEOUT_S
    while (orphans := _orphans(known)) and time.monotonic() < give_up_at:
        await_end(
            orphans, give_up_at - time.monotonic()
        )  # what is about to end has no environment for the sweep to see
        for process in orphans:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                if pid:
                    statuses[pid] = status
    return statuses


def _orphans(known: frozenset[int]) -> list[Process]:
    own_pid, own_session = os.getpid(), os.getsid(0)
    children = [process for process in processes() if process.ppid == own_pid]
    return [child for child in children if child.pid in known or child.session not in (own_session, child.pid)]


async def sweep(marker: Mapping[str, str]) -> list[int]:
    """Kills every process whose environment holds all of `marker`, until none is left; gives their pids.

    For a tree whose guard was killed, and for a restarted supervisor: {"CODY_RUN_ID": ..., "CODY_FENCE": ...} also ends
    a guard that is frozen. Only what this user may see and signal is found. The scan runs off the event loop; a
    cancelled sweep goes on in its thread. Raises ProcessesLeft if SIGKILL did not help, ValueError for an empty marker.
    """
    if not marker:
        raise ValueError("an empty marker would match every process")
    pairs = [os.fsencode(f"{name}={value}") for name, value in marker.items()]
    killed, left = await asyncio.to_thread(kill_marked, pairs, SWEEP_TIMEOUT_S)
    pids = [process.pid for process in killed]
    if left:
        named = ", ".join(f"{process.pid} ({process.name})" for process in left)
        raise ProcessesLeft(
            f"Processes {named} did not end on SIGKILL: see whether their disk hangs, and end them by hand.",
            details={"pids": [process.pid for process in left], "killed": pids},
        )
    return pids
