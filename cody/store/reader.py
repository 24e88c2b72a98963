"""One blocking read over any number of streams: one connection, no polling.

`XREAD BLOCK` takes its streams when it starts. A stream that is added while it blocks would be seen only at the next read, so
the reader also reads a stream of its own, the wake stream: an entry there ends the read at once, and cannot be missed even
when it is added before the read begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError
from structlog import get_logger

from cody.store import keys
from cody.store.availability import is_wrong_type
from cody.store.clients import blocking_client

log = get_logger()

BLOCK_MS = 20_000
"""A read that found nothing is started again after this time: a connection that died silently is noticed by then."""
READ_COUNT = 1_000
MAX_BACKOFF_S = 1.0

Entry = tuple[bytes, Sequence[bytes]]
Deliver = Callable[[Sequence[Entry]], None]


@dataclass(slots=True)
class _Followed:
    last_id: str
    deliver: Deliver


class StreamReader:
    """Follows streams and hands each entry on once, in order; survives a Redis that goes and comes back.

    `deliver` is called on the event loop with the new entries of one stream (raw: id, and field, value, ...). A key that holds
    something else than a stream would fail the read of all the others: it is not followed any more, and `on_broken` is called
    with it. Neither must block or raise.
    """

    def __init__(
        self, url: str, redis: Redis, reader_id: str, on_broken: Callable[[str], None] = lambda key: None
    ) -> None:
        # Redis answers after BLOCK_MS at the latest; silence beyond that means that the connection is dead.
        self._client = blocking_client(url, reply_deadline_s=BLOCK_MS / 1000 + 10)
        self._redis = redis
        self._on_broken = on_broken
        self._wake_key = keys.wake(reader_id)
        self._wake_id = "0"
        self._streams: dict[str, _Followed] = {}
        self._anything = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._reading = False
        self.connected = False

    async def follow(self, key: str, last_id: str, deliver: Deliver) -> None:
        """Deliver what comes after `last_id` in this stream, from now on."""
        self._streams[key] = _Followed(last_id, deliver)
        self._anything.set()
        if not self._reading:
            # The next read begins with this stream in it.
            return
        # Redis away: the read fails too, and the next one takes the new stream with it.
        with contextlib.suppress(RedisError, OSError):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.xadd(self._wake_key, {"n": "1"}, maxlen=1, approximate=False)
                pipe.expire(self._wake_key, keys.WAKE_TTL_S)
                await pipe.execute()

    def unfollow(self, key: str) -> None:
        """Deliver nothing more from this stream."""
        self._streams.pop(key, None)
        if not self._streams:
            self._anything.clear()

    async def run(self) -> None:
        """Read until cancelled."""
        backoff_s = 0.0
        try:
            while True:
                await self._anything.wait()
                try:
                    await self._read_once()
                    backoff_s = 0.0
                except (RedisError, OSError, TimeoutError) as error:
                    await self._drop_connection()
                    if backoff_s == 0.0:
                        log.warning("store.read_failed", error=str(error)[:300])
                    backoff_s = min(MAX_BACKOFF_S, max(0.02, backoff_s * 2))
                    if is_wrong_type(error):
                        await self._leave_broken()
                    await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, not a secret
        finally:
            # An answer may be on its way: the connection must not be used for anything else.
            await self._drop_connection()
            await self._client.aclose()

    async def _leave_broken(self) -> None:
        """Follow no longer what is not a stream; where Redis can't say what it is, the next failure comes here again."""
        followed = dict(self._streams)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in followed:
                    pipe.type(key)
                types = await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            return
        for (key, one), kind in zip(followed.items(), types, strict=True):
            if kind not in (b"stream", b"none") and self._streams.get(key) is one:
                log.error("store.not_a_stream", key=key, type=kind.decode())
                self.unfollow(key)
                self._on_broken(key)

    async def _drop_connection(self) -> None:
        self.connected = False
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect()
            with contextlib.suppress(RedisError, OSError, KeyError):
                await self._client.connection_pool.release(connection)

    async def _read_once(self) -> None:
        if self._connection is None:
            self._connection = await self._client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
            self.connected = True
        # From here on a new stream has to wake the read, which may outlast the last stream that it was begun with.
        self._reading = True
        followed = dict(self._streams)
        reading = {self._wake_key: self._wake_id} | {key: one.last_id for key, one in followed.items()}
        try:
            await self._connection.send_command(
                "XREAD", "COUNT", READ_COUNT, "BLOCK", BLOCK_MS, "STREAMS", *reading.keys(), *reading.values()
            )
            # Read from the connection itself: redis-py's parsing of XREAD into dicts costs more than all the rest.
            found = await self._connection.read_response()
        finally:
            self._reading = False
        if isinstance(found, ResponseError):
            raise found
        for raw_key, entries in found or ():
            self._take(raw_key.decode(), entries, followed)

    def _take(self, key: str, entries: Sequence[Entry], followed: Mapping[str, _Followed]) -> None:
        if key == self._wake_key:
            self._wake_id = entries[-1][0].decode()
            return
        one = self._streams.get(key)
        # One that was followed anew meanwhile, from an older place, would miss what lies between.
        if one is not None and one is followed.get(key):
            one.last_id = entries[-1][0].decode()
            one.deliver(entries)
