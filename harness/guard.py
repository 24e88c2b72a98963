"""A small process between the supervisor and one agent, which ends the agent's whole tree when nobody else can.

`main([CONTROL, STATUS, LAUNCH, GRACE_S, GUARD_ID, GROUP])` in a Python of its own; the first three are descriptors, GROUP
is the name of the agent's control group (harness.cgroup). The agent inherits stdin, stdout and stderr untouched: no byte
of output passes through here. Standard library only, and little of it: a guard starts in some 20 ms.

Control pipe, one order a line, applied in their sequence:
    deadline SOFT_NS HARD_NS   CLOCK_BOOTTIME: at SOFT the tree gets SIGTERM, at HARD SIGKILL. A later line replaces it.
                               HARD bounds every other grace too.
    stop GRACE_S               SIGTERM now, SIGKILL after GRACE_S; a second stop can only shorten that.
    (end of file)              The supervisor is gone: stop with the GRACE_S of the start. So does SIGTERM.
Status pipe, one JSON object a line:
    {"event": "started", "pid"}                    the agent's program runs (its exec succeeded)
    {"event": "spawn_failed", "errno", "stage"}    stage is "cwd" or "exec"; the last line
    {"event": "exited", "code", "signal"}          at the agent's own end; one of the two is null
    {"event": "leftovers", "pids", "names"}        what outlives the agent; it is ended: SIGTERM, GRACE_S, SIGKILL
    {"event": "gone", "reason", "pids", "names"}   the last line: nothing is left but these, which SIGKILL could not end
                                                   (another user's, or stuck in the kernel). reason: exited, stopped,
                                                   deadline, supervisor_gone
    {"event": "guard_failed", "message"}           a defect of the guard; the agent dies with it

Linux: the guard is a child subreaper, so every orphan of the tree, setsid or not, becomes its child, and "no child
left" proves that the tree is empty. If the guard is killed, PR_SET_PDEATHSIG kills the agent. If the guard is frozen or
stuck, a kernel timer kills it BACKSTOP_NS after HARD, and so the agent; the rest of such a tree is left to a sweep.
Where it can be had, the agent has a control group of its own, and SIGKILL goes to all of it at once.
macOS: best effort. Only the agent's process group is reached, and a kill -9 of the guard leaves the agent alive.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import sys

from harness.cgroup import Cgroup, own_folder
from harness.guard_clock import NS, KernelClock, boottime_ns
from harness.guard_ladder import Ladder
from harness.process_tree import Process, descendants, kill_marked, send_signal

UNKILLABLE_NS = 5 * NS
BACKSTOP_NS = NS // 4
KILL_ROUND_MS = 5
SECOND_NET_S = 1.0
MAX_REPORTED = 50  # keeps a status line far below a pipe's capacity: a frozen supervisor must not block the guard
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
FOLDER_FLAGS = (
    # O_PATH needs no permission to list: a folder that may only be entered is one that an agent may work in.
    getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
)
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36


def pack_launch(argv: list[bytes], cwd: bytes, env: dict[bytes, bytes]) -> bytes:
    """What the LAUNCH descriptor holds: cwd, number of arguments, arguments, NAME=VALUE..., joined by NUL."""
    return b"\0".join([cwd, str(len(argv)).encode(), *argv, *(name + b"=" + value for name, value in env.items())])


def unpack_launch(packed: bytes) -> tuple[list[str], str, dict[str, str]]:
    """argv, cwd and env; bytes that are no UTF-8 survive (surrogateescape)."""
    cwd, count, *rest = [os.fsdecode(field) for field in packed.split(b"\0")]
    pairs = [entry.partition("=") for entry in rest[int(count) :]]
    return rest[: int(count)], cwd, {name: value for name, _, value in pairs}


def enter(folder: str) -> None:
    """chdir to the real path of a folder: where a link stands on the way by now, it is not followed (ENOTDIR, ELOOP).

    The folder was allowed under this path. chdir of the path as a whole would go wherever its links lead in this moment.
    """
    os.chdir("/")
    for name in filter(None, folder.split("/")):
        below = os.open(name, FOLDER_FLAGS)
        os.fchdir(below)
        os.close(below)


def quote(text: str) -> str:
    """A JSON string, without the 8 ms that importing json takes."""
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\u{ord(c) & 0xFFFF:04x}" for c in text) + '"'


class Guard:
    """The effects: forks the agent, listens, reaps, signals, reports."""

    def __init__(self, control: int, status: int, grace_ns: int, guard_id: str, group: str) -> None:
        self.control, self.status, self.group_name = control, status, group
        self.group: Cgroup | None = None
        self.marker = [f"CODY_GUARD_ID={guard_id}".encode()]
        self.ladder = Ladder(grace_ns)
        self.agent = 0
        self.exec_result = -1
        self.failed = self.exited = self.termed = self.leftovers_told = False
        self.kill_since = 0
        self.unread = b""
        self.woken, wake = os.pipe()
        for fd in (control, self.woken, wake):
            os.set_blocking(fd, False)
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        for signum in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.libc = ctypes.CDLL(None)
        self.linux = sys.platform == "linux"
        self.subreaper = self.linux and self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        self.clock = KernelClock(self.libc) if self.linux else None
        if self.linux:
            self.libc.prctl(PR_SET_NAME, b"cody-guard", 0, 0, 0)  # what ps and top show
        self.poll = select.poll()  # not select(): what a busy supervisor passes has numbers above 1023
        for fd in (control, self.woken, self.clock.fd if self.clock else -1):
            if fd >= 0:
                self.poll.register(fd, select.POLLIN)

    def run(self, packed: bytes) -> None:
        # The instant to judge is taken before the orders are read: a freeze in between must not make a deadline pass
        # whose extension waits in the pipe.
        now = boottime_ns()
        self.take_orders()
        if self.ladder.order(now) == "wait":  # else: frozen before the start, and its time is over
            self.start_agent(*unpack_launch(packed))
            while self.reap() and self.act(now):
                self.sleep()
                now = boottime_ns()
                self.take_orders()
        stayed = self.leave_no_group()
        if self.failed:
            return
        left = self.end_the_rest(stayed) if self.ladder.cause or not self.subreaper else stayed
        self.tell_processes("gone", left, f'"reason": {quote(self.ladder.cause or "exited")}, ')

    def leave_no_group(self) -> list[Process]:
        """The group's folder goes with its last process; gives those that will not end."""
        if self.group is None or self.group.remove():
            return []
        return self.group.end(SECOND_NET_S)[1]  # a SIGKILL just sent needs a moment where the machine is busy

    def end_the_rest(self, stayed: list[Process]) -> list[Process]:
        """The second net: what someone else started for this turn, at(1) or a session bus. Gives what will not end.

        Not after the agent's own clean end: no child is left then, and the scan is not worth it.
        """
        left = stayed + (descendants(os.getpid()) if self.kill_since else [])
        left += kill_marked(self.marker, quiet_s=0, timeout_s=SECOND_NET_S)[1]
        return list({process.pid: process for process in left}.values())

    def start_agent(self, argv: list[str], cwd: str, env: dict[str, str]) -> None:
        guard = os.getpid()
        self.exec_result, report = os.pipe()
        self.group = Cgroup.make(own_folder(), self.group_name) if self.linux else None
        self.agent = os.fork()
        if self.agent == 0:
            self.become_agent(guard, report, argv, cwd, env)
        os.close(report)
        self.poll.register(self.exec_result, select.POLLIN)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)  # else the supervisor would not see the end of the output while the guard lives
        os.close(null)

    def become_agent(self, guard: int, report: int, argv: list[str], cwd: str, env: dict[str, str]) -> None:
        """In the forked child only; never returns."""
        stage = "exec"
        try:
            signal.set_wakeup_fd(-1)
            for signum in (*IGNORED, signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(signum, signal.SIG_DFL)  # an ignored signal would stay ignored in the agent
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()  # an agent that signals its own group must not reach the guard
            if self.linux:
                self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != guard:
                os._exit(127)  # the guard died before the line above could take effect
            if self.group is not None:
                self.group.enter()
            stage = "cwd"
            enter(cwd)
            stage = "exec"
            if self.ladder.order(boottime_ns()) != "wait":
                raise OSError(errno.ETIME, "frozen before the exec")
            os.execvpe(argv[0], argv, env)  # noqa: S606
        except OSError as error:
            os.write(report, f"{error.errno} {stage}".encode())
        finally:
            os._exit(127)

    def take_orders(self) -> None:
        """Obeys everything sent so far: an extension that waited while the guard was frozen counts."""
        try:
            if signal.SIGTERM in os.read(self.woken, 65536):
                self.ladder.stop("stopped", boottime_ns())
        except BlockingIOError:
            pass
        while self.control >= 0:
            try:
                chunk = os.read(self.control, 65536)
            except BlockingIOError:
                return
            *lines, self.unread = (self.unread + chunk).split(b"\n")
            for line in lines:
                self.obey(line.split())
            if not chunk:
                self.poll.unregister(self.control)
                os.close(self.control)
                self.control = -1
                self.ladder.stop("supervisor_gone", boottime_ns())

    def obey(self, words: list[bytes]) -> None:
        match words:
            case [b"deadline", soft, hard]:
                self.ladder.deadline(int(soft), int(hard))
                self.set_backstop(int(hard) + BACKSTOP_NS)
            case [b"stop", grace_s]:
                self.ladder.stop("stopped", boottime_ns(), int(float(grace_s) * NS))

    def reap(self) -> bool:
        """Collects what has ended; says whether a descendant is left. On Linux that is exact: orphans end up here."""
        self.read_exec_result(block=False)
        while not self.failed:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.agent:
                self.agent_exited(os.waitstatus_to_exitcode(status))
        return False

    def agent_exited(self, code: int) -> None:
        self.read_exec_result(block=True)  # so that "started" comes before "exited"
        self.exited = True
        self.ladder.agent_exited(boottime_ns())
        if not self.subreaper:
            self.kill_group()
        if not self.failed:
            how = f'"code": null, "signal": {-code}' if code < 0 else f'"code": {code}, "signal": null'
            self.tell("exited", how)

    def read_exec_result(self, *, block: bool) -> None:
        """End of file on the CLOEXEC pipe: the exec was done. Not waited for: a dead network disk can hang it."""
        if self.exec_result < 0:
            return
        os.set_blocking(self.exec_result, block)
        try:
            failure = os.read(self.exec_result, 100).split()
        except BlockingIOError:
            return
        self.poll.unregister(self.exec_result)
        os.close(self.exec_result)
        self.exec_result = -1
        if failure:
            self.failed = True
            self.tell("spawn_failed", f'"errno": {int(failure[0])}, "stage": {quote(failure[1].decode())}')
        else:
            self.tell("started", f'"pid": {self.agent}')

    def act(self, now: int) -> bool:
        """One step of the ladder; False when SIGKILL was tried for long enough."""
        order = self.ladder.order(now)
        outlived = self.exited and (order == "kill" or self.ladder.settled(now))
        if outlived and not self.leftovers_told and not self.kill_since:
            self.leftovers_told = True
            left = descendants(os.getpid())
            if left:
                self.tell_processes("leftovers", left)
        if order == "term" and not self.termed:
            self.termed = True
            self.signal_tree(signal.SIGTERM, signal.SIGCONT)  # a stopped process takes SIGTERM when it is continued
        if order == "kill":
            if not self.kill_since:
                self.set_backstop(None)  # the guard is not stuck
                self.kill_since = now
            self.signal_tree(signal.SIGKILL)
            return now < self.kill_since + UNKILLABLE_NS
        return True

    def signal_tree(self, *signums: int) -> None:
        if self.group is not None and signal.SIGKILL in signums:
            self.group.kill()
        if not self.exited:  # not reaped either, so the pid is still the agent's
            for signum in signums:
                os.kill(self.agent, signum)  # before the scan, for promptness
            if not self.subreaper and signal.SIGKILL in signums:
                self.kill_group()
        for process in descendants(os.getpid()):
            if process.pid != self.agent:
                send_signal(process, *signums)

    def set_backstop(self, instant: int | None) -> None:
        if self.clock and not self.kill_since:
            self.clock.kill_this_process_at(instant)

    def kill_group(self) -> None:
        try:  # noqa: SIM105  (importing contextlib takes 1.5 ms)
            os.killpg(self.agent, signal.SIGKILL)
        except OSError:
            pass

    def sleep(self) -> None:
        now = boottime_ns()
        instant = self.ladder.next_instant(now)
        if self.kill_since:
            self.poll.poll(KILL_ROUND_MS)  # what is forked during a scan is only found by the next
        elif self.clock and self.clock.fd >= 0:
            self.clock.wake_at(instant)
            self.poll.poll()
        else:
            self.poll.poll(None if instant is None else max(1, min(1000, (instant - now) // 1_000_000)))

    def tell_processes(self, event: str, found: list[Process], fields: str = "") -> None:
        found = found[:MAX_REPORTED]
        names = ", ".join(quote(process.name) for process in found)
        self.tell(event, f'{fields}"pids": {[process.pid for process in found]}, "names": [{names}]')

    def tell(self, event: str, fields: str) -> None:
        try:  # noqa: SIM105
            os.write(self.status, f'{{"event": "{event}", {fields}}}\n'.encode())
        except BrokenPipeError:
            pass  # the supervisor is gone; the control pipe says so too


def main(argv: list[str]) -> None:
    """Guards one agent from its start to the end of its tree; ends this Python process."""
    control, status, launch = (int(fd) for fd in argv[:3])
    for fd in (control, status, launch):
        os.set_inheritable(fd, False)
    with open(launch, "rb") as file:
        packed = file.read()
    guard = Guard(control, status, int(float(argv[3]) * NS), argv[4], argv[5])
    try:
        guard.run(packed)
    except Exception as error:
        guard.tell("guard_failed", f'"message": {quote(repr(error))}')
        raise
    os._exit(0)  # without the interpreter's 5 ms of tidying up: the supervisor is waiting
