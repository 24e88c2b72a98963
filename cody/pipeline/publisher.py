"""Puts the events of Responses into Redis: at once when idle, in batches while a write is under way.

What is said is stamped once and written in order; a write whose reply is lost is repeated and adds nothing twice. While
Redis is away events wait in memory, up to a bound. A lease tells others that the publisher lives: when it runs out,
`Reaper` ends the Response as an error, so that none hangs in progress for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable

from structlog import get_logger

from cody.contracts.responses import ErrorInfo
from cody.contracts.stream_events import (
    TERMINAL_EVENT_TYPES,
    Payload,
    ResponseError,
    ResponseStart,
    StreamEvent,
    stream_event_json,
)
from cody.errors import InvalidRequest, StoreUnavailable
from cody.pipeline.delta_redaction import DeltaRedactor
from cody.pipeline.problems import problem
from cody.pipeline.stamping import Stamper
from cody.pipeline.trace_context import Trace, trace_of
from cody.pipeline.tracing import event_trace
from cody.redaction import Redactor
from cody.store import keys
from cody.store.response_events import Ending, Published, ResponseEvents
from cody.wall_clock import now_ms

log = get_logger()

LEASE_MS = 15_000
BATCH_EVENTS = 500
BATCH_BYTES = 1 << 20
PAUSE_BYTES = 4 << 20
MAX_WAITING_BYTES = 16 << 20
"""Of one answer while Redis is away; an answer that says more ends as an error instead of eating the memory."""
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0
CLOSING_S = 2.0

EVENTS_LOST = "events_lost"
PUBLISHER_LOST = "publisher_lost"


class Publication:
    """The events of one Response on their way. `say` never waits and never fails; made by `Publisher.begin`."""

    def __init__(self, publisher: Publisher, opening: ResponseStart, trace: Trace, redactor: Redactor) -> None:
        self.response_id = opening.response_id
        self.taken_away = asyncio.Event()
        """The Response was ended from outside, or is another publisher's: what is still said is dropped."""
        self.on_taken_away: Callable[[], object] | None = None
        self._publisher = publisher
        self._opening = opening
        self._redactor = redactor
        self._deltas = DeltaRedactor(redactor)
        self._stamper = Stamper(opening.response_id, now_ms, uuid.uuid4, trace)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._written = 0
        self._ended = False
        self._lost = False
        self._writing: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether its last event was said, or it was ended by someone else."""
        return self._ended or self.taken_away.is_set()

    def say(self, *payloads: Payload) -> None:
        """Publish these; what comes after the end is dropped."""
        for payload in payloads:
            if self.ended:
                return
            for told in self._deltas.clean(payload):
                self._add(self._stamper.stamp(told))
        if self._writing is None and self._waiting:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    async def room(self) -> None:
        """Wait while so much waits for Redis that its source should pause."""
        while self._bytes > PAUSE_BYTES and self._writing is not None:
            await asyncio.shield(self._writing)

    async def written(self) -> None:
        """All that was said is in Redis, or the Response is not ours any more."""
        while self._writing is not None:
            await asyncio.shield(self._writing)

    def _add(self, event: StreamEvent) -> None:
        data = self._redactor.clean(stream_event_json(event))
        if self._lost and event.type not in TERMINAL_EVENT_TYPES:
            return
        if self._bytes + len(data) > MAX_WAITING_BYTES and not self._lost:
            # Redis has been away for long. Deltas without those before them would make a text that nobody said.
            self._lost = True
            log.error("response.events_lost", response_id=self.response_id, bytes=self._bytes)
            message = f"more than {MAX_WAITING_BYTES >> 20} MiB of events waited for Redis; what followed was dropped"
            lost = ResponseError(response_id=self.response_id, error=problem(EVENTS_LOST, message, retryable=False))
            event = self._stamper.stamp(lost)
            data = stream_event_json(event)
        self._waiting.append(data)
        self._bytes += len(data)
        if event.type in TERMINAL_EVENT_TYPES:
            self._ended = True

    async def _write_all(self) -> None:
        backoff_s = 0.0
        try:
            while self._waiting and not self.taken_away.is_set():
                try:
                    await self._write_batch()
                except StoreUnavailable as error:
                    if backoff_s == 0.0:
                        log.warning("response.waiting", response_id=self.response_id, error=error.message)
                    backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, backoff_s * 2))
                    await asyncio.sleep(backoff_s)
                else:
                    backoff_s = 0.0
        finally:
            self._writing = None
            if self.ended and not self._waiting:
                self._publisher.forget(self)

    async def _write_batch(self) -> None:
        batch: list[bytes] = []
        size = 0
        for event in self._waiting:
            if batch and (len(batch) >= BATCH_EVENTS or size + len(event) > BATCH_BYTES):
                break
            batch.append(event)
            size += len(event)
        answer = await self._publisher.store.publish(
            self.response_id,
            batch,
            publisher=self._publisher.id,
            lease_ms=self._publisher.lease_ms,
            first=self._written + 1,
            ends=self._ended and len(batch) == len(self._waiting),
            thread_id=self._opening.thread_id if self._written == 0 else None,
        )
        if answer in (Published.FENCED, Published.ENDED):
            self.take_away(answer.value)
            return
        if self.taken_away.is_set():
            # While this was on its way; nothing waits any more.
            return
        for _ in batch:
            self._waiting.popleft()
        self._bytes -= size
        self._written += len(batch)

    def take_away(self, why: str) -> None:
        """Somebody else ended the Response."""
        log.info("response.taken_away", response_id=self.response_id, why=why)
        self._waiting.clear()
        self._bytes = 0
        self.taken_away.set()
        self._publisher.forget(self)
        if self.on_taken_away is not None:
            self.on_taken_away()


class Publisher:
    """All publications of a process. `run` keeps their leases; `aclose` waits a little for what is not written yet."""

    def __init__(self, store: ResponseEvents, *, redactor: Redactor | None = None, lease_ms: int = LEASE_MS) -> None:
        self.id = str(uuid.uuid4())
        self.store = store
        self.lease_ms = lease_ms
        self._redactor = redactor or Redactor(())
        self._open: dict[str, Publication] = {}

    @property
    def count(self) -> int:
        """Answers that are being published."""
        return len(self._open)

    def begin(
        self, opening: ResponseStart, *, trace: Trace | None = None, redactor: Redactor | None = None
    ) -> Publication:
        """A new Response; its response_start is said. Raises InvalidRequest for an id that no key can hold."""
        if not keys.is_run_id(opening.response_id):
            raise InvalidRequest(f"{opening.response_id[:80]!r} can't be the id of a response", details={"field": "id"})
        publication = Publication(self, opening, trace or event_trace(), redactor or self._redactor)
        self._open[opening.response_id] = publication
        publication.say(opening)
        return publication

    def find(self, response_id: str) -> Publication | None:
        """The publication of a Response that this process publishes now."""
        return self._open.get(response_id)

    def forget(self, publication: Publication) -> None:
        if self._open.get(publication.response_id) is publication:
            del self._open[publication.response_id]

    async def run(self) -> None:
        """Renew the leases until cancelled."""
        wait_s = self.lease_ms / 3000
        while True:
            await asyncio.sleep(wait_s)
            wait_s = self.lease_ms / 3000
            try:
                lost = await self.store.renew(list(self._open), publisher=self.id, lease_ms=self.lease_ms)
            except StoreUnavailable as error:
                log.warning("response.leases_not_renewed", error=error.message)
                wait_s = min(wait_s, MAX_BACKOFF_S)
                continue
            for response_id in lost:
                publication = self._open.get(response_id)
                # One whose last event is under way has no lease any more, and needs none.
                if publication is not None and not publication.ended:
                    publication.take_away("lease lost")

    async def aclose(self) -> None:
        """Wait for what was said to be written, not longer than CLOSING_S."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await asyncio.gather(*(one.written() for one in list(self._open.values())))
        for one in list(self._open.values()):
            one.take_away("closing")


