"""Events of runs that Redis does not have, or has no longer from the beginning: read from the archive, the same frames."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.run import TERMINAL
from cody.errors import CodyError, NotFound, StreamTrimmed
from cody.pipeline.pipeline import Pipeline
from cody.store import events
from cody.store.events import Frame, id_tuple

if TYPE_CHECKING:
    from cody.pipeline.archive import Cursor

log = get_logger()

EVENTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Archived:
    """A reader of the archive: behind the event with this number, up to the run's last."""

    seq: int


class ArchivedEvents:
    """What readers of a run's events are given when Redis can't."""

    def __init__(self, redis: Redis, pipeline: Pipeline) -> None:
        self._redis = redis
        self._pipeline = pipeline

    async def open(self, run_id: str, start: str) -> Archived:
        """Where to begin in a run that Redis does not know: as for one that it does.

        Raises NotFound, InvalidRequest (not an id), StreamTrimmed for the id of no event of it.
        """
        archive = await self._pipeline.archive()
        cursor = await archive.cursor(run_id)
        if cursor.status is None:
            raise NotFound(f"no run {run_id}")
        if start == "$":
            return Archived(cursor.last_seq)
        wanted = id_tuple("0-0" if start == "0" else start)
        if wanted == (0, 0):
            return Archived(0)
        seq = await archive.seq_at(run_id, f"{wanted[0]}-{wanted[1]}")
        if seq is None:
            first = await archive.events_after(run_id, 0, count=1)
            raise StreamTrimmed(
                f"run {run_id} is in the archive, and has no event {start}: start again with from=0",
                earliest_event_id=first[0].id if first else "0",
            )
        return Archived(seq)

    async def whole(self, run_id: str) -> Archived | None:
        """The beginning of a run that has ended, when Redis has let go of some of its events and the archive has all."""
        kept = await events.first(self._redis, run_id)
        if kept is not None and kept.seq == 1:
            return None
        newest = await events.last(self._redis, run_id)
        try:
            cursor = await (await self._pipeline.archive()).cursor(run_id)
        except CodyError as error:
            log.warning("stream.archive_not_read", run_id=run_id, error=error.message)
            return None
        return Archived(0) if _is_whole(cursor) and cursor.last_seq >= (newest.seq if newest else 1) else None

    async def follow(self, run_id: str, place: Archived) -> AsyncGenerator[list[Frame]]:
        """The events in order; raises NotFound behind the last one of a run whose end is not in the archive."""
        archive, seq = await self._pipeline.archive(), place.seq
        while frames := await archive.events_after(run_id, seq, count=EVENTS_AT_ONCE):
            yield frames
            seq = frames[-1].seq
        cursor = await archive.cursor(run_id)
        if not _is_whole(cursor):
            why = cursor.halted_reason or f"it was {cursor.status} when Redis lost it"
            raise NotFound(f"run {run_id} is in the archive up to event {seq} only: {why}")


def _is_whole(cursor: Cursor) -> bool:
    return cursor.status in TERMINAL and cursor.halted_reason is None
