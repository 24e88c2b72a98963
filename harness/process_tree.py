"""Which processes there are, whose children they are, and ending them: /proc and pidfds, standard library only.

The guard imports this at its start, so it imports nothing slow. Without /proc (macOS) no process is found.
"""

from __future__ import annotations

import os
import select
import signal
import time

ROUND_S = 1.0
SCAN_PAUSE_S = 0.02


class Process:
    """One line of /proc/PID/stat (proc_pid_stat(5)); `started` tells it from a later process with the same pid."""

    __slots__ = ("name", "pid", "ppid", "session", "started", "zombie")

    def __init__(self, pid: int, stat: bytes) -> None:
        head, _, tail = stat.rpartition(b")")  # the name may hold spaces and parentheses
        fields = tail.split()
        self.pid = pid
        self.name = head.partition(b"(")[2].decode("ascii", "replace")
        self.zombie = fields[0] in (b"Z", b"X")
        self.ppid, self.session, self.started = int(fields[1]), int(fields[3]), int(fields[19])


def read_process(pid: int) -> Process | None:
    """The process, also as a zombie; None if there is none or it may not be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return Process(pid, file.read())
    except OSError:
        return None


def processes() -> list[Process]:
    """All that this user may see, at about this instant; what forks meanwhile is in the next answer."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    found = [read_process(int(name)) for name in names if name.isdigit()]
    return [process for process in found if process is not None]


def descendants(root: int) -> list[Process]:
    """The living processes below `root`, parents first."""
    children: dict[int, list[Process]] = {}
    for process in processes():
        children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        below = children.pop(queue.pop(0), [])
        found += [process for process in below if not process.zombie]
        queue += [process.pid for process in below]
    return found


def marked(pairs: list[bytes]) -> list[Process]:
    """The living processes that were started with all these NAME=VALUE, but for the caller itself."""
    own_pid = os.getpid()
    return [
        process
        for process in processes()
        if process.pid != own_pid and not process.zombie and _has_environ(process.pid, pairs)
    ]


def _has_environ(pid: int, pairs: list[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read().split(b"\0")
    except OSError:
        return False
    return all(pair in environ for pair in pairs)


def send_signal(process: Process, *signums: int) -> None:
    """Signals this very process, never one that got its pid since it was read. Silent if it ended or is not ours."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:  # no pidfds: before Linux 5.3, or forbidden in this container
        handle = -1
    try:
        now = read_process(process.pid)
        if now is None or now.started != process.started:
            return
        for signum in signums:
            if handle >= 0:
                signal.pidfd_send_signal(handle, signum)
            else:
                os.kill(process.pid, signum)
    except OSError:
        pass
    finally:
        if handle >= 0:
            os.close(handle)


def kill_marked(pairs: list[bytes], *, quiet_s: float, timeout_s: float) -> tuple[list[Process], list[Process]]:
    """SIGKILL to all that is `marked`; blocks. Gives (what was killed, what is still there).

    Returns when scans have found nothing for `quiet_s`: one scan misses what is forked behind its back, and a process
    in the middle of an exec, which has no environment for that moment.
    """
    killed: dict[tuple[int, int], Process] = {}
    give_up_at = time.monotonic() + timeout_s
    quiet_since = 0.0
    while True:
        found = marked(pairs)
        now = time.monotonic()
        if found:
            quiet_since = 0.0
        elif now - (quiet_since := quiet_since or now) >= quiet_s:
            return list(killed.values()), []
        if now >= give_up_at:
            left = {(process.pid, process.started) for process in found}
            return [process for key, process in killed.items() if key not in left], found
        for process in found:
            send_signal(process, signal.SIGKILL)
            killed[process.pid, process.started] = process
        if found:
            await_end(found, min(ROUND_S, give_up_at - now))
        else:
            time.sleep(SCAN_PAUSE_S)


def await_end(found: list[Process], timeout_s: float) -> None:
    """Returns when all have ended (zombies have), or the time is over; blocks."""
    give_up_at = time.monotonic() + timeout_s
    for process in found:
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        except OSError:
            time.sleep(0.01)
            continue
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(max(0.0, give_up_at - time.monotonic()) * 1000)
        finally:
            os.close(handle)
