"""Readers of a Response's events: each reads from Redis behind its own cursor, woken by one blocking read for all."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field

import orjson

from cody.contracts.stream_events import TERMINAL_EVENT_TYPES
from cody.errors import NotFound, StoreUnavailable, StreamTrimmed
from cody.store import keys
from cody.store.events import Frame, id_tuple
from cody.store.reader import Entry as RawEntry
from cody.store.reader import StreamReader
from cody.store.response_events import Entry, ResponseEvents

START = "0-0"
READ_COUNT = 500
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


@dataclass(slots=True)
class _Watched:
    followed: bool = False
    news: set[asyncio.Event] = field(default_factory=set)

    def wake(self, entries: Sequence[RawEntry]) -> None:
        for one in self.news:
            one.set()


class ResponseTail:
    """All readers of a process. `run` reads for them until cancelled."""

    def __init__(self, reader: StreamReader, store: ResponseEvents) -> None:
        self._reader = reader
        self._store = store
        self._watched: dict[str, _Watched] = {}

    @classmethod
    def on(cls, redis_url: str, store: ResponseEvents) -> ResponseTail:
        return cls(StreamReader(redis_url, store.redis, str(uuid.uuid4())), store)

    async def run(self) -> None:
        await self._reader.run()

    async def open(self, response_id: str, start: str) -> Position:
        """Where to begin: '0' = the oldest kept, '$' = only new events, else after that id.

        Raises NotFound, InvalidRequest (not an id), StreamTrimmed (events after that id are gone already).
        """
        ends = await self._store.ends(response_id) if keys.is_run_id(response_id) else None
        if ends is None:
            raise NotFound(f"no events of response {response_id[:80]!r}: it never was, or is read from the archive")
        oldest, newest = ends
        if start == "0":
            return Position(START)
        wanted = id_tuple(newest.id if start == "$" else start)
        first = id_tuple(oldest.id)
        if first[0] < FIRST_TIME_MS and wanted[0] + 1 < first[0]:
            raise _trimmed(response_id, oldest.id)
        last = frame_of(newest)
        ended = wanted >= id_tuple(newest.id) and last is not None and last.terminal
        return Position(f"{wanted[0]}-{wanted[1]}", ended)

    async def follow(self, response_id: str, position: Position) -> AsyncIterator[list[Frame]]:
        """Batches of events after the position, each event once and in order, until the one that ends the response.

        Raises StreamTrimmed when events were trimmed before this reader got to them. While Redis is away nothing comes
        and nothing is lost.
        """
        with self._watching(response_id) as news:
            while not position.ended:
                news.clear()
                try:
                    await self._listen(response_id)
                    found = await self._store.after(response_id, position.id, count=READ_COUNT)
                    gone = not found and bool(await self._store.gone([response_id]))
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_S)
                    continue
                if gone:
                    raise _trimmed(response_id, "0")
                if not found:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_AGAIN_S):
                            await news.wait()
                    continue
                _check_contiguous(response_id, position, found)
                frames = [frame for frame in map(frame_of, found) if frame is not None]
                position.id = found[-1].id
                if frames:
                    yield frames
                    position.ended = frames[-1].terminal

    @contextlib.contextmanager
    def _watching(self, response_id: str) -> Iterator[asyncio.Event]:
        watched = self._watched.setdefault(response_id, _Watched())
        news = asyncio.Event()
        watched.news.add(news)
        try:
            yield news
        finally:
            watched.news.discard(news)
            if not watched.news:
                del self._watched[response_id]
                self._reader.unfollow(keys.response_events(response_id))

    async def _listen(self, response_id: str) -> None:
        """Be woken by what comes from now on; what is there already is read without that."""
        watched = self._watched[response_id]
        if not watched.followed:
            ends = await self._store.ends(response_id)
            newest = ends[1].id if ends else START
            watched.followed = True
            await self._reader.follow(keys.response_events(response_id), newest, watched.wake)


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


def _check_contiguous(response_id: str, position: Position, found: Sequence[Entry]) -> None:
    first, before = id_tuple(found[0].id)[0], id_tuple(position.id)[0]
    if position.id != START and first < FIRST_TIME_MS and first != before + 1:
        raise _trimmed(response_id, found[0].id)


def _trimmed(response_id: str, earliest: str) -> StreamTrimmed:
    return StreamTrimmed(
        f"events of response {response_id} after your cursor are no longer kept: start again with from=0, or read "
        f"/api/v2/responses/{response_id}",
        earliest_event_id=earliest,
    )
