"""What kind of Redis the store is, and how much of what it accepts it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio import Redis

from cody.errors import StoreUnavailable
from cody.store.clients import address
from cody.store.server_binary import Flavour, is_supported


@dataclass(frozen=True)
class ServerFacts:
    """`appendfsync` and `rdb_save` are None when the server does not tell (CONFIG is forbidden on some hosted ones).

    `degraded` says in plain words what may be lost; None when only power loss costs anything, and then about a second.
    """

    version: str
    flavour: Flavour
    aof_enabled: bool
    appendfsync: str | None
    rdb_save: bool | None
    degraded: str | None


async def check(client: Redis) -> ServerFacts:
    """The facts of the server that `client` talks to, asked anew each time (two round trips).

    Raises StoreUnavailable with the address (never the password) and what to do, when it is not reachable, refuses the
    credentials, is still loading its data, or is older than Redis 7.0.
    """
    where = address(client)
    try:
        info = await client.info()
        settings = await _settings(client)
    except (redis_errors.RedisError, OSError) as error:
        raise _unavailable(where, error) from error
    facts = facts_from(info, settings)
    require_supported(where, facts)
    return facts


def require_supported(where: str, facts: ServerFacts) -> None:
    """Raises StoreUnavailable when the server at `where` is older than Redis 7.0."""
    if not is_supported(facts.version):
        raise StoreUnavailable(f"Redis at {where} is {facts.flavour} {facts.version}: Cody needs 7.0 or later")


def facts_from(info: Mapping[str, Any], settings: Mapping[str, str] | None) -> ServerFacts:
    """Facts out of INFO (its default sections) and CONFIG GET (None: not allowed).

    Valkey calls itself redis_version 7.2.4 for old clients; its own version is in valkey_version.
    """
    own_version = info.get("valkey_version")
    aof_enabled = int(info.get("aof_enabled", 0)) == 1
    appendfsync = None if settings is None else settings.get("appendfsync")
    rdb_save = None if settings is None else settings.get("save", "") != ""
    return ServerFacts(
        version=str(own_version or info.get("redis_version", "unknown")),
        flavour="valkey" if own_version else "redis",
        aof_enabled=aof_enabled,
        appendfsync=appendfsync,
        rdb_save=rdb_save,
        degraded=_degradation(info, aof_enabled=aof_enabled, appendfsync=appendfsync, rdb_save=rdb_save),
    )


def _degradation(
    info: Mapping[str, Any], *, aof_enabled: bool, appendfsync: str | None, rdb_save: bool | None
) -> str | None:
    if not aof_enabled and rdb_save is True:
        return "Redis keeps snapshots only: a restart loses what came after the last one; set `appendonly yes`"
    if not aof_enabled:
        return "Redis has no persistence: a restart loses every run; set `appendonly yes`"
    if info.get("aof_last_write_status", "ok") != "ok":
        return "Redis cannot write its append-only file: a restart loses recent events; look at its disk"
    if appendfsync == "no":
        return "Redis leaves fsync to the system: power loss may cost half a minute; set `appendfsync everysec`"
    if int(info.get("maxmemory", 0)) > 0 and info.get("maxmemory_policy") != "noeviction":
        return "Redis evicts keys when its memory is full, runs included; set `maxmemory-policy noeviction`"
    return None


def _unavailable(where: str, error: Exception) -> StoreUnavailable:
    # On a unix socket redis-py 8.1 wraps what the handshake met in a plain ConnectionError.
    for seen in (error, error.__cause__):
        match seen:
            case redis_errors.BusyLoadingError():
                return StoreUnavailable(f"Redis at {where} is still loading its data: try again shortly")
            case redis_errors.AuthenticationError() | redis_errors.NoPermissionError():
                return StoreUnavailable(
                    f"Redis at {where} refuses the credentials ({seen}): correct user and password in REDIS_URL"
                )
    return StoreUnavailable(
        f"Redis at {where} cannot be used ({error}): start it, correct REDIS_URL, or unset REDIS_URL to let Cody run "
        "a server of its own"
    )


async def _settings(client: Redis) -> dict[str, str] | None:
    try:
        found = await client.config_get("appendfsync", "save")
    except redis_errors.ResponseError:
        # Forbidden or renamed on hosted servers: INFO has told the rest.
        return None
    return {name: value for name, value in found.items() if name is not None and value is not None}
