"""The events of a Response in its Redis stream: published under a lease, given to one projector at a time, acknowledged.

Entry n of a stream has the id `n-0` and one field, `event`, the JSON of one StreamEvent. The numbers have no gap: a
reader sees from them that something was trimmed, and a repeated write adds nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from redis.asyncio import Redis

from cody.store import keys
from cody.store.availability import store_calls
from cody.store.scripts import Argument, script

GROUP = "codex-projector-group"
ENDED_TTL_S = 86_400
"""How long Redis keeps a Response that has ended, from when the archive has its end."""
THREAD_TTL_S = 86_400


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it lies in the stream. `event` is what was written there: by Cody JSON, by others anything."""

    id: str
    event: bytes


class Published(StrEnum):
    """What became of a write."""

    OK = "ok"
    DUPLICATE = "duplicate"
    """All of it was here already: a call repeated after a lost reply."""
    FENCED = "fenced"
    """Another publisher holds the response."""
    ENDED = "ended"
    """It was ended from outside: aborted, or its publisher was taken for dead."""


class Ending(StrEnum):
    """What became of the wish to end a response from outside."""

    OK = "ok"
    HELD = "held"
    """Its publisher lives."""
    ENDED = "ended"
    GONE = "gone"
    """Redis has no such response (any more)."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The next events, in order; none = that was all for now. They stay ours for the time of the lease."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class TakenByOther:
    """Another projector works on this response."""


@dataclass(frozen=True, slots=True)
class NothingThere:
    """There is no stream of this response."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An event that the projector parks, and why."""

    entry: Entry
    code: str
    reason: str


