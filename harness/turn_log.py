"""The raw output of one turn, whole, on disk: stdout and stderr as they come, as a terminal would show them.

A full disk does not stop the turn: what could not be written is counted, and said in the record.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from cody.contracts.run_events import Stream

SEGMENTS = 4_096
"""Chunks whose place is remembered: a line's start lies at most a capped line before the end, some tens of chunks."""


@dataclass(frozen=True, slots=True)
class _Segment:
    stream_offset: int
    log_offset: int


@dataclass(slots=True)
class _Stream:
    length: int = 0
    segments: deque[_Segment] = field(default_factory=lambda: deque(maxlen=SEGMENTS))


class TurnLog:
    """Appends chunks and remembers where in the file each stream's bytes went."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost_bytes = 0
        self.size = 0
        self._streams: dict[Stream, _Stream] = {"stdout": _Stream(), "stderr": _Stream()}
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def append(self, stream: Stream, chunk: bytes) -> None:
        """Write a chunk; never raises. A write to the page cache costs some 20 us for 64 KiB: no thread is worth it."""
        state = self._streams[stream]
        state.segments.append(_Segment(state.length, self.size))
        state.length += len(chunk)
        rest = memoryview(chunk)
        try:
            while rest:
                written = os.write(self._fd, rest)
                self.size += written
                rest = rest[written:]
        except OSError:
            self.lost_bytes += len(rest)

    def offset_of(self, stream: Stream, stream_offset: int) -> int:
        """Where in the file this byte of the stream is (for bytes whose chunk is no longer known: the oldest known place)."""
        segments = self._streams[stream].segments
        for segment in reversed(segments):
            if segment.stream_offset <= stream_offset:
                return segment.log_offset + stream_offset - segment.stream_offset
        return segments[0].log_offset if segments else 0

    def close(self) -> None:
        """Close the file; repeating it is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
