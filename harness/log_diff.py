"""What was added to a log file since it was last looked at: its size, and the end of it as text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.regular_file import ReadRange, opened, text_of_tail

MAX_TAIL_BYTES = 2048
KEPT_BYTES = 64 * 1024
"""Of the end of the log as it was, to tell an addition from a rewrite."""


@dataclass(frozen=True, slots=True)
class LogState:
    """A log at one moment: how long it was, and the hash of its last KEPT_BYTES."""

    size: int
    kept_sha256: str


@dataclass(frozen=True, slots=True)
class LogChange:
    """The log grew by `appended_bytes`; or it was rewritten, then that is its whole size."""

    appended_bytes: int
    tail: str
    """The end of what was added: at most MAX_TAIL_BYTES of UTF-8, from the start of a line on where there is one."""


def state_of(size: int, read: ReadRange) -> LogState:
    """The state of a log of `size` bytes."""
    start = max(0, size - KEPT_BYTES)
    return LogState(size, hashlib.sha256(read(start, size - start)).hexdigest())


EMPTY = state_of(0, lambda start, max_bytes: b"")


def compare(before: LogState, size: int, read: ReadRange) -> LogChange | None:
    """What happened to a log that was `before` and now has `size` bytes; None when it is the same."""
    added_to = size >= before.size and state_of(before.size, read) == before
    if added_to and size == before.size:
        return None
    begin = before.size if added_to else 0
    start = max(begin, size - MAX_TAIL_BYTES)
    return LogChange(size - begin, _bounded(text_of_tail(read(start, size - start), cut=start > begin)))


def _bounded(text: str) -> str:
    """`text` cut at the front: an invalid byte takes three as U+FFFD, so that 2 KiB of them would be 6."""
    data = text.encode()
    return text if len(data) <= MAX_TAIL_BYTES else text_of_tail(data[-MAX_TAIL_BYTES:], cut=True)


class LogTail:
    """Follows one log file. Reads little, whatever the file's size; a file that is missing or refused has no change."""

    def __init__(self, path: Path, state: LogState | None = None) -> None:
        """Follow from `state` on; None: from what the file is now."""
        self.path = path
        self.state = state if state is not None else self._now()

    def poll(self) -> LogChange | None:
        """What changed since the last call. Call it when the log may have changed, and once after the agent's exit."""
        try:
            with opened(self.path) as file:
                if file.size == 0:
                    # Who writes a file anew empties it first: what comes then is compared with what it said before.
                    return None
                change = compare(self.state, file.size, file.read)
                if change is not None:
                    self.state = state_of(file.size, file.read)
                return change
        except OSError:
            return None

    def _now(self) -> LogState:
        try:
            with opened(self.path) as file:
                return state_of(file.size, file.read)
        except OSError:
            return EMPTY
