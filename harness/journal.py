"""The journal of one run under one fence: events in order, in batches, each once.

`emit` is synchronous and never waits: it stamps and encodes the event and leaves it to a writer task. The writer sends at
once when it is idle and gathers what comes while a write is in flight, so that a quiet run has no delay and a loud one has
large batches. A write whose reply was lost is repeated with the same sequence numbers: the store answers `duplicate`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from structlog import get_logger

from cody.contracts.run import RunStatus, TurnRecord
from cody.contracts.run_events import WarningRaised, payload_json
from cody.contracts.wire import utc_text
from cody.errors import CodyError, Fenced, SequenceGap
from cody.redaction import Redactor
from cody.store.events import Answer, Commit, PendingEvent, commit
from harness.agents.base import Body
from harness.spool import Spool, Spooled
from harness.stream_bound import StreamBound

log = get_logger()

BATCH_EVENTS = 500
BATCH_BYTES = 1 << 20
MEMORY_BYTES = 4 << 20
"""While Redis is away so much waits in memory; full batches beyond it wait on disk, in the spool."""
BUFFER_BYTES = 64 << 20
"""What may wait in memory when the spool is full too; then output and custom events are dropped, and counted."""
BROKEN_FACTOR = 4
"""So many times that, of what must not be dropped, is the end: memory is bounded, whatever an agent says."""
DROPPABLE = frozenset({"subprocess_output", "custom"})
MAX_BACKOFF_S = 1.0

Meta = Mapping[str, str | int]


class StoreLost(CodyError):
    """The run's record is gone from Redis (wiped or deleted): it can't be continued."""

    code = "store_lost"


class StoreCorrupt(CodyError):
    """The run's record in Redis is not what Cody wrote: it can't be continued."""

    code = "store_corrupt"


class JournalBroken(CodyError):
    """Events that waited for Redis can't be written any more: the spool was harmed, or Cody has a defect."""

    code = "journal_broken"


def is_corruption(error: RedisError) -> bool:
    """Repeating the call is in vain: a key has another type, or holds something that the script can't count with.

    What Redis refuses for a while (its disk or memory full, loading, read only) has codes of its own.
    """
    text = str(error)
    lasting = text.startswith(("WRONGTYPE", "user_script", "Error running script")) or "is not an integer" in text
    return isinstance(error, ResponseError) and (lasting or ("script" in text and "attempt to" in text))


