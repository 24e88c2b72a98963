"""Clients of the store that never send a command twice, lose a cancellation or mistake a reply.

redis-py 8.1 as it comes does all three: it repeats a command up to 10 times after a lost reply (an XADD is then added
twice), gives up on a blocking read after 5 s, and sends through `asyncio.wait_for`, which on Python 3.11 swallows a
cancellation that meets a finished send. Hence connection classes of our own, and every option set here, not by the URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import hiredis
import redis.asyncio.connection as redis_connection
from redis import exceptions as redis_errors
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from cody.errors import ConfigurationError

COMMAND_DEADLINE_S = 5.0
"""For the send and for the reply of a short command each: well under a lease (15 s), to see a stall in time."""

CONNECT_DEADLINE_S = 5.0
MAX_CONNECTIONS = 32

ALLOWED_URL_OPTIONS = frozenset({"connection_class", "username", "password", "host", "port", "db", "path"})


def connect(
    url: str, *, command_deadline_s: float = COMMAND_DEADLINE_S, max_connections: int = MAX_CONNECTIONS
) -> Redis:
    """A pooled client for short commands; bytes in, bytes out; not connected yet. Close it with `aclose()`.

    A command whose reply is lost raises (redis.exceptions.ConnectionError, TimeoutError) and is never repeated: whether
    it took effect is unknown, and only the caller can tell whether repeating it is harmless. A cancelled or overdue
    command drops its connection. When all connections are busy, a command waits for one up to `command_deadline_s`.
    Raises ConfigurationError for a URL that is not understood.
    """
    return _client(
        url,
        reply_deadline_s=command_deadline_s,
        max_connections=max_connections,
        pool_deadline_s=command_deadline_s,
    )


def blocking_client(url: str, *, reply_deadline_s: float | None = None) -> Redis:
    """A client with one connection of its own, for XREAD BLOCK; commands given at the same time wait for each other.

    Replies may take for ever, unless `reply_deadline_s` is given: it must be longer than the longest BLOCK, and tells a
    stalled server from a quiet stream. A peer that vanished without a word is found by TCP keepalive within a minute.
    Raises ConfigurationError for a URL that is not understood.
    """
    return _client(url, reply_deadline_s=reply_deadline_s, max_connections=1, pool_deadline_s=None)


def address(client: Redis) -> str:
    """Where `client` connects to, as a URL without user name and password."""
    options = client.connection_pool.connection_kwargs
    db = options.get("db", 0)
    if "path" in options:
        return f"unix://{quote(options['path'])}" + (f"?db={db}" if db else "")
    scheme = "rediss" if issubclass(client.connection_pool.connection_class, _TlsConnection) else "redis"
    host = options.get("host", "localhost")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.get('port', 6379)}/{db}"


class _Deadlines(redis_connection.AbstractConnection):
    """Deadlines by `asyncio.timeout` instead of redis-py's own (a missed one closes the connection); packing by hiredis."""

    def __init__(self, *, reply_deadline_s: float | None, **options: Any) -> None:
        # Without a socket_timeout redis-py does not use wait_for, see above.
        super().__init__(socket_timeout=None, **options)
        self._reply_deadline_s = reply_deadline_s

    def pack_command(self, *args: Any) -> list[bytes]:
        """By hiredis, as redis-py's blocking connections do; its asyncio ones pack in Python, at six times the cost."""
        words = args[0].split() if isinstance(args[0], str | bytes) else args[:1]  # a name may be two: CONFIG GET
        try:
            return [hiredis.pack_command((*words, *args[1:]))]
        except TypeError as error:
            raise redis_errors.DataError(f"a command holds a value that Redis can't keep: {error}") from None

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        try:
            async with asyncio.timeout(self._reply_deadline_s):
                await super().send_packed_command(command, check_health)
        except TimeoutError:
            raise redis_errors.TimeoutError(f"Timeout writing to {self._host_error()}") from None

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> Any:
        # A caller's own `timeout` (math.inf: none, for pub/sub) goes before ours.
        deadline_s = self._reply_deadline_s if timeout is None else None
        try:
            async with asyncio.timeout(deadline_s):
                return await super().read_response(
                    disable_decoding, timeout, disconnect_on_error=disconnect_on_error, push_request=push_request
                )
        except TimeoutError:
            raise redis_errors.TimeoutError(f"Timeout reading from {self._host_error()}") from None


class _TcpConnection(_Deadlines, redis_connection.Connection):
    pass


class _TlsConnection(_Deadlines, redis_connection.SSLConnection):
    pass


class _UnixConnection(_Deadlines, redis_connection.UnixDomainSocketConnection):
    pass


def _client(url: str, *, reply_deadline_s: float | None, max_connections: int, pool_deadline_s: float | None) -> Redis:
    pool = BlockingConnectionPool(
        max_connections=max_connections,
        timeout=pool_deadline_s,
        reply_deadline_s=reply_deadline_s,
        socket_connect_timeout=CONNECT_DEADLINE_S,
        # Explicit: with the default of 10 retries a lost reply adds an event twice.
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        # RESP2: one shape of reply from every server, no HELLO and no pushes between the replies.
        protocol=2,
        # On by default over TCP, and then the pool no longer notices that the server closed an idle connection: the
        # next command after a restart of Redis fails.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        # No CLIENT SETINFO: two commands on every connect, unknown to Redis 7.0.
        driver_info=None,
        **_url_options(url),
    )
    return Redis.from_pool(pool)


def _url_options(url: str) -> dict[str, Any]:
    """What the URL says about where to connect, with our connection class. Errors never quote it (passwords)."""
    try:
        options: dict[str, Any] = dict(redis_connection.parse_url(url))
    except ValueError:
        raise ConfigurationError(
            "REDIS_URL is not understood: use redis://[user:password@]host:port/db, rediss://... or unix:///path "
            "(percent-encode special characters in the password)"
        ) from None
    foreign = {name for name in options.keys() - ALLOWED_URL_OPTIONS if not name.startswith("ssl_")}
    if foreign:
        raise ConfigurationError(
            f"REDIS_URL has options that Cody sets itself ({', '.join(sorted(foreign))}): remove them"
        )
    kind = options.pop("connection_class", redis_connection.Connection)
    if issubclass(kind, redis_connection.UnixDomainSocketConnection):
        if not options.get("path"):
            raise ConfigurationError("REDIS_URL names no socket: use unix:///path/to/redis.sock")
        return {**options, "connection_class": _UnixConnection}
    return {
        **options,
        "connection_class": _TlsConnection if issubclass(kind, redis_connection.SSLConnection) else _TcpConnection,
    }
