"""A server that nobody needs ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleExit:
    """Calls `leave` once there was neither a connection nor an active run for `idle_s`. One timer, no looking around.

    Runs say nothing when they end, so they are looked at when the timer is set and when it rings: a run seen at either
    starts the wait anew. It is never shorter than `idle_s`, and at most twice that after the last run's end.
    """

    def __init__(self, idle_s: float, *, active_runs: Callable[[], int], leave: Callable[[], None]) -> None:
        self._idle_s = idle_s
        self._active_runs = active_runs
        self._leave = leave
        self._had_runs = False
        self._timer: asyncio.TimerHandle | None = None

    def connections(self, count: int) -> None:
        """So many connections are open now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if count == 0:
            self._wait()

    def _wait(self) -> None:
        self._had_runs = self._active_runs() > 0
        self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._due)

    def _due(self) -> None:
        if self._had_runs or self._active_runs() > 0:
            self._wait()
        else:
            self._leave()
