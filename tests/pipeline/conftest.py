"""An archive on both databases: every test that takes one runs on a SQLite file and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cody.pipeline.archive import Archive
from cody.pipeline.run_projector import RunProjector
from tests.pipeline.live_runs import projector
from tests.pipeline.postgres_server import PostgresServer, new_database, own_server, patient
from tests.pipeline.serving import SharedServer, shared_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """What DATABASE_URL names when that is a PostgreSQL, else a server of the session's own."""
    given = os.environ.get("DATABASE_URL", "")
    if given.startswith("postgres"):
        yield given
        return
    with own_server() as server:
        yield server.url


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """For tests that harm a server."""
    with own_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/archive.sqlite3"
        return
    async with new_database(request.getfixturevalue("postgres_url")) as url:
        yield patient(url)


@pytest.fixture(scope="module")
def shared_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    """A server that the tests of a module share."""
    with shared_server(f"sqlite:///{tmp_path_factory.mktemp('shared')}/archive.sqlite3") as one:
        yield one


@pytest.fixture(scope="module")
def shared_postgresql(postgres_url: str) -> Iterator[SharedServer]:
    """The same, on a database of its own that is dropped afterwards."""
    with asyncio.Runner() as runner:
        database = new_database(postgres_url)
        url = runner.run(database.__aenter__())
        try:
            with shared_server(patient(url)) as one:
                yield one
        finally:
            runner.run(database.__aexit__(None, None, None))


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest) -> SharedServer:
    """On both databases, a server that the tests of a module share."""
    server: SharedServer = request.getfixturevalue(f"shared_{request.param}")
    return server


@pytest.fixture
async def archive(database_url: str, tmp_path: Path) -> AsyncIterator[Archive]:
    opened = Archive(database_url, tmp_path)
    yield opened
    await opened.aclose()


@pytest.fixture
async def projecting(valkey_url: str, redis: Redis, archive: Archive) -> AsyncIterator[RunProjector]:
    """A projector that is not running yet."""
    async with projector(valkey_url, redis, archive) as one:
        yield one
