"""What the person at the terminal wants of the run being watched: Ctrl-C, and the key pressed after it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

Wish = Literal["ask", "detach", "pause", "cancel", "stay"]

KEYS: dict[str, Wish] = {"d": "detach", "p": "pause", "c": "cancel", "\n": "stay", "\r": "stay", "\x1b": "stay"}


class Steering:
    """Turns signals and keys into wishes while its context is open. Without a person, Ctrl-C means detach at once."""

    def __init__(self, wish: Callable[[Wish], None], *, interactive: bool) -> None:
        self._wish = wish
        self._interactive = interactive
        self._asking = False
        self._mode_before: list[Any] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        # The run goes on without us, and the terminal must be left as it was found.
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._wish, "detach")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
        self._stop_asking()

    def _interrupted(self) -> None:
        if self._asking or not self._interactive:
            self._stop_asking()
            self._wish("detach")
            return
        self._asking = True
        fd = sys.stdin.fileno()
        self._mode_before = termios.tcgetattr(fd)
        # One key is enough, it is not shown, and what was typed before the question is no answer to it.
        tty.setcbreak(fd, termios.TCSAFLUSH)
        asyncio.get_running_loop().add_reader(fd, self._key)
        self._wish("ask")

    def _key(self) -> None:
        pressed = os.read(sys.stdin.fileno(), 64).decode(errors="replace")
        # An empty read: the terminal is gone.
        answer: Wish | None = KEYS.get(pressed[:1].lower()) if pressed else "detach"
        if answer is not None:
            self._stop_asking()
            self._wish(answer)

    def _stop_asking(self) -> None:
        if not self._asking:
            return
        self._asking = False
        fd = sys.stdin.fileno()
        asyncio.get_running_loop().remove_reader(fd)
        if self._mode_before is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, self._mode_before)
            self._mode_before = None
