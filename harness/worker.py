"""The loop of one run: turns, pause, resume, cancel, delay, the end. One worker owns a run, under one fence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from structlog import get_logger

from cody.contracts.lifecycle import LifecycleEvent
from cody.contracts.run import CompletionState, RunError, TurnRecord
from cody.contracts.run_events import (
    CompletionDetected,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunStarted,
)
from cody.errors import CodyError, Fenced
from cody.store import meta
from cody.store.control import ControlMessage
from cody.wall_clock import now_text
from harness.agents.base import Body
from harness.journal import Journal, Meta
from harness.slots import Slot
from harness.standing import RunState, Standing
from harness.turn import BROKEN, InterruptReason, Turn, TurnEnd
from harness.turn_series import TurnSeries
from harness.verdict import (
    RESTART_BUDGET,
    Complete,
    Completion,
    Fail,
    NextTurn,
    Step,
    after_turn,
    defect,
    host_error,
    may_take_turn,
    restart_delay_s,
    restarts_exhausted,
)

log = get_logger()

_DECIDED_BY_A_TURN = frozenset({"running", "pausing"})
"""In these a turn's end may end the run."""


class RunWorker:
    """Drives one run until it has ended, the server shuts down, or another worker took it."""

    def __init__(
        self,
        state: RunState,
        journal: Journal,
        turns: TurnSeries,
        slot: Slot,
        *,
        worker_id: str,
        host: str,
        left: TurnRecord | None = None,
    ) -> None:
        """`left`: the last turn of the worker before us, where it ended by itself. What follows from it may not be done."""
        self.state = state
        self._left = left
        self._slot = slot
        self._worker_id = worker_id
        self._host = host
        self._journal = journal
        self._turns = turns
        self._turn: Turn | None = None
        self._standing = Standing(state, journal, lambda: self._interrupt("cancel"))
        self._last_turn = False

    @property
    def epic_dir(self) -> Path:
        """The epic's folder, all links resolved."""
        return self._turns.epic.epic_dir

    @property
    def turn(self) -> Turn | None:
        """The turn that is being made."""
        return self._turn

    async def run(self) -> None:
        """Work until the run has ended or is left to another worker; never raises but for cancellation."""
        work = asyncio.create_task(self._loop(), name=f"run {self.state.run_id}")
        lost = asyncio.create_task(self._journal.failed())
        try:
            await asyncio.wait({work, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # Fenced, or the record is gone: the agent ends now, nothing more is written.
                log.error("run.lost", run_id=self.state.run_id, error=lost.result().message)
                self.leave("fenced")
            await work
        except CodyError as error:
            log.error("run.abandoned", run_id=self.state.run_id, code=error.code, error=error.message)
        except OSError as error:
            log.error("run.host_failed", run_id=self.state.run_id, error=str(error))
            await self._give_up(host_error(error))
        except Exception as error:
            # A defect of Cody's own ends this run in a known state and no other.
            log.exception("run.crashed", run_id=self.state.run_id)
            await self._give_up(defect(error))
        finally:
            lost.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, lost, return_exceptions=True)
            self._slot.give_back()

    async def _give_up(self, error: RunError) -> None:
        with contextlib.suppress(CodyError):
            while not await self._fail(error):
                if self.state.status == "cancelling":
                    await self._end("cancel_acknowledged", [RunCancelled(reason="error")], {})
                    return

    def leave(self, reason: InterruptReason) -> None:
        """Stop here and leave the run as it is, for whoever takes it up again."""
        self._standing.leave()
        self._interrupt(reason)

    def leave_after_turn(self) -> None:
        """As `leave`, but the turn that runs is made to its end."""
        self._last_turn = True
        if self._turn is None:
            self.leave("shutdown")

    def control(self, message: ControlMessage) -> None:
        """Apply a control message; each message is given once, in the order the store accepted them."""
        self._standing.control(message)

    def _interrupt(self, reason: InterruptReason) -> None:
        if self._turn is not None:
            self._turn.interrupt(reason)

    async def _loop(self) -> None:
        await self._catch_up()
        await self._wait_after_breaks()
        while not self._standing.leaving:
            match self.state.status:
                case "queued" | "running" if not await self._slot_or_news():
                    continue
                case "running" if not await self._lease_or_news():
                    continue
                case "running":
                    await self._take_turn()
                case "pausing":
                    reason = self.state.reason or "manual"
                    await self._standing.change("pause_acknowledged", [RunPaused(reason=reason)], {})
                case "paused":
                    self._slot.give_back()
                    await self._standing.wait(None)
                case "cancelling":
                    await self._end("cancel_acknowledged", [RunCancelled(reason=self.state.reason or "manual")], {})
                case "queued":
                    started = RunStarted(worker_id=self._worker_id, host=self._host, fence=self._journal.fence)
                    await self._standing.change("worker_started", [started], {"startedAt": now_text()})
                case _:
                    return
        await self._flush()

    async def _catch_up(self) -> None:
        """Decide once more what follows from a turn whose worker may have died before it did that.

        A run that was paused since has been decided on: it goes on.
        """
        if self._left is None or self.state.status not in _DECIDED_BY_A_TURN:
            return
        completion, _ = await asyncio.to_thread(self._turns.completion)
        # A cancel may have come meanwhile.
        if self.state.status in _DECIDED_BY_A_TURN and not self._standing.leaving:
            await self._decide(TurnEnd(self.state.stats, completion=completion, error=self._left.error))

    async def _slot_or_news(self) -> bool:
        """True with a slot to work in; False when something happened before one was free, or in the same moment."""
        if self._slot.take_now():
            return True
        before = self.state.status
        await self._standing.done_or_news(self._slot.take())
        return self._slot.held and not self._standing.leaving and self.state.status == before

    async def _lease_or_news(self) -> bool:
        """True when an agent may be started; False when something happened before that was sure.

        After a time without Redis the lease may be anyone's: an agent is started only after the next renewal.
        """
        lease = self._turns.lease
        if not lease.is_fresh:
            await self._standing.done_or_news(lease.settled())
        return lease.is_fresh and not self._standing.leaving and may_take_turn(self.state.status)

    async def _wait_after_breaks(self) -> None:
        """A turn that breaks again and again is tried less and less often."""
        delay_s = restart_delay_s(self.state.broken_starts)
        if delay_s and self.state.status == "running":
            await self._standing.wait(delay_s)

    async def _flush(self) -> None:
        with contextlib.suppress(Fenced):
            await self._journal.flush()

    async def _take_turn(self) -> None:
        number = self.state.turns_begun + 1
        self.state.turns_begun = number
        self._turn = Turn(self._turns, number, self.state.stats)
        try:
            end = await self._turn.run()
        finally:
            self._turn = None
        self.state.stats = end.stats
        if self._last_turn:
            self.leave("shutdown")
        if self.state.status == "cancelling":
            return
        if end.interrupted in BROKEN:
            self._count_breaks(self.state.broken_starts + 1)
            if self.state.broken_starts > RESTART_BUDGET:
                await self._fail(restarts_exhausted(self.state.broken_starts, str(end.interrupted)))
            else:
                await self._wait_after_breaks()
        elif end.interrupted is None:
            self._count_breaks(0)
            await self._go_on(end)

    def _count_breaks(self, count: int) -> None:
        if count != self.state.broken_starts:
            self.state.broken_starts = count
            self._journal.set({"brokenStarts": count or ""})

    async def _go_on(self, end: TurnEnd) -> None:
        if await self._decide(end) and may_take_turn(self.state.status):
            await self._standing.wait(self._turns.config.loop_delay_sec)

    async def _decide(self, end: TurnEnd) -> bool:
        """End the run if that follows from this turn; True when the next turn does."""
        step = after_turn(config=self._turns.config, stats=end.stats, found=end.completion, error=end.error)
        while not await self._try(step):
            # A control message came first: a cancel ends the run instead, after a pause the step still holds.
            if self.state.status == "cancelling" or self._standing.leaving:
                return False
        return isinstance(step, NextTurn)

    async def _try(self, step: Step) -> bool:
        match step:
            case NextTurn():
                return True
            case Complete(completion=completion):
                return await self._complete(completion)
            case Fail(error=error):
                return await self._fail(error)

    async def _complete(self, found: Completion) -> bool:
        state = CompletionState(detected=True, line=found.line, source=found.source)
        bodies: list[Body] = [
            CompletionDetected(source=found.source, line=found.line),
            RunCompleted(source=found.source, line=found.line),
        ]
        return await self._end("run_completed", bodies, meta.completion_fields(state))

    async def _fail(self, error: RunError) -> bool:
        return await self._end("run_failed", [RunFailed(error=error)], meta.error_fields(error))

    async def _end(self, event: LifecycleEvent, bodies: Sequence[Body], fields: Meta) -> bool:
        done = {**fields, "finishedAt": now_text(), "pid": ""}
        ended = await self._standing.change(event, bodies, done, end_ttl_s=self.state.end_ttl_s)
        if ended:
            log.info("run.ended", run_id=self.state.run_id, status=self.state.status)
        return ended
