"""What waits to be written: batches in their order, and where there are many, their events on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from cody.contracts.run import RunStatus
from cody.errors import CodyError
from cody.store.events import Commit, PendingEvent
from harness.spool import Spool, Spooled

BATCH_EVENTS = 500
BATCH_BYTES = 1 << 20
MEMORY_BYTES = 4 << 20
"""While Redis is away so much waits in memory; full batches beyond it wait on disk, in the spool."""


@dataclass(slots=True)
class Batch:
    """What one commit carries. `done` belongs to a transition or a flush that waits for it."""

    events: list[PendingEvent] = field(default_factory=list)
    meta: dict[str, str | int] = field(default_factory=dict)
    expected: RunStatus | None = None
    turn: tuple[int, bytes] | None = None
    end_ttl_s: int | None = None
    bytes: int = 0
    done: asyncio.Future[Commit] | None = None
    spooled: Spooled | None = None
    tells_left_out: int = 0
    """So many events that were left out are told of in this batch."""

    @property
    def is_open(self) -> bool:
        """Nothing waits for this batch alone: more may be put into it."""
        return (
            self.done is None and self.spooled is None and len(self.events) < BATCH_EVENTS and self.bytes < BATCH_BYTES
        )


class JournalQueue:
    """The batches of one journal. `waiting_bytes`: payloads in memory, those included that are being written."""

    def __init__(self, spool: Spool) -> None:
        self.waiting_bytes = 0
        self._batches: deque[Batch] = deque()
        self._spool = spool

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def batches(self) -> tuple[Batch, ...]:
        """Those that nobody took yet, the oldest first."""
        return tuple(self._batches)

    def add(self, event: PendingEvent, meta: Mapping[str, str | int]) -> None:
        """The event, and with it, in the same step, changes of meta fields."""
        batch = self.open_batch()
        batch.events.append(event)
        batch.meta.update(meta)
        batch.bytes += len(event.payload)
        self.waiting_bytes += len(event.payload)

    def open_batch(self) -> Batch:
        """The one that more may be put into."""
        if self._batches and self._batches[-1].is_open:
            return self._batches[-1]
        return self.new_batch()

    def new_batch(self) -> Batch:
        """Another one, the last."""
        if self.waiting_bytes > MEMORY_BYTES and len(self._batches) > 1 and self._batches[-1].done is None:
            self._put_on_disk(self._batches[-1])
        batch = Batch()
        self._batches.append(batch)
        return batch

    def take(self) -> Batch:
        """The first one, no more in the queue: what comes while it is written gathers in the next one."""
        return self._batches.popleft()

    def complete(self, batch: Batch) -> Batch:
        """The batch with its events, from disk if they waited there; raises OSError or ValueError when they were harmed."""
        if batch.spooled is not None:
            batch.events, batch.spooled = self._spool.take(batch.spooled), None
        return batch

    def written(self, batch: Batch, answer: Commit) -> None:
        """It is in the store, or refused: whoever waits for it goes on."""
        self.waiting_bytes -= batch.bytes
        if batch.done is not None and not batch.done.done():
            batch.done.set_result(answer)

    def fail(self, error: CodyError, *, quiet: bool = False) -> None:
        """Nothing of it is written any more; `quiet`: and nobody needs to be told who does not ask."""
        for batch in self._batches:
            if batch.done is not None and not batch.done.done():
                batch.done.set_exception(error)
                if quiet:
                    batch.done.exception()
        self._batches.clear()

    def close(self) -> None:
        """Remove what is on disk."""
        self._spool.close()

    def _put_on_disk(self, batch: Batch) -> None:
        """The last batch is full and many wait: its events go to the spool, in their place in the queue."""
        if batch.spooled is not None or not batch.events:
            return
        batch.spooled = self._spool.put(batch.events)
        if batch.spooled is not None:
            self.waiting_bytes -= batch.bytes
            batch.events, batch.bytes = [], 0