class Reaper:
    """Ends Responses whose publisher is gone: its host died, or its process was killed in the midst of an answer."""

    def __init__(self, store: ResponseEvents, *, every_s: float = 5.0) -> None:
        self._store = store
        self._every_s = every_s
        self._suspects: set[str] = set()

    async def run(self) -> None:
        """Look for them until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("reaper.waiting", error=error.message)
                self._suspects.clear()
            await asyncio.sleep(self._every_s)

    async def look(self) -> list[str]:
        """End those that had no publisher at the last look either; answers their ids.

        Twice, since after an outage of Redis all leases are gone and their owners need a moment to come back.
        """
        found = set(await self._store.without_publisher())
        again, self._suspects = found & self._suspects, found
        reaped = []
        for response_id in sorted(again):
            error = problem(PUBLISHER_LOST, "the process that published this answer is gone", retryable=True)
            if await end_from_outside(self._store, response_id, error) is Ending.OK:
                log.warning("response.reaped", response_id=response_id)
                reaped.append(response_id)
        return reaped


async def end_from_outside(store: ResponseEvents, response_id: str, error: ErrorInfo) -> Ending:
    """End a Response that nobody publishes any more with this error."""
    stamper = Stamper(response_id, now_ms, uuid.uuid4, trace_of())
    event = stamper.stamp(ResponseError(response_id=response_id, error=error))
    return await store.end(response_id, stream_event_json(event), only_if_abandoned=True)
