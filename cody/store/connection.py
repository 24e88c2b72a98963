"""The way to the store: which Redis this Cody uses (the one it was told, or one of its own), and clients for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog

from cody.store.clients import address, blocking_client, connect
from cody.store.embedded import EmbeddedServer, Fsync
from cody.store.server_binary import find_server_binary
from cody.store.server_facts import ServerFacts, check

__all__ = ["ServerFacts", "StoreServer", "address", "blocking_client", "check", "connect", "open_store_server"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StoreServer:
    """A Redis that answered. `embedded` is set when it is Cody's own: `aclose` ends it."""

    url: str
    facts: ServerFacts
    embedded: EmbeddedServer | None

    async def aclose(self) -> None:
        """Ends the embedded server, its data written; leaves any other alone."""
        if self.embedded is not None:
            await self.embedded.stop()


async def open_store_server(
    *,
    redis_url: str | None,
    redis_server: str | None,
    embedded: bool,
    state_dir: Path,
    appendfsync: Fsync = "everysec",
    runtime_dir: Path | None = None,
) -> StoreServer | None:
    """The store: `redis_url` when given, else an embedded server, else None (`embedded` is off).

    A given URL is used or refused: falling back to a server of our own would split the runs over two stores unseen.
    `redis_server` is CODY_REDIS_SERVER. Raises StoreUnavailable, ConfigurationError.
    """
    if redis_url is not None:
        facts = await _facts(redis_url)
        return StoreServer(redis_url, facts, None)
    if not embedded:
        return None
    binary = await asyncio.to_thread(find_server_binary, redis_server)
    server = EmbeddedServer(binary, state_dir, appendfsync=appendfsync, runtime_dir=runtime_dir)
    await server.start()
    try:
        facts = await _facts(server.url)
    except BaseException:
        await server.stop()
        raise
    return StoreServer(server.url, facts, server)


async def _facts(url: str) -> ServerFacts:
    client = connect(url)
    try:
        facts = await check(client)
    finally:
        await client.aclose()
    log.info("store.opened", address=address(client), flavour=facts.flavour, version=facts.version)
    if facts.degraded is not None:
        log.warning("store.degraded", reason=facts.degraded)
    return facts
