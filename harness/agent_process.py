"""An agent that runs behind its guard: what it writes, how it is ended, how it ended.

All of it is callbacks on the event loop: an idle agent costs five descriptors, no task and no thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import structlog

from harness.guard_status import (
    EndReason,
    Exited,
    Gone,
    GuardFailed,
    Leftover,
    Leftovers,
    SpawnFailed,
    Started,
    parse_status,
)
from harness.launch import GUARD_ID, Launch, start_error
from harness.pipes import PipeReader, close_when_silent
from harness.sweep import EndedTree, end_orphaned_tree

log = structlog.get_logger(__name__)

REAP_POLL_S = 0.005


@dataclass(frozen=True)
class GuardHandle:
    """A guard that was started: `poll` collects it (its exit code, None while it lives); the rest are our ends."""

    pid: int
    poll: Callable[[], int | None]
    control: int
    status: BinaryIO
    stdout: BinaryIO
    stderr: BinaryIO


@dataclass(frozen=True)
class ProcessExit:
    """How it ended. Exit code and signal are the agent's own; both are None if only a killed guard knew them.

    `leftovers` outlived the agent and were ended; `survivors` could not be ended even by SIGKILL.
    """

    exit_code: int | None
    signal: int | None
    reason: EndReason
    leftovers: tuple[Leftover, ...] = ()
    survivors: tuple[Leftover, ...] = ()


class AgentProcess:
    """A running agent with its guard and its tree. Made by `spawn`; belongs to one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, launch: Launch, guard: GuardHandle, guard_id: str, grace_s: float
    ) -> None:
        self.pid = 0
        self.guard_pid = guard.pid
        self._loop, self._launch, self._guard, self._guard_id, self._grace_s = loop, launch, guard, guard_id, grace_s
        self._control = guard.control
        self._unparsed = b""
        self._failure: SpawnFailed | GuardFailed | None = None
        self._exited = Exited(None, None)
        self._leftovers: tuple[Leftover, ...] = ()
        self._gone: Gone | None = None
        self._guard_ended = self._tree_ended = False
        self._callback_error: Exception | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._status = PipeReader(self._hear, self._advance)
        self._outputs: tuple[PipeReader, ...] = ()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[ProcessExit] = loop.create_future()

    def extend_deadline(self, soft_ns: int, hard_ns: int) -> None:
        """Moves the deadline: the guard sends SIGTERM to the tree at `soft_ns`, SIGKILL at `hard_ns` (CLOCK_BOOTTIME).

        Never blocks, never raises. An extension that is lost, because the guard is frozen and its pipe full, leaves the
        earlier deadline in force.
        """
        self._order(f"deadline {soft_ns} {hard_ns}\n")

    def stop(self, grace_s: float) -> None:
        """Ends the tree: SIGTERM now, SIGKILL after `grace_s`. Never blocks; a second call can shorten the grace."""
        if not self._order(f"stop {grace_s}\n"):
            self._close_control()  # a full pipe: its end says stop too, after what it holds

    async def wait(self) -> ProcessExit:
        """How the agent ended, when all its output was delivered and its tree and its guard are gone.

        Raises what a callback raised. Any number may wait; cancelling it stops nothing.
        """
        ended = await asyncio.shield(self._ended)
        if self._callback_error is not None:
            raise self._callback_error
        return ended

    async def begin(self, on_stdout: Callable[[bytes], None], on_stderr: Callable[[bytes], None]) -> None:
        """Returns when the agent's program runs."""
        stdout = PipeReader(lambda data: self._deliver(on_stdout, data), self._advance)
        stderr = PipeReader(lambda data: self._deliver(on_stderr, data), self._advance)
        self._outputs = (stdout, stderr)
        self._watch_guard()
        try:
            await self._loop.connect_read_pipe(lambda: stdout, self._guard.stdout)
            await self._loop.connect_read_pipe(lambda: stderr, self._guard.stderr)
            await self._loop.connect_read_pipe(lambda: self._status, self._guard.status)
        except BaseException:
            self._close_control()  # nobody would hear the agent: its guard ends it
            raise
        await self._started

    def _order(self, line: str) -> bool:
        """False if the pipe is full; an order to a guard that has ended is done."""
        if self._control >= 0:
            try:
                os.write(self._control, line.encode())  # whole or not at all: shorter than PIPE_BUF
            except BlockingIOError:
                return False
            except BrokenPipeError:
                pass
        return True

    def _close_control(self) -> None:
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def _deliver(self, callback: Callable[[bytes], None], data: bytes) -> None:
        if self._callback_error is None:
            try:
                callback(data)
            except Exception as error:
                # For wait(): raised here it would close the pipe, and codex panics on that.
                self._callback_error = error
                self.stop(self._grace_s)

    def _hear(self, data: bytes) -> None:
        *lines, self._unparsed = (self._unparsed + data).split(b"\n")
        for line in lines:
            match parse_status(line):
                case Started(pid):
                    self.pid = pid
                    self._started.set_result(None)
                case Exited() as exited:
                    self._exited = exited
                case Leftovers(processes):
                    self._leftovers = processes
                case Gone() as gone:
                    self._gone = gone
                case SpawnFailed() | GuardFailed() as failure:
                    self._failure = failure

    def _watch_guard(self) -> None:
        try:
            handle = os.pidfd_open(self.guard_pid)
        except (AttributeError, OSError):  # macOS, an old kernel, no descriptor left
            self._collect_guard()
            return

        def ended() -> None:
            self._loop.remove_reader(handle)
            os.close(handle)
            self._collect_guard()

        self._loop.add_reader(handle, ended)

    def _collect_guard(self) -> None:
        if self._guard.poll() is None:
            self._loop.call_later(REAP_POLL_S, self._collect_guard)
            return
        self._guard_ended = True
        self._close_control()
        close_when_silent(self._loop, [self._status])
        self._advance()

    def _advance(self) -> None:
        """Called at every end of something; the last one resolves `wait`."""
        if not self._guard_ended or not self._status.closed or self._ended.done():
            return
        if not self._tree_ended:
            if self._gone is None and not isinstance(self._failure, SpawnFailed):
                self._recovery = self._recovery or self._loop.create_task(self._recover())
                return
            self._tree_ended = True
            close_when_silent(self._loop, self._outputs)
        if all(output.closed for output in self._outputs):
            self._finish()

    async def _recover(self) -> None:
        """Ends the tree of a guard that was killed: the agent died with it, the rest is found by its marker."""
        tree = EndedTree((), (), None)
        try:
            tree = await end_orphaned_tree({GUARD_ID: self._guard_id}, self.pid)
        except Exception:
            log.exception("guard.sweep_failed", guard_id=self._guard_id)
        if self._exited == Exited(None, None) and tree.agent_status is not None:
            code = os.waitstatus_to_exitcode(tree.agent_status)
            self._exited = Exited(None, -code) if code < 0 else Exited(code, None)
        log.warning(
            "guard.died",
            guard_id=self._guard_id,
            guard_pid=self.guard_pid,
            returncode=self._guard.poll(),
            error=self._failure.message if isinstance(self._failure, GuardFailed) else None,
            killed=[process.pid for process in tree.killed],
            survivors=[process.pid for process in tree.left],
        )
        self._gone = Gone("guard_died", tuple(Leftover(process.pid, process.name) for process in tree.left))
        self._advance()

    def _finish(self) -> None:
        gone = self._gone or Gone("exited", ())
        self._ended.set_result(
            ProcessExit(self._exited.code, self._exited.signal, gone.reason, self._leftovers, gone.survivors)
        )
        if not self._started.done():
            self._started.set_exception(start_error(self._launch, self._failure, gone.reason))