class ResponseEvents:
    """The streams of all Responses. Every method raises StoreUnavailable when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @property
    def redis(self) -> Redis:
        """The client, for others of the store."""
        return self._redis

    async def publish(
        self,
        response_id: str,
        events: Sequence[bytes],
        *,
        publisher: str,
        lease_ms: int,
        first: int,
        ends: bool,
        thread_id: str | None = None,
    ) -> Published:
        """Add events, the first of which has the number `first`; may be repeated. `thread_id`: with the first ones."""
        names = [
            keys.response_events(response_id),
            keys.response_publisher(response_id),
            keys.RESPONSES_ACTIVE,
            keys.RESPONSE_NEWS,
        ]
        if thread_id is not None:
            names.append(keys.thread_responses(thread_id))
        args: list[Argument] = [
            publisher,
            lease_ms,
            first,
            len(events),
            response_id,
            GROUP,
            int(ends),
            keys.NEWS_MAXLEN,
            keys.THREAD_RESPONSES_KEPT,
            THREAD_TTL_S,
            *events,
        ]
        with store_calls(f"publish events of response {response_id}"):
            answer = await script("response_publish")(self._redis, names, args)
        return Published(answer[0].decode())

    async def renew(self, response_ids: Sequence[str], *, publisher: str, lease_ms: int) -> list[str]:
        """Renew the leases of these responses in one call; answers the ids that are not ours any more."""
        if not response_ids:
            return []
        names = [keys.RESPONSES_ACTIVE]
        for response_id in response_ids:
            names += [keys.response_publisher(response_id), keys.response_events(response_id)]
        with store_calls("renew the leases of responses"):
            answer = await script("response_renew")(self._redis, names, [publisher, lease_ms, *response_ids])
        return [response_id for response_id, ours in zip(response_ids, answer, strict=True) if not ours]

    async def end(self, response_id: str, event: bytes, *, only_if_abandoned: bool) -> Ending:
        """Add the last event from outside of the response's publisher, who is told so by its next write."""
        names = [
            keys.response_events(response_id),
            keys.response_publisher(response_id),
            keys.RESPONSES_ACTIVE,
            keys.RESPONSE_NEWS,
        ]
        args: list[Argument] = [response_id, event, int(only_if_abandoned), keys.NEWS_MAXLEN]
        with store_calls(f"end response {response_id}"):
            return Ending((await script("response_end")(self._redis, names, args)).decode())

    async def without_publisher(self) -> list[str]:
        """Responses that go on, and whose publisher's lease is gone."""
        with store_calls("look for responses without a publisher"):
            members: Any = await self._redis.zrange(keys.RESPONSES_ACTIVE, 0, -1)
            found = [member.decode("utf-8", "replace") for member in members]
            async with self._redis.pipeline(transaction=False) as pipe:
                for response_id in found:
                    pipe.exists(keys.response_publisher(response_id))
                held = await pipe.execute()
        return [response_id for response_id, is_held in zip(found, held, strict=True) if not is_held]

    async def take(
        self, response_id: str, *, projector: str, lease_ms: int, count: int
    ) -> Taken | TakenByOther | NothingThere:
        """Own the response's projection, and get its next events: those first that nobody acknowledged."""
        names = [keys.response_events(response_id), keys.response_projector(response_id)]
        with store_calls(f"read the events of response {response_id} for the archive"):
            answer = await script("response_take")(self._redis, names, [projector, lease_ms, count, GROUP])
        match answer[0]:
            case b"ok":
                return Taken([entry_of(entry_id, flat) for entry_id, flat in answer[1]])
            case b"held":
                return TakenByOther()
            case _:
                return NothingThere()

    async def give_back(self, response_id: str, *, projector: str) -> None:
        """Own the response's projection no longer; what was not acknowledged is the next one's."""
        with store_calls(f"give response {response_id} back"):
            await script("release")(self._redis, [keys.response_projector(response_id)], [projector])

    async def ack(
        self,
        response_id: str,
        ids: Sequence[str],
        *,
        projector: str,
        letters: Sequence[Letter] = (),
        release: bool,
        ended: bool,
        kept: int = keys.RESPONSE_EVENTS_KEPT,
    ) -> None:
        """These events are done; `letters` are those of them that are parked. May be repeated.

        Of what is acknowledged, the newest `kept` stay for readers. `ended`: all of it gets a TTL.
        """
        names = [keys.response_events(response_id), keys.response_projector(response_id), keys.DEAD_LETTERS]
        args: list[Argument] = [
            projector,
            int(release),
            ENDED_TTL_S if ended else "",
            kept,
            GROUP,
            response_id,
            keys.DEAD_LETTERS_MAXLEN,
            len(ids),
            *ids,
        ]
        for letter in letters:
            args += (letter.entry.id, letter.entry.event, letter.code, letter.reason)
        with store_calls(f"acknowledge events of response {response_id}"):
            await script("response_ack")(self._redis, names, args)

    async def read(self, response_id: str, *, count: int) -> list[Entry]:
        """The oldest `count` events that are kept."""
        with store_calls(f"read the events of response {response_id}"):
            found: Any = await self._redis.xrange(keys.response_events(response_id), count=count)
        return [entry_of(entry_id, fields) for entry_id, fields in found]

    async def after(self, response_id: str, entry_id: str, *, count: int) -> list[Entry]:
        """Up to `count` events that come after this one."""
        with store_calls(f"read the events of response {response_id}"):
            found: Any = await self._redis.xrange(keys.response_events(response_id), min=f"({entry_id}", count=count)
        return [entry_of(one_id, fields) for one_id, fields in found]

    async def ends(self, response_id: str) -> tuple[Entry, Entry] | None:
        """The oldest and the newest event that are kept; None = there is no such stream."""
        key = keys.response_events(response_id)
        with store_calls(f"read the events of response {response_id}"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xrange(key, count=1)
                pipe.xrevrange(key, count=1)
                oldest, newest = await pipe.execute()
        return (entry_of(*oldest[0]), entry_of(*newest[0])) if oldest else None

    async def gone(self, response_ids: Sequence[str]) -> list[str]:
        """Those of these responses that have no stream (any more)."""
        with store_calls("look whether responses are still there"):
            async with self._redis.pipeline(transaction=False) as pipe:
                for response_id in response_ids:
                    pipe.exists(keys.response_events(response_id))
                there = await pipe.execute()
        return [response_id for response_id, is_there in zip(response_ids, there, strict=True) if not is_there]

    async def thread(self, thread_id: str) -> list[str]:
        """The responses of a thread that were begun within the last day, in the order in which they were."""
        with store_calls(f"read thread {thread_id}"):
            found: Any = await self._redis.zrange(keys.thread_responses(thread_id), 0, -1)
        return [member.decode("utf-8", "replace") for member in found]

    async def unprojected(self, cursor: int) -> tuple[int, list[str]]:
        """Some streams that hold what no projector has acknowledged, and the cursor to go on with (0 = that was all).

        For those that no notification told of: the news was trimmed, or someone else wrote the events.
        """
        with store_calls("go through the responses"):
            reply: Any = await self._redis.scan(cursor, match=keys.response_events("*"), count=1_000, _type="stream")
            at, names = reply
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.xinfo_groups(name)
                groups = await pipe.execute(raise_on_error=False)
        ids = []
        for name, known in zip(names, groups, strict=True):
            response_id = name.decode("utf-8", "replace").split(":")[2]
            if keys.is_run_id(response_id) and not (isinstance(known, list) and _is_done(known)):
                ids.append(response_id)
        return int(at), ids


def _is_done(groups: Sequence[Mapping[str, Any]]) -> bool:
    ours = next((one for one in groups if one["name"] == GROUP.encode()), None)
    return ours is not None and ours["pending"] == 0 and ours["lag"] == 0


def entry_of(entry_id: bytes, fields: Sequence[bytes] | Mapping[bytes, bytes]) -> Entry:
    """A stream entry as Redis gives it, whoever wrote it."""
    found = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=False))
    return Entry(entry_id.decode(), found.get(b"event") or next(iter(found.values()), b""))
