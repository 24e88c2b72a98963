"""One control group (cgroup v2) for each agent: the kernel's own list of its processes, and one call that kills them all.

What starts processes faster than a scan finds them, and what has left its parents and its environment behind, is in
the list all the same. A group can be had where this process may make a folder beside itself in the hierarchy: as root on
most machines, in a unit or scope of systemd with `Delegate=yes`; in few containers. It limits nothing. Linux 5.14 or
newer (cgroup.kill). The guard imports this at its start: standard library only, and little of it.
"""

from __future__ import annotations

import os
import time

from harness.process_tree import Process, await_end, read_process

PREFIX = "cody."
FIELDS = ("CODY_RUN_ID", "CODY_FENCE", "CODY_GUARD_ID")
"""The variables whose values are a group's name, in this order: a sweep finds it as it finds processes."""
ROUND_S = 0.05
LEFT_S = 60.0
"""Between the making of a group and its first process are milliseconds."""


class Cgroup:
    """The group in `folder`. Its methods never raise OSError: a group that is away holds nothing."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @classmethod
    def make(cls, parent: str | None, name: str, left_s: float = LEFT_S) -> Cgroup | None:
        """A new one below `parent`; None where that is not allowed, or where the kernel can't kill a group.

        What was left empty there for longer than `left_s` is removed.
        """
        if parent is None:
            return None
        group = cls(f"{parent}/{name}")
        try:
            os.mkdir(group.folder)
        except OSError:
            return None
        if os.access(f"{group.folder}/cgroup.kill", os.W_OK):
            _remove_left(parent, group.folder, left_s)
            return group
        group.remove()
        return None

    def enter(self) -> None:
        """This process, and all that it will start, belongs to the group; where that fails, it stays where it was."""
        self._write("cgroup.procs", b"0")

    def kill(self) -> None:
        """SIGKILL to all of them, at one instant: also to what is being forked."""
        self._write("cgroup.kill", b"1")

    def processes(self) -> list[Process]:
        """The living ones, those in groups that the agent itself made included."""
        found = []
        for folder, _, _ in os.walk(self.folder):
            try:
                with open(f"{folder}/cgroup.procs", "rb") as file:
                    pids = [int(word) for word in file.read().split()]
            except OSError:
                continue
            found += [read_process(pid) for pid in pids]
        return [process for process in found if process is not None and not process.zombie]

    def end(self, timeout_s: float) -> tuple[list[Process], list[Process]]:
        """Kills and removes it; blocks. Gives (what was killed, what is still there)."""
        killed: dict[tuple[int, int], Process] = {}
        give_up_at = time.monotonic() + timeout_s
        while True:
            found = self.processes()
            if not found and self.remove():
                return list(killed.values()), []
            if time.monotonic() >= give_up_at:
                left = {(process.pid, process.started) for process in found}
                return [process for key, process in killed.items() if key not in left], found
            killed.update({(process.pid, process.started): process for process in found})
            self.kill()
            if found:
                await_end(found, min(1.0, max(0.0, give_up_at - time.monotonic())))
            else:
                time.sleep(ROUND_S)  # what the list no longer shows is still on its way out

    def remove(self) -> bool:
        """Whether it is away now; False while a process is in it."""
        for folder, _, _ in os.walk(self.folder, topdown=False):
            try:  # noqa: SIM105  (importing contextlib takes 1.5 ms)
                os.rmdir(folder)
            except OSError:
                pass
        return not os.path.isdir(self.folder)

    def _write(self, name: str, data: bytes) -> None:
        try:
            file = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.write(file, data)
        except OSError:
            pass
        finally:
            os.close(file)


def _remove_left(parent: str, newest: str, left_s: float) -> None:
    """Groups without a process, whose guard and supervisor were killed; one that was just made is left to its maker."""
    try:
        now = os.stat(newest).st_ctime
        for entry in os.scandir(parent):
            if entry.name.startswith(PREFIX) and entry.stat().st_ctime < now - left_s:
                Cgroup(entry.path).remove()
    except OSError:
        pass


def group_name(env: dict[str, str]) -> str:
    """The name of the group of an agent with these markers; what a name can't hold is replaced."""
    return PREFIX + ".".join(_field(env.get(name, "")) for name in FIELDS)


def own_folder() -> str | None:
    """Where this process is in the cgroup v2 hierarchy; None where there is none, or it is not to be seen."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read()
        with open("/proc/self/cgroup", "rb") as file:
            groups = file.read()
    except OSError:
        return None
    return folder_in(mounts, groups)


def may_make(parent: str) -> bool:
    """Whether groups may be made and entered there, by the rights; nothing is made."""
    return os.access(parent, os.W_OK | os.X_OK) and os.access(f"{parent}/cgroup.procs", os.W_OK)


def folder_in(mounts: bytes, groups: bytes) -> str | None:
    """The folder that /proc/PID/mountinfo and /proc/PID/cgroup (cgroups(7)) tell of. Pure."""
    place = _mount(mounts)
    own = next((line[len(b"0::") :] for line in groups.split(b"\n") if line.startswith(b"0::/")), None)
    if place is None or own is None:
        return None
    root, point = place
    below = b"" if root == b"/" else root
    if own != below and not own.startswith(below + b"/"):
        return None  # above what is mounted here
    return os.fsdecode(point + own[len(below) :].rstrip(b"/"))


def end_groups(marker: dict[str, str], timeout_s: float) -> tuple[list[Process], list[Process]]:
    """Ends the groups of all agents with this marker, wherever in the hierarchy; as `Cgroup.end`."""
    killed: list[Process] = []
    left: list[Process] = []
    for group in _found(marker):
        ended, staying = group.end(timeout_s)
        killed += ended
        left += staying
    return killed, left


def _found(marker: dict[str, str]) -> list[Cgroup]:
    if not marker.keys() <= set(FIELDS):
        return []
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            place = _mount(file.read())
    except OSError:
        return []
    wanted = [_field(marker[name]) if name in marker else None for name in FIELDS]
    groups = []
    for folder, names, _ in os.walk(os.fsdecode(place[1])) if place else ():
        ours = [name for name in names if name.startswith(PREFIX) and _matches(name, wanted)]
        groups += [Cgroup(f"{folder}/{name}") for name in ours]
    return groups


def _matches(name: str, wanted: list[str | None]) -> bool:
    fields = name[len(PREFIX) :].split(".")
    return len(fields) == len(wanted) and all(want in (None, field) for field, want in zip(fields, wanted, strict=True))


def _field(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in text)


def _mount(mounts: bytes) -> tuple[bytes, bytes] | None:
    """The root within the hierarchy, and where it is mounted (proc_pid_mountinfo(5))."""
    for line in mounts.split(b"\n"):
        before, _, after = line.partition(b" - ")
        fields = before.split()
        if after.startswith(b"cgroup2 ") and len(fields) > 4 and b"\\" not in fields[3] + fields[4]:
            return fields[3], fields[4]
    return None
