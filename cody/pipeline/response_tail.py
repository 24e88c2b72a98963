"""Readers of a Response's events: one tail per Response and process, from which all readers are served.

The tail reads the stream once, from its oldest event, with the blocking read that all tails share. A reader that falls
behind what the tail keeps reads from Redis until it has caught up.
"""

from __future__ import annotations

import asyncio
import uuid
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import orjson

from cody.contracts.stream_events import TERMINAL_EVENT_TYPES, MalformedEvent, TraceContext, read_stream_event
from cody.errors import NotFound, StoreUnavailable, StreamTrimmed
from cody.pipeline.tracing import is_tracing
from cody.store import keys
from cody.store.events import Frame, id_tuple
from cody.store.reader import Entry as RawEntry
from cody.store.reader import StreamReader
from cody.store.response_events import Entry, ResponseEvents, entry_of

START = "0-0"
READ_COUNT = 500
RING_BYTES = 4 << 20
"""Kept of one Response that somebody reads: several times what Redis keeps of one that is archived."""
RETRY_S = 0.2
LOOK_AGAIN_S = 5.0
"""A blocking read says nothing when its stream is deleted."""
FIRST_TIME_MS = 10**11
"""Ids below this are Cody's numbers, which have no gaps; others are a foreign publisher's times."""


@dataclass(slots=True)
class Position:
    """Behind which event a reader is. `ended`: that was the last one, nothing more comes."""

    id: str
    ended: bool = False
    trace: TraceContext | None = None
    """Of the events that it reads; only where traces are recorded."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """One event of the ring. `frame` None: what nobody is shown, as it is no event."""

    id: str
    number: tuple[int, int]
    frame: Frame | None


class _Tail:
    """The last events of one Response, shared by its readers."""

    def __init__(self, response_id: str, ring_bytes: int) -> None:
        self.response_id = response_id
        self.readers = 0
        self.lost = False
        """Redis has the stream no more."""
        self._ring_bytes = ring_bytes
        self._ring: list[_Kept] = []
        self._bytes = 0
        self._floor = id_tuple(START)
        """The ring holds every event after this one."""
        self._pulse: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def deliver(self, entries: Sequence[RawEntry]) -> None:
        """Take new events in and wake everyone."""
        for entry_id, fields in entries:
            entry = entry_of(entry_id, fields)
            kept = _Kept(entry.id, id_tuple(entry.id), frame_of(entry))
            self._ring.append(kept)
            self._bytes += _size(kept)
        while self._bytes > self._ring_bytes:
            self._shorten()
        self._wake()

    def lose(self) -> None:
        self.lost = True
        self._wake()

    def after(self, cursor_id: str) -> list[_Kept] | None:
        """Some events after this one; None when the ring does not reach back so far."""
        at = id_tuple(cursor_id)
        if at < self._floor:
            return None
        begin = bisect_right(self._ring, at, key=lambda one: one.number)
        return self._ring[begin : begin + READ_COUNT]

    async def changed(self) -> None:
        """Wait for the next delivery."""
        await asyncio.shield(self._pulse)

    def _wake(self) -> None:
        pulse, self._pulse = self._pulse, asyncio.get_running_loop().create_future()
        pulse.set_result(None)

    def _shorten(self) -> None:
        """Let the older half go: seldom, so that the cost of moving the rest does not count."""
        count = max(1, len(self._ring) // 2)
        self._floor = self._ring[count - 1].number
        self._bytes -= sum(_size(one) for one in self._ring[:count])
        del self._ring[:count]


class ResponseTail:
    """All readers of a process. `run` reads for them until cancelled."""

    def __init__(self, reader: StreamReader, store: ResponseEvents, *, ring_bytes: int = RING_BYTES) -> None:
        self._reader = reader
        self._store = store
        self._ring_bytes = ring_bytes
        self._tails: dict[str, _Tail] = {}

    @classmethod
    def on(cls, redis_url: str, store: ResponseEvents, *, ring_bytes: int = RING_BYTES) -> ResponseTail:
        reader = StreamReader(redis_url, store.redis, str(uuid.uuid4()))
        return cls(reader, store, ring_bytes=ring_bytes)

    @property
    def count(self) -> int:
        """Responses that somebody reads."""
        return len(self._tails)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reader.run())
            tasks.create_task(self._watch())

    async def open(self, response_id: str, start: str) -> Position:
        """Where to begin: '0' = the oldest kept, '$' = only new events, else after that id.

        Raises NotFound, InvalidRequest (not an id), StreamTrimmed (events after that id are gone already).
        """
        ends = await self._store.ends(response_id) if keys.is_run_id(response_id) else None
        if ends is None:
            raise NotFound(f"no events of response {response_id[:80]!r}: it never was, or is read from the archive")
        oldest, newest = ends
        trace = _trace_of(newest)
        if start == "0":
            return Position(START, trace=trace)
        wanted = id_tuple(newest.id if start == "$" else start)
        first = id_tuple(oldest.id)
        if first[0] < FIRST_TIME_MS and wanted[0] + 1 < first[0]:
            raise _trimmed(response_id, oldest.id)
        last = frame_of(newest)
        ended = wanted >= id_tuple(newest.id) and last is not None and last.terminal
        return Position(f"{wanted[0]}-{wanted[1]}", ended, trace)

    async def follow(self, response_id: str, position: Position) -> AsyncGenerator[list[Frame]]:
        """Batches of events after the position, each event once and in order, until the one that ends the response.

        Raises StreamTrimmed when events were trimmed before this reader got to them. While Redis is away nothing comes
        and nothing is lost.
        """
        if position.ended:
            return
        tail = self._tails.get(response_id)
        if tail is None:
            tail = self._tails[response_id] = _Tail(response_id, self._ring_bytes)
        tail.readers += 1
        try:
            if tail.readers == 1:
                await self._reader.follow(keys.response_events(response_id), START, tail.deliver)
            while not position.ended:
                found = await self._next(tail, position)
                _check_contiguous(response_id, position, found)
                frames = [one.frame for one in found if one.frame is not None]
                position.id = found[-1].id
                if frames:
                    yield frames
                    position.ended = any(one.terminal for one in frames)
        finally:
            tail.readers -= 1
            if tail.readers == 0:
                self._drop(tail)

    async def _next(self, tail: _Tail, position: Position) -> Sequence[_Kept]:
        """The next events after the position, waiting for them."""
        while True:
            found = tail.after(position.id)
            if found:
                return found
            if tail.lost:
                raise _trimmed(tail.response_id, "0")
            if found is not None:
                await tail.changed()
                continue
            try:
                entries = await self._store.after(tail.response_id, position.id, count=READ_COUNT)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
                continue
            if not entries:
                raise _trimmed(tail.response_id, "0")
            return [_Kept(one.id, id_tuple(one.id), frame_of(one)) for one in entries]

    async def _watch(self) -> None:
        """Look, for all tails at once, whether their streams still are."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            tails = list(self._tails.values())
            try:
                gone = set(await self._store.gone([tail.response_id for tail in tails])) if tails else set()
            except StoreUnavailable:
                continue
            for tail in tails:
                if tail.response_id in gone:
                    # Whoever comes next begins anew: the stream may come back with other events.
                    self._drop(tail)
                    tail.lose()

    def _drop(self, tail: _Tail) -> None:
        if self._tails.get(tail.response_id) is tail:
            del self._tails[tail.response_id]
            self._reader.unfollow(keys.response_events(tail.response_id))


