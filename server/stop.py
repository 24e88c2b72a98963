"""SIGTERM and SIGINT, heard from the first instruction to the last."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Becomes set when the process is told to stop. Hearing it again changes nothing, but for who waits for that.

    Plain signal handlers that are never taken back: those of an event loop end with the loop, and a second Ctrl-C in
    the moment after that would give a traceback and a wrong exit code.
    """

    def __init__(self) -> None:
        self.heard = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._again = asyncio.Event()
        self._starting: asyncio.Task[object] | None = None

    def install(self) -> None:
        """From here on the signals do not end the process by themselves. From the main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def ignore(self) -> None:
        """To be called when all is done: Python drops its handlers before it ends, and a signal would then kill it."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def begin(self) -> None:
        """To be called by the main task: until `started`, a signal cancels it."""
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.current_task()
        if self.heard:
            self._apply()

    def started(self) -> None:
        """From here on a signal is something to `wait` for."""
        self._starting = None

    async def wait(self) -> None:
        await self._event.wait()

    async def wait_again(self) -> None:
        """Until the process is told to stop once more: whoever says it twice does not want to wait."""
        await self._again.wait()

    def stop(self) -> None:
        """What a signal does, from within the loop."""
        self.heard = True
        self._apply()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        first, self.heard = not self.heard, True
        if self._loop is not None and not self._loop.is_closed():
            # Touches nothing here: the handler runs between any two instructions of the main thread.
            self._loop.call_soon_threadsafe(self._apply if first else self._again.set)

    def _apply(self) -> None:
        self._event.set()
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
