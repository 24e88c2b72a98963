"""The two limits of a turn: its wall time, and the time without any sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cody.contracts.run import RunError
from cody.contracts.run_config import Budget


@dataclass(frozen=True, slots=True)
class LimitReached:
    name: Literal["maxTurnSec", "maxIdleSec"]
    seconds: float


class TurnLimits:
    """Calls `stop` once when a limit is reached. One timer each; a sign of life only notes the time."""

    def __init__(self, budget: Budget, stop: Callable[[], None]) -> None:
        self.reached: LimitReached | None = None
        self._budget = budget
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._last_active = self._loop.time()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def active(self) -> None:
        """The agent gave a sign of life."""
        self._last_active = self._loop.time()

    def begin(self) -> None:
        """The agent runs."""
        self.active()
        if self._budget.max_turn_sec is not None:
            reached = LimitReached("maxTurnSec", self._budget.max_turn_sec)
            self._timers["turn"] = self._loop.call_later(self._budget.max_turn_sec, self._reach, reached)
        self._watch_idle()

    def end(self) -> None:
        """The agent has ended; repeating it is harmless."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _watch_idle(self) -> None:
        limit_s = self._budget.max_idle_sec
        if limit_s is None:
            return
        due = self._last_active + limit_s
        if self._loop.time() >= due:
            self._reach(LimitReached("maxIdleSec", limit_s))
        else:
            self._timers["idle"] = self._loop.call_at(due, self._watch_idle)

    def _reach(self, reached: LimitReached) -> None:
        if self.reached is None:
            self.reached = reached
            self._stop()


def limit_error(reached: LimitReached) -> RunError:
    """What people are told of it."""
    if reached.name == "maxIdleSec":
        message = (
            f"the agent wrote nothing and changed nothing for {reached.seconds:g} s (budget.maxIdleSec) and was ended"
        )
        return RunError(code="turn_idle", message=message, retryable=True)
    message = f"the turn took longer than {reached.seconds:g} s (budget.maxTurnSec) and was ended"
    return RunError(code="turn_timeout", message=message, retryable=True)
