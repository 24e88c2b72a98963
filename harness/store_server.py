"""The Redis that this process starts for itself is kept running for as long as the process runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from structlog import get_logger

from cody.errors import CodyError
from cody.store.connection import StoreServer
from cody.store.embedded import EmbeddedServer

log = get_logger()

SERVER_RESTART_S = 2.0


@asynccontextmanager
async def kept_running(server: StoreServer) -> AsyncIterator[None]:
    """An embedded server that dies is started again, on the same socket and data; any other is its owner's."""
    if server.embedded is None:
        yield
        return
    restarting = asyncio.create_task(_restart(server.embedded), name="embedded server")
    try:
        yield
    finally:
        restarting.cancel()
        await asyncio.gather(restarting, return_exceptions=True)


async def _restart(embedded: EmbeddedServer) -> None:
    while True:
        log.error("store.server_died", exit_code=await embedded.wait_exit())
        while True:
            try:
                await embedded.start()
                break
            except (CodyError, OSError) as error:
                log.error("store.restart_failed", error=str(error)[:500])
                await asyncio.sleep(SERVER_RESTART_S)