def now_ms() -> int:
    """Wall time for people; nothing is decided by it."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Batch:
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


class Journal:
    """Writes one run's events, meta and turn records; see the module for the order of things."""

    def __init__(
        self,
        redis: Redis,
        run_id: str,
        *,
        fence: int,
        last_seq: int,
        spool: Spool,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        self.run_id = run_id
        self.fence = fence
        self.last_seq = last_seq
        self.dropped_bytes = 0
        self._untold_bytes = 0
        self.failure: CodyError | None = None
        self.redactor = Redactor([])
        """Cleans all that is written; what comes from the agent's output was cleaned before."""
        self._failed = asyncio.Event()
        self._redis = redis
        self._queue: deque[_Batch] = deque()
        self.buffered_bytes = 0
        """Events that wait in memory."""
        self._buffer_bytes = buffer_bytes
        self._spool = spool
        self._bound = StreamBound()
        self._archived_seq: int | None = None
        """How far the archive is, as the last answer told; None = nobody archives this run."""
        self._left_out = 0
        """Events that were left out for the archive's sake, and not told of yet."""
        self._work = asyncio.Event()
        self._writer = asyncio.create_task(self._write(), name=f"journal {run_id}")

    def emit(self, body: Body, meta: Meta | None = None, *, turn: int | None = None) -> None:
        """Add an event (of this turn), and with it, in the same step, changes of meta fields.

        While Redis has been away so long that the buffer is full, output and custom events are dropped and counted.
        """
        if self.failure is not None:
            return
        payload = self.redactor.clean(payload_json(body, turn=turn))
        if self.buffered_bytes > self._buffer_bytes:
            if body.type in DROPPABLE:
                self.dropped_bytes += len(payload)
                self._untold_bytes += len(payload)
                return
            if self.buffered_bytes > BROKEN_FACTOR * self._buffer_bytes:
                self._fail(JournalBroken(f"{self.buffered_bytes} bytes of events of run {self.run_id} wait for Redis"))
                return
        batch = self._open_batch()
        batch.events.append(PendingEvent(body.type, utc_text(now_ms()), payload))
        batch.bytes += len(payload)
        if meta:
            batch.meta.update(self._clean(meta))
        self.buffered_bytes += len(payload)
        self._work.set()

    def set(self, meta: Meta) -> None:
        """Change meta fields ('' removes one), together with the events before and after."""
        if self.failure is None:
            self._open_batch().meta.update(self._clean(meta))
            self._work.set()

    def record_turn(self, record: TurnRecord) -> None:
        """Keep this state of a turn."""
        if self.failure is not None:
            return
        batch = self._open_batch()
        if batch.turn is not None and batch.turn[0] != record.turn:
            batch = self._new_batch()
        batch.turn = record.turn, self.redactor.clean(record.model_dump_json(by_alias=True).encode())
        self._work.set()

    async def transition(
        self,
        expected: RunStatus,
        target: RunStatus,
        bodies: Sequence[Body],
        *,
        meta: Meta | None = None,
        end_ttl_s: int | None = None,
    ) -> bool:
        """Change the status if it still is `expected`; False when a control message came first (then nothing was written).

        Raises Fenced, SequenceGap, StoreLost. Waits while Redis is away.
        """
        if self.failure is not None:
            raise self.failure
        batch = self._new_batch()
        ts = utc_text(now_ms())
        batch.events = [PendingEvent(body.type, ts, self.redactor.clean(payload_json(body))) for body in bodies]
        batch.meta = {**self._clean(meta or {}), "status": target}
        batch.expected = expected
        batch.end_ttl_s = end_ttl_s
        return (await self._committed(batch)).answer is not Answer.CONFLICT

    def _clean(self, meta: Meta) -> Meta:
        return {
            name: self.redactor.clean_text(value) if isinstance(value, str) else value for name, value in meta.items()
        }

    async def flush(self) -> None:
        """Wait until everything emitted so far is in the store; raises what `transition` raises."""
        if self.failure is not None:
            raise self.failure
        await self._committed(self._new_batch())

    async def failed(self) -> CodyError:
        """Wait for the failure that ends this journal: fenced, a gap, or the record lost."""
        await self._failed.wait()
        assert self.failure is not None
        return self.failure

    async def close(self) -> None:
        """End the writer; what was not flushed is not written."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._spool.close()
        self._fail(Fenced(f"the journal of run {self.run_id} is closed"), quiet=True)

    async def _committed(self, batch: _Batch) -> Commit:
        batch.done = asyncio.get_running_loop().create_future()
        self._work.set()
        return await batch.done

    def _new_batch(self) -> _Batch:
        if self.buffered_bytes > MEMORY_BYTES and len(self._queue) > 1 and self._queue[-1].done is None:
            self._put_on_disk(self._queue[-1])
        batch = _Batch()
        self._queue.append(batch)
        return batch

    def _put_on_disk(self, batch: _Batch) -> None:
        """The last batch is full and many wait: its events go to the spool, in their place in the queue."""
        if batch.spooled is not None or not batch.events:
            return
        batch.spooled = self._spool.put(batch.events)
        if batch.spooled is not None:
            self.buffered_bytes -= batch.bytes
            batch.events, batch.bytes = [], 0

    def _open_batch(self) -> _Batch:
        if self._queue and self._queue[-1].is_open:
            return self._queue[-1]
        return self._new_batch()

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            while self._queue:
                # Taken out before it is sent: what is emitted meanwhile gathers in the next one.
                batch = self._queue.popleft()
                try:
                    answer = await self._send(self._fitting(self._whole(batch)))
                except Exception as error:
                    # Whatever it was: those who wait must learn of it, and nothing may be written after a hole.
                    failure = error if isinstance(error, CodyError) else self._broken(error)
                    if batch.done is not None and not batch.done.done():
                        batch.done.set_exception(failure)
                    self._fail(failure)
                    return
                self.buffered_bytes -= batch.bytes
                if self._untold_bytes and self.buffered_bytes < self._buffer_bytes // 2:
                    self._tell_dropped()
                if batch.done is not None and not batch.done.done():
                    batch.done.set_result(answer)
            self._work.clear()

    def _whole(self, batch: _Batch) -> _Batch:
        """The batch with its events, from disk if they waited there."""
        if batch.spooled is not None:
            batch.events, batch.spooled = self._spool.take(batch.spooled), None
        return batch

    def _fitting(self, batch: _Batch) -> _Batch:
        """The batch without what can be left out, while the archive is so far behind that Redis could not keep all it lacks.

        Redis would trim what the archive never got, which ends a run's archive for good. What was left out is told when the
        archive comes closer, and before whatever is waited for: a change of status, the end.
        """
        behind = 0 if self._archived_seq is None else self.last_seq - self._archived_seq
        if behind > self._bound.backlog:
            kept = [event for event in batch.events if event.type not in DROPPABLE]
            if not self._left_out and len(kept) < len(batch.events):
                log.warning("journal.archive_behind", run_id=self.run_id, events=behind)
            self._left_out += len(batch.events) - len(kept)
            batch.events = kept
        if self._left_out and (batch.done is not None or behind < self._bound.backlog // 2):
            message = (
                f"{self._left_out} output and custom events were left out: the archive was too far behind to get them; "
                "the turn's log is whole"
            )
            warning = WarningRaised(code="events_dropped", message=message)
            batch.events.insert(0, PendingEvent(warning.type, utc_text(now_ms()), payload_json(warning)))
            batch.tells_left_out = self._left_out
        return batch

    def _broken(self, error: Exception) -> JournalBroken:
        text = f"{type(error).__name__}: {error}"[:300]
        return JournalBroken(f"events of run {self.run_id} that waited for Redis can't be written ({text})")

    def _tell_dropped(self) -> None:
        message = (
            f"{self._untold_bytes} bytes of output events did not fit while Redis was away; the turn's log is whole"
        )
        self._untold_bytes = 0
        self.emit(WarningRaised(code="events_dropped", message=message))

    async def _send(self, batch: _Batch) -> Commit:
        """One commit, repeated until Redis answers."""
        backoff_s = 0.0
        while True:
            try:
                answer = await commit(
                    self._redis,
                    self.run_id,
                    fence=self.fence,
                    first_seq=self.last_seq + 1,
                    events=batch.events,
                    meta={**batch.meta, "updatedAt": utc_text(now_ms())},
                    expected_status=batch.expected,
                    turn=batch.turn,
                    end_ttl_s=batch.end_ttl_s,
                    keep_events=self._bound.keep,
                    keep_unarchived=self._bound.limit,
                )
            except (RedisError, OSError, TimeoutError) as error:
                if isinstance(error, RedisError) and is_corruption(error):
                    text = str(error)[:200]
                    raise StoreCorrupt(f"the record of run {self.run_id} in Redis is corrupt ({text})") from None
                if backoff_s == 0.0:
                    log.warning(
                        "journal.write_failed", run_id=self.run_id, error=str(error)[:300], buffered=self.buffered_bytes
                    )
                backoff_s = min(MAX_BACKOFF_S, max(0.05, backoff_s * 2))
                await asyncio.sleep(backoff_s)
                continue
            return self._judge(answer, batch)

    def _judge(self, answer: Commit, batch: _Batch) -> Commit:
        self._archived_seq = answer.archived_seq
        match answer.answer:
            case Answer.OK | Answer.DUPLICATE:
                self.last_seq += len(batch.events)
                self._left_out -= batch.tells_left_out
                self._bound.add(len(batch.events), sum(len(event.payload) for event in batch.events))
            case Answer.CONFLICT:
                pass
            case Answer.FENCED:
                raise Fenced(f"run {self.run_id} was taken over by another worker (fence {self.fence} is old)")
            case Answer.GONE:
                raise StoreLost(f"the record of run {self.run_id} is gone from Redis")
            case Answer.GAP:
                raise SequenceGap(
                    f"run {self.run_id}: the store ends at event {answer.last_seq}, the next one is {self.last_seq + 1}: "
                    "events that were accepted are missing (was Redis restored from an older state?)"
                )
        return answer

    def _fail(self, error: CodyError, *, quiet: bool = False) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if not quiet:
            log.error("journal.failed", run_id=self.run_id, fence=self.fence, code=error.code, error=error.message)
        for batch in self._queue:
            if batch.done is not None and not batch.done.done():
                batch.done.set_exception(error)
                if quiet:
                    batch.done.exception()
        self._queue.clear()
        self._failed.set()
