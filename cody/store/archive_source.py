"""What the archive reads of runs in Redis, and the TTL that a run gets when the archive has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cody.store import keys
from cody.store.availability import is_wrong_type, store_calls
from cody.store.meta import MetaCorrupt
from cody.store.scripts import script

UNREADABLE = ""
RawEvent = tuple[bytes, Mapping[bytes, bytes]]
"""An entry of a run's stream: its id and its fields."""


@dataclass(frozen=True, slots=True)
class RunReading:
    """A run at one instant: meta and events belong together."""

    meta: Mapping[str, str]
    """Empty: Redis has no such run (any more)."""
    oldest_id: str | None
    """The oldest event that is kept."""
    events: Sequence[RawEvent]
    """From the given id on, that event included when it is still there."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """As much of a run as tells whether the archive has missed something."""

    run_id: str
    status: str
    """UNREADABLE: its meta is there, and holds something that is not Cody's."""
    updated_at: str
    last_seq: int
    has_ttl: bool


class ArchiveSource:
    """Reads runs for the archive. All methods raise StoreUnavailable when Redis is away.

    Those that read one run raise MetaCorrupt when its keys hold something else.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, run_id: str, *, from_id: str | None, count: int) -> RunReading:
        """The run's meta, and up to `count` events from `from_id` on (None = from the oldest), of one instant."""
        key = keys.events(run_id)
        with store_calls(f"read run {run_id} for the archive"), _of_the_right_type(run_id):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(keys.meta(run_id))
                pipe.xrange(key, count=1)
                pipe.xrange(key, min=from_id or "-", count=count)
                meta, oldest, events = await pipe.execute()
        return RunReading(
            meta={name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in meta.items()},
            oldest_id=oldest[0][0].decode() if oldest else None,
            events=cast("Sequence[RawEvent]", events),
        )

    async def turn_records(self, run_id: str, turns: Sequence[int]) -> list[bytes]:
        """The records of these turns as JSON; those that do not exist are left out."""
        if not turns:
            return []
        with store_calls(f"read the turns of run {run_id} for the archive"), _of_the_right_type(run_id):
            found: Any = await self._redis.hmget(keys.turns(run_id), [str(turn) for turn in turns])
        return [record for record in found if record is not None]

    async def listed(self, cursor: int, *, count: int = 500) -> tuple[int, list[ListedRun]]:
        """Some runs of the index, and the cursor to go on with (0 = that was all). A run may be given twice.

        Runs that Redis has let go of are taken out of the index.
        """
        with store_calls("go through the runs for the archive"):
            reply: Any = await self._redis.zscan(keys.INDEX, cursor, count=count)
            members = [member.decode("utf-8", "replace") for member, _ in reply[1]]
            ids = [member for member in members if keys.is_run_id(member)]
            async with self._redis.pipeline(transaction=False) as pipe:
                for run_id in ids:
                    pipe.hmget(keys.meta(run_id), ["status", "updatedAt", "lastSeq"])
                    pipe.pttl(keys.meta(run_id))
                # One key of another type must not hide all the others.
                answers = await pipe.execute(raise_on_error=False)
            found, forgotten = [], []
            for run_id, head, ttl_ms in zip(ids, answers[::2], answers[1::2], strict=True):
                if ttl_ms == NO_SUCH_KEY:
                    forgotten.append(run_id)
                else:
                    found.append(_listed(run_id, head, ttl_ms))
            if forgotten:
                await self._redis.zrem(keys.INDEX, *forgotten)
        return int(reply[0]), found

    async def tell_archived(self, run_id: str, seq: int | None) -> None:
        """The archive has the run's events up to this one: only now may they be trimmed. None = it takes no more."""
        with store_calls(f"tell how far run {run_id} is archived"), _of_the_right_type(run_id):
            await script("archived")(self._redis, [keys.meta(run_id)], ["" if seq is None else seq])

    async def expire(self, run_id: str, *, ttl_s: int, last_seq: int) -> bool:
        """See `expire_run`."""
        with store_calls(f"set the TTL of run {run_id}"):
            return await expire_run(self._redis, run_id, ttl_s=ttl_s, last_seq=last_seq)


NO_SUCH_KEY = -2
"""PTTL's answer."""


def _listed(run_id: str, head: Any, ttl_ms: Any) -> ListedRun:
    """The run by what HMGET and PTTL answered, errors included; raises those that are not about its key."""
    for answer in (head, ttl_ms):
        if isinstance(answer, Exception) and not is_wrong_type(answer):
            raise answer
    if isinstance(head, Exception) or head[0] is None:
        return ListedRun(run_id, UNREADABLE, "", -1, ttl_ms >= 0)
    status, updated_at, last_seq = head
    number = int(last_seq) if last_seq and last_seq.isdigit() else -1
    updated = (updated_at or b"").decode("utf-8", "replace")
    return ListedRun(run_id, status.decode("utf-8", "replace"), updated, number, ttl_ms >= 0)


@contextmanager
def _of_the_right_type(run_id: str) -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        # Redis is well, and says so every time: waiting for it would hold up every other run.
        if not is_wrong_type(error):
            raise
        raise MetaCorrupt(f"a key of run {run_id} holds something that is not Cody's: {error}") from None


async def expire_run(redis: Redis, run_id: str, *, ttl_s: int, last_seq: int) -> bool:
    """Let Redis forget a run that has ended, `ttl_s` from now.

    False when it has not ended, or has events after `last_seq`. Repeating it gives the run no more time; a longer TTL
    that it had is shortened.
    """
    names = [keys.meta(run_id), *(key for key in keys.of_run(run_id) if key != keys.meta(run_id))]
    return bool(await script("expire")(redis, names, [ttl_s, last_seq]) == b"ok")
