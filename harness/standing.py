"""A run's status as its worker knows it: control messages applied in their order, changes tried against the store.

The store has already changed the status when a control message arrives. So a change that the worker wants is made only if
the status still is the one it knows: else a message is on its way, and the worker decides again after applying it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from structlog import get_logger

from cody.contracts.lifecycle import REQUESTED, LifecycleEvent, next_status
from cody.contracts.run import RunStats, RunStatus
from cody.contracts.run_events import RunCancelling, RunPausing, RunResumed
from cody.errors import IllegalTransition
from cody.store.control import ControlMessage
from harness.agents.base import Body
from harness.journal import Journal, Meta

log = get_logger()


@dataclass(slots=True)
class RunState:
    """What the worker knows of its run."""

    run_id: str
    status: RunStatus
    stats: RunStats
    turns_begun: int
    """Turns of any outcome, this one included: the number of the last turn."""
    end_ttl_s: int
    reason: str | None = None
    broken_starts: int = 0
    """How often in a row a turn was cut off by the loss of its worker, its guard or its lease."""


class Standing:
    """The status of one run, and what it waits for. `on_cancel` is called as a cancel is applied; it must not block."""

    def __init__(self, state: RunState, journal: Journal, on_cancel: Callable[[], None]) -> None:
        self._state = state
        self._journal = journal
        self._on_cancel = on_cancel
        self._waiting: deque[ControlMessage] = deque()
        self._in_transition = False
        self._changed = asyncio.Event()
        self._leaving = False

    @property
    def leaving(self) -> bool:
        """The run is to be left as it is, to whoever takes it up again."""
        return self._leaving

    def leave(self) -> None:
        """Every wait ends, and none begins."""
        self._leaving = True
        self._changed.set()

    def control(self, message: ControlMessage) -> None:
        """Apply a control message; each message is given once, in order."""
        self._waiting.append(message)
        if not self._in_transition:
            self._apply_waiting()

    def _apply_waiting(self) -> None:
        while self._waiting:
            message = self._waiting.popleft()
            try:
                target = next_status(self._state.status, REQUESTED[message.action])
            except IllegalTransition as error:
                log.error("control.illegal", run_id=self._state.run_id, message_id=message.id, error=error.message)
                continue
            self._state.status, self._state.reason = target, message.reason
            # In one step: a worker that dies between the two would have the message applied twice.
            self._journal.emit(_requested(message), {"ctlCursor": message.id, "workerStatus": target})
            log.info("run.control", run_id=self._state.run_id, action=message.action, status=target)
            if message.action == "cancel":
                self._on_cancel()
            self._changed.set()

    async def change(
        self, event: LifecycleEvent, bodies: Sequence[Body], fields: Meta, *, end_ttl_s: int | None = None
    ) -> bool:
        """Move to the next status; False when a control message came first, which then is applied."""
        known = self._state.status
        target = next_status(known, event)
        self._in_transition = True
        try:
            changed = await self._journal.transition(
                known, target, bodies, meta={**fields, "workerStatus": target}, end_ttl_s=end_ttl_s
            )
            if changed:
                self._state.status = target
        finally:
            self._in_transition = False
        self._changed.clear()
        self._apply_waiting()
        if not changed and self._state.status == known and not self._leaving:
            # The message that changed the status in the store is on its way to us.
            await self._changed.wait()
        return changed

    async def wait(self, seconds: float | None) -> None:
        """Wait for a control message, at most so long; None = as long as it takes."""
        self._changed.clear()
        if self._leaving:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def done_or_news(self, awaited: Coroutine[None, None, None]) -> None:
        """Wait for what is awaited, or until something happened before; what is awaited is then cancelled."""
        self._changed.clear()
        waiting = asyncio.create_task(awaited)
        news = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({waiting, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, news):
                task.cancel()
            await asyncio.gather(waiting, news, return_exceptions=True)


def _requested(message: ControlMessage) -> Body:
    match message.action:
        case "pause":
            return RunPausing(reason=message.reason or "manual")
        case "resume":
            return RunResumed(reason=message.reason)
        case "cancel":
            return RunCancelling(reason=message.reason or "manual")
