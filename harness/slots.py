"""How many runs of this process may work at once. A run that is paused gives its slot back and asks for one to go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable


class Slots:
    """`total` slots, handed out in the order they were asked for. `on_change` is told of every change of `used`."""

    def __init__(self, total: int, on_change: Callable[[], None] = lambda: None) -> None:
        self.total = total
        self.used = 0
        self._on_change = on_change
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.used >= self.total or self._waiting:
            return False
        self.used += 1
        self._on_change()
        return True

    async def take(self) -> None:
        """Wait for a slot; cancelling the wait gives up the place in the line."""
        if self.take_now():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            else:
                with contextlib.suppress(ValueError):  # passed over by a `give_back` in this very moment
                    self._waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """A slot is free: the next in line gets it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.used -= 1
        self._on_change()


class Slot:
    """One run's claim on a slot; taking or giving back twice changes nothing."""

    def __init__(self, slots: Slots) -> None:
        self.held = False
        self._slots = slots

    def take_now(self) -> bool:
        """Take a slot if that needs no waiting; True when it is held."""
        self.held = self.held or self._slots.take_now()
        return self.held

    async def take(self) -> None:
        """Wait for a slot unless it is held."""
        if not self.held:
            await self._slots.take()
            self.held = True

    def give_back(self) -> None:
        """Give the slot back if it is held."""
        if self.held:
            self.held = False
            self._slots.give_back()