def frame_of(entry: Entry) -> Frame | None:
    """An event as readers get it; None for what is no JSON object: the projector parks it. Pure."""
    try:
        value = orjson.loads(entry.event)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    # One line, whatever wrote it: a newline would end the frame's data.
    data = entry.event if b"\n" not in entry.event and b"\r" not in entry.event else orjson.dumps(value)
    terminal = value.get("type") in TERMINAL_EVENT_TYPES
    return Frame(entry.id, id_tuple(entry.id)[0], terminal, b"id: %b\ndata: %b\n\n" % (entry.id.encode(), data))


def _size(kept: _Kept) -> int:
    return len(kept.frame.sse) if kept.frame is not None else len(kept.id)


def _trace_of(entry: Entry) -> TraceContext | None:
    if not is_tracing():
        return None
    try:
        return read_stream_event(entry.event).trace_context
    except MalformedEvent:
        return None


def _check_contiguous(response_id: str, position: Position, found: Sequence[_Kept]) -> None:
    """Nothing is missing between the position and these events, nor among them."""
    before = id_tuple(position.id)[0] if position.id != START else None
    for one in found:
        number = one.number[0]
        if before is not None and number < FIRST_TIME_MS and number > before + 1:
            raise _trimmed(response_id, one.id)
        before = number


def _trimmed(response_id: str, earliest: str) -> StreamTrimmed:
    return StreamTrimmed(
        f"events of response {response_id} after your cursor are no longer kept: start again with from=0, or read "
        f"/api/v2/responses/{response_id}",
        earliest_event_id=earliest,
    )
