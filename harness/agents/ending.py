"""How the end of an agent's process is told: its last lines, its signal's name, one shape of message."""

from __future__ import annotations

import re
from collections import deque
from signal import Signals

from cody.contracts.run import RunError

MAX_QUOTE_BYTES = 2048
"""What an error message quotes: a stack trace's end fits, and the message stays one that people read."""
_MAX_LINES = 40

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LastLines:
    """Keeps the last lines that were added; adding costs no more than an append."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=_MAX_LINES)

    def add(self, line: bytes) -> None:
        self._lines.append(line[-MAX_QUOTE_BYTES:])

    def text(self) -> str:
        """At most MAX_QUOTE_BYTES (UTF-8) from the end, without terminal sequences and without blank lines around."""
        text = plain(b"\n".join(self._lines).decode("utf-8", "replace")).strip()
        return text.encode()[-MAX_QUOTE_BYTES:].decode("utf-8", "ignore")


def plain(text: str) -> str:
    """`text` without terminal sequences and control characters (newline and tab stay)."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def first_bytes(text: str, max_bytes: int) -> str:
    """The longest beginning of `text` that has at most `max_bytes` as UTF-8."""
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; `signal 99` for a number that the platform has no name for."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def failure(code: str, what: str, advice: str, last_lines: str, *, retryable: bool) -> RunError:
    """An error that says what happened, what to do, and what the agent said last."""
    message = f"{first_bytes(plain(what).strip(), MAX_QUOTE_BYTES)}\n{advice}"
    if last_lines:
        message += f"\nThe agent's last lines:\n{last_lines}"
    return RunError(code=code, message=message, retryable=retryable)
