"""Which Responses have something new: one stream for all of them, read by the projectors' group.

A notification is a hint: what is to be done is decided by the response's own stream, so a doubled or late one does no
harm, and a lost one is found by the projector's sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from cody.store import keys
from cody.store.availability import store_calls
from cody.store.clients import blocking_client
from cody.store.response_events import GROUP

MAX_BLOCK_MS = 20_000
CONSUMER_FORGOTTEN_AFTER_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class ResponseNews:
    """Response `response_id` had new events when this was written."""

    id: str
    response_id: str


@dataclass(frozen=True, slots=True)
class ResponseLag:
    """How far the projectors are behind: notifications that are not done, and the age of the oldest (0 = none)."""

    pending: int
    oldest_ms: int


class ResponseNewsReader:
    """One reader; `read` has a connection of its own. Close it with `aclose`. All methods raise StoreUnavailable."""

    def __init__(self, url: str, redis: Redis) -> None:
        # Silence beyond the longest BLOCK means that the connection is dead.
        self._blocking = blocking_client(url, reply_deadline_s=MAX_BLOCK_MS / 1000 + 10)
        self._redis = redis

    async def aclose(self) -> None:
        await self._blocking.aclose()

    async def read(self, projector: str, *, count: int, block_ms: int) -> list[ResponseNews]:
        """Up to `count` notifications that nobody was given yet, waiting for the first one up to `block_ms`."""
        block = min(max(block_ms, 1), MAX_BLOCK_MS)
        with store_calls("read the news of responses"):
            try:
                found = await self._read(projector, count, block)
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_group()
                found = await self._read(projector, count, block)
        return await self._known(found)

    async def claim_stale(self, projector: str, *, min_idle_ms: int, count: int = 1_000) -> list[ResponseNews]:
        """Notifications that were given to someone so long ago and are not done; forgets projectors that are gone."""
        with store_calls("claim the news of responses"):
            try:
                reply: Any = await self._redis.xautoclaim(
                    keys.RESPONSE_NEWS, GROUP, projector, min_idle_ms, count=count
                )
                for one in await self._redis.xinfo_consumers(keys.RESPONSE_NEWS, GROUP):
                    if one["pending"] == 0 and one["idle"] > CONSUMER_FORGOTTEN_AFTER_MS:
                        await self._redis.xgroup_delconsumer(keys.RESPONSE_NEWS, GROUP, one["name"])
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._create_group()
                return []
        return await self._known(reply[1])

    async def ack(self, ids: Sequence[str]) -> None:
        """These are done, and removed: the stream holds what is not projected yet."""
        if ids:
            with store_calls("acknowledge the news of responses"):
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.xack(keys.RESPONSE_NEWS, GROUP, *ids)
                    pipe.xdel(keys.RESPONSE_NEWS, *ids)
                    await pipe.execute()

    async def lag(self) -> ResponseLag:
        """By the clock of Redis."""
        with store_calls("look at the news of responses"):
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.time()
                pipe.xlen(keys.RESPONSE_NEWS)
                pipe.xrange(keys.RESPONSE_NEWS, count=1)
                (seconds, microseconds), pending, oldest = await pipe.execute()
        if not oldest:
            return ResponseLag(0, 0)
        now_ms = seconds * 1000 + microseconds // 1000
        return ResponseLag(int(pending), max(0, now_ms - int(oldest[0][0].split(b"-")[0])))

    async def _read(self, projector: str, count: int, block_ms: int) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        reply: Any = await self._blocking.xreadgroup(
            GROUP, projector, {keys.RESPONSE_NEWS: ">"}, count=count, block=block_ms
        )
        return [entry for _, entries in reply or () for entry in entries]

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(keys.RESPONSE_NEWS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _known(self, entries: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> list[ResponseNews]:
        news, others = [], []
        for entry_id, fields in entries:
            response_id = (fields or {}).get(b"runId", b"").decode("utf-8", "replace")
            if keys.is_run_id(response_id):
                news.append(ResponseNews(entry_id.decode(), response_id))
            else:
                others.append(entry_id.decode())
        # Not Cody's, or trimmed meanwhile: they would be given out for ever.
        await self.ack(others)
        return news
