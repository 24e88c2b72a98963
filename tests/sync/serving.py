"""Cody's real HTTP server with the routes of the sync API behind its real gate, on this event loop or in a process."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from cody.sync.adapters.sql import SqlAdapter
from cody.sync.policy import Policy
from cody.sync.wire import MAX_CHUNK_BYTES
from cody.tokens import Scope, TokenStore
from server.audit import AuditLog
from server.audited import Audited
from server.auth import Gate, Sessions
from server.boundary import Boundary
from server.connection import ServerConfig
from server.grants import Grants
from server.guards import Guard
from server.http import HttpServer
from server.limits import LONG_ANSWERS, Limits
from server.metrics import Metrics
from server.routes import Endpoint, router
from server.site import Site
from server.streams import OpenStreams
from server.sync import SyncEndpoints, SyncEngine
from tests.ports import bound_to

HOLD = "hold"
"""A file in the state folder: chunks from the index in it on are not taken until it is gone."""


class Holding(SqlAdapter):
    """The engine, which can be held so that a push is in the midst for as long as a test wants."""

    def __init__(self, database_url: str, hold: Path) -> None:
        super().__init__(database_url, policy=Policy(max_chunk_bytes=MAX_CHUNK_BYTES))
        self._hold = hold

    async def append(self, source_id: str, index: int, payload: bytes, message_count: int, byte_size: int) -> bool:
        while self._is_held(index):
            await asyncio.sleep(0.01)
        return await super().append(source_id, index, payload, message_count, byte_size)

    def _is_held(self, index: int) -> bool:
        try:
            return index >= int(self._hold.read_text(encoding="ascii"))
        except FileNotFoundError:
            return False


class NoRuns:
    """Nobody watches runs here."""

    async def touch_subscriber(self, run_id: str, client_id: str) -> None:
        raise AssertionError(run_id)

    async def remove_subscriber(self, run_id: str, client_id: str) -> None:
        raise AssertionError(run_id)


@dataclass(frozen=True)
class Serving:
    url: str
    state_dir: Path
    grants: Grants

    @property
    def token(self) -> str:
        value = TokenStore(self.state_dir).local_value()
        assert value is not None
        return value

    def token_of(self, scope: Scope) -> str:
        """A new token that allows no more than this."""
        return TokenStore(self.state_dir).create(f"for-{scope}", scope)


@asynccontextmanager
async def served_table(
    table: list[Endpoint], state_dir: Path, port: int = 0, *, long_answers: int = LONG_ANSWERS
) -> AsyncIterator[Serving]:
    """These endpoints behind all that stands before the real ones."""
    bound = bound_to(port)
    site = Site("127.0.0.1", bound.getsockname()[1])
    tokens = TokenStore(state_dir)
    tokens.prepare()
    limits = Limits()
    sessions = Sessions(site.port)
    audited = Audited(router(table), AuditLog(state_dir))
    grants = Grants(tokens, sessions, answers=long_answers)
    gated = Gate(audited, tokens, sessions, limits, grants)
    app = Boundary(Guard(gated, site), Metrics(OpenStreams(NoRuns(), keepalive_s=15), lambda: 0))
    server = HttpServer(ServerConfig(app, on_connections=lambda count: None))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    await server.ready.wait()
    try:
        yield Serving(site.url, state_dir, grants)
    finally:
        server.leave()
        await server.cut_connections(after_s=0.0)
        await serving
        bound.close()


@asynccontextmanager
async def served(
    engine: SyncEngine, state_dir: Path, port: int = 0, *, long_answers: int = LONG_ANSWERS
) -> AsyncIterator[Serving]:
    """This engine behind the sync API."""
    opened: Callable[[], Awaitable[SyncEngine]] = _always(engine)
    async with served_table(SyncEndpoints(opened).table(), state_dir, port, long_answers=long_answers) as serving:
        yield serving


def _always(engine: SyncEngine) -> Callable[[], Awaitable[SyncEngine]]:
    async def opened() -> SyncEngine:
        return engine

    return opened


async def main(database_url: str, state_dir: str, port: str) -> None:
    """A server until it is killed; says its URL, and nothing else: who started it may not read on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with (
        Holding(database_url, Path(state_dir, HOLD)) as engine,
        served(engine, Path(state_dir), int(port)) as serving,
    ):
        print(serving.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
