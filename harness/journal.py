"""The journal of one run under one fence: events in order, in batches, each once.

`emit` is synchronous and never waits: it stamps and encodes the event and leaves it to a writer task. The writer sends at
once when it is idle and gathers what comes while a write is in flight, so that a quiet run has no delay and a loud one has
large batches. A write whose reply was lost is repeated with the same sequence numbers: the store answers `duplicate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog import get_logger

from cody.contracts.run import RunStatus, TurnRecord
from cody.contracts.run_events import WarningRaised, payload_json
from cody.errors import CodyError, Fenced, SequenceGap
from cody.redaction import Redactor
from cody.store.events import Answer, Commit, PendingEvent, commit
from cody.wall_clock import now_text
from harness.agents.base import Body
from harness.journal_failures import JournalBroken, StoreCorrupt, StoreLost, is_corruption
from harness.journal_queue import Batch, JournalQueue
from harness.late_archive import DROPPABLE, LateArchive
from harness.spool import Spool
from harness.stream_bound import StreamBound

log = get_logger()

BUFFER_BYTES = 64 << 20
"""What may wait in memory when the spool is full too; then output and custom events are dropped, and counted."""
BROKEN_FACTOR = 4
"""So many times that, of what must not be dropped, is the end: memory is bounded, whatever an agent says."""
MAX_BACKOFF_S = 1.0

Meta = Mapping[str, str | int]


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
        bound: StreamBound | None = None,
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
        self._queue = JournalQueue(spool)
        self._buffer_bytes = buffer_bytes
        self._bound = bound or StreamBound()
        self._archive = LateArchive(run_id, self._bound)
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
        self._queue.add(PendingEvent(body.type, now_text(), payload), self._clean(meta) if meta else {})
        self._work.set()

    def set(self, meta: Meta) -> None:
        """Change meta fields ('' removes one), together with the events before and after."""
        if self.failure is None:
            self._queue.open_batch().meta.update(self._clean(meta))
            self._work.set()

    def record_turn(self, record: TurnRecord) -> None:
        """Keep this state of a turn."""
        if self.failure is not None:
            return
        batch = self._queue.open_batch()
        if batch.turn is not None and batch.turn[0] != record.turn:
            batch = self._queue.new_batch()
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
        batch = self._queue.new_batch()
        ts = now_text()
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
        await self._committed(self._queue.new_batch())

    @property
    def buffered_bytes(self) -> int:
        """Events that wait in memory."""
        return self._queue.waiting_bytes

    async def failed(self) -> CodyError:
        """Wait for the failure that ends this journal: fenced, a gap, or the record lost."""
        await self._failed.wait()
        assert self.failure is not None
        return self.failure

    async def close(self) -> None:
        """End the writer; what was not flushed is not written."""
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._queue.close()
        self._fail(Fenced(f"the journal of run {self.run_id} is closed"), quiet=True)

    async def _committed(self, batch: Batch) -> Commit:
        batch.done = asyncio.get_running_loop().create_future()
        self._work.set()
        return await batch.done

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            while self._queue:
                batch = self._queue.take()
                try:
                    answer = await self._send(self._archive.fitting(self._queue.complete(batch), self.last_seq))
                except Exception as error:
                    # Whatever it was: those who wait must learn of it, and nothing may be written after a hole.
                    failure = error if isinstance(error, CodyError) else self._broken(error)
                    if batch.done is not None and not batch.done.done():
                        batch.done.set_exception(failure)
                    self._fail(failure)
                    return
                self._queue.written(batch, answer)
                if self._untold_bytes and self.buffered_bytes < self._buffer_bytes // 2:
                    self._tell_dropped()
            self._work.clear()

    def _broken(self, error: Exception) -> JournalBroken:
        text = f"{type(error).__name__}: {error}"[:300]
        return JournalBroken(f"events of run {self.run_id} that waited for Redis can't be written ({text})")

    def _tell_dropped(self) -> None:
        message = (
            f"{self._untold_bytes} bytes of output events did not fit while Redis was away; the turn's log is whole"
        )
        self._untold_bytes = 0
        self.emit(WarningRaised(code="events_dropped", message=message))

    async def _send(self, batch: Batch) -> Commit:
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
                    meta={**batch.meta, "updatedAt": now_text()},
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

    def _judge(self, answer: Commit, batch: Batch) -> Commit:
        self._archive.answered(answer)
        match answer.answer:
            case Answer.OK | Answer.DUPLICATE:
                self.last_seq += len(batch.events)
                self._archive.told(batch)
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
        self._queue.fail(error, quiet=quiet)
        self._failed.set()
