"""The archive's news: one stream that says which runs have something new, read by a consumer group.

`commit.lua` and `create.lua` add a notification to it; each goes to one of those who archive, and what that one did
not acknowledge is claimed by another. A notification is a hint and nothing more: what to archive is decided by the
run's own stream, so a doubled, late or lost one does no harm (lost ones are found by the sweep).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from structlog import get_logger

from cody.store import keys
from cody.store.availability import store_calls
from cody.store.clients import blocking_client

log = get_logger()

GROUP = "codi-archive-group"
MAX_BLOCK_MS = 20_000
CONSUMER_FORGOTTEN_AFTER_MS = 3_600_000
"""Every process is a consumer of its own; those that went an hour ago and left nothing behind are removed."""

RawEntry = tuple[bytes, dict[bytes, bytes] | None]


@dataclass(frozen=True, slots=True)
class News:
    """Run `run_id` had reached `seq` when this was written."""

    id: str
    run_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Lag:
    """What was not acknowledged yet: how many notifications, and the age of the oldest (0 = there is none)."""

    pending: int
    oldest_ms: int


class ArchiveNews:
    """The stream and its group. One reader per instance: `read` has a connection of its own. Close it with `aclose`.

    All methods raise StoreUnavailable when Redis is away.
    """

    def __init__(self, url: str, redis: Redis) -> None:
        # Silence beyond the longest BLOCK means that the connection is dead.
        self._blocking = blocking_client(url, reply_deadline_s=MAX_BLOCK_MS / 1000 + 10)
        self._redis = redis

    async def aclose(self) -> None:
        await self._blocking.aclose()

    async def join(self, consumer: str) -> None:
        """Be one of those who archive: what runs say from now on is kept until it is archived. May be repeated."""
        with store_calls("join those who archive"):
            await self._create_group()
            await self._redis.xgroup_createconsumer(keys.ARCHIVE_NEWS, GROUP, consumer)

    async def read(self, consumer: str, *, count: int, block_ms: int) -> list[News]:
        """Up to `count` notifications that nobody was given yet, waiting for the first one up to `block_ms`.

        Cancelled, or its reply lost: what was on its way is found by `claim_stale`.
        """
        with store_calls("read the archive's news"):
            try:
                found = await self._read_group(consumer, count, block_ms)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                # The first read ever, or Redis was wiped.
                await self._create_group()
                found = await self._read_group(consumer, count, block_ms)
        return await self._known(found)

    async def claim_stale(
        self,
        consumer: str,
        *,
        min_idle_ms: int,
        count: int = 1000,
        forget_after_ms: int = CONSUMER_FORGOTTEN_AFTER_MS,
    ) -> list[News]:
        """Notifications that were given to someone (also to this consumer) and not acknowledged for so long.

        Forgets consumers that have not been heard of for `forget_after_ms` and hold nothing.
        """
        with store_calls("claim the archive's news"):
            try:
                _, entries, *_ = await self._redis.xautoclaim(
                    keys.ARCHIVE_NEWS, GROUP, consumer, min_idle_ms, count=count
                )
                await self._forget_consumers(forget_after_ms)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_group()
                return []
        return await self._known(cast("list[RawEntry]", entries))

    async def ack(self, ids: Sequence[str]) -> None:
        """These are done: nobody gets them again. They are removed: the stream holds what is not archived yet."""
        if not ids:
            return
        with store_calls("acknowledge the archive's news"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(keys.ARCHIVE_NEWS, GROUP, *ids)
                pipe.xdel(keys.ARCHIVE_NEWS, *ids)
                await pipe.execute()

    async def lag(self) -> Lag:
        """How far behind the archive is, by the clock of Redis."""
        with store_calls("look at the archive's news"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.time()
                pipe.xlen(keys.ARCHIVE_NEWS)
                pipe.xrange(keys.ARCHIVE_NEWS, count=1)
                (seconds, microseconds), pending, oldest = await pipe.execute()
        if not oldest:
            return Lag(0, 0)
        now_ms = seconds * 1000 + microseconds // 1000
        return Lag(int(pending), max(0, now_ms - int(oldest[0][0].split(b"-")[0])))

    async def _read_group(self, consumer: str, count: int, block_ms: int) -> list[RawEntry]:
        block = min(max(block_ms, 1), MAX_BLOCK_MS)
        reply: Any = await self._blocking.xreadgroup(
            GROUP, consumer, {keys.ARCHIVE_NEWS: ">"}, count=count, block=block
        )
        return [entry for _, entries in reply or () for entry in entries]

    async def _create_group(self) -> None:
        try:
            # From the beginning: what was written before the first reader came belongs to it.
            await self._redis.xgroup_create(keys.ARCHIVE_NEWS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _forget_consumers(self, after_ms: int) -> None:
        for one in await self._redis.xinfo_consumers(keys.ARCHIVE_NEWS, GROUP):
            if one["pending"] == 0 and one["idle"] > after_ms:
                await self._redis.xgroup_delconsumer(keys.ARCHIVE_NEWS, GROUP, one["name"])

    async def _known(self, entries: Iterable[RawEntry]) -> list[News]:
        news, others = [], []
        for entry_id, fields in entries:
            found = _news(entry_id, fields)
            if found is None:
                others.append(entry_id.decode())
            else:
                news.append(found)
        if others:
            # Not written by any Cody, or trimmed meanwhile: they would be given out for ever.
            log.warning("archive.news_dropped", ids=others[:10], count=len(others))
            await self.ack(others)
        return news


def _news(entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> News | None:
    try:
        run_id, seq = (fields or {})[b"runId"].decode(), int((fields or {})[b"seq"])
    except (KeyError, ValueError):
        return None
    return News(entry_id.decode(), run_id, seq) if keys.is_run_id(run_id) else None
