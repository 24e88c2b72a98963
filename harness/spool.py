"""Batches of events on disk, for the time that Redis is away: memory stays small however much the agent says.

The file is a stack of records that are read back by their place; when all were read it is cut to nothing. It belongs to one
journal of one process and holds nothing that the turn's log does not hold too, so it need not survive a crash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from cody.store.events import PendingEvent

SPOOL_MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Spooled:
    """Where a batch's events are in the file, and how many."""

    offset: int
    length: int
    count: int


class Spool:
    """Opened when it is first needed; `close` removes the file."""

    def __init__(self, path: Path, max_bytes: int = SPOOL_MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._fd = -1
        self._end = 0
        self._live = 0

    def put(self, events: Sequence[PendingEvent]) -> Spooled | None:
        """Write these events; None when the bound is reached or the disk is full: then they stay with the caller."""
        data = orjson.dumps([[event.type, event.ts, event.payload.decode()] for event in events])
        if self._end + len(data) > self._max_bytes:
            return None
        try:
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._fd = os.open(self._path, flags, 0o600)
            written = os.pwrite(self._fd, data, self._end)
        except OSError:
            return None
        if written < len(data):
            return None
        place = Spooled(self._end, len(data), len(events))
        self._end += len(data)
        self._live += 1
        return place

    def take(self, place: Spooled) -> list[PendingEvent]:
        """Read a batch back, once; raises OSError or ValueError when the file was harmed."""
        data = os.pread(self._fd, place.length, place.offset)
        self._live -= 1
        if self._live == 0:
            self._end = 0
            os.ftruncate(self._fd, 0)
        return [PendingEvent(kind, ts, payload.encode()) for kind, ts, payload in orjson.loads(data)]

    def close(self) -> None:
        """Remove the file; repeating it is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)
