"""The way to the database: which one, how it is opened, and what its failures mean."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from cody.sync.errors import SyncError

BUSY_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 300.0
"""A gigabyte of chunks is forgotten in one statement."""
CONNECTIONS = 5
WAL_KEPT_BYTES = 64 << 20

WRITES = "sync_writes"
"""Execution option of transactions that write."""


@contextlib.contextmanager
def canonical_calls() -> Iterator[None]:
    """Every failure of the database, without the statement: its parameters are somebody's conversation."""
    try:
        yield
    except SyncError:
        raise
    except Exception as failure:
        cause = getattr(failure, "orig", None) or failure
        told = f"{type(cause).__name__}: {str(cause)[:300]}"
        raise SyncError("backend_unavailable", f"the database failed ({told})") from failure


def database_url(url: str) -> URL:
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        found = URL.create("none")  # not quoted below: it may hold a password
    match found.drivername.partition("+")[0]:
        case "postgresql" | "postgres":
            return found.set(drivername="postgresql+asyncpg")
        case "sqlite" if found.database and not found.database.startswith((":memory:", "file:")):
            return found.set(drivername="sqlite+aiosqlite", database=os.path.abspath(found.database), query={})
    raise ValueError("the database must be postgresql://user:password@host:port/name or sqlite:////path/to/file")


def make_engine(url: URL) -> AsyncEngine:
    pool: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 0, "hide_parameters": True}
    if url.get_backend_name() == "postgresql":
        query = dict(url.query)
        ssl = query.pop("sslmode", None)
        arguments = {
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": STATEMENT_TIMEOUT_S,
            **({"ssl": ssl} if ssl else {}),
        }
        kept = {name: value for name, value in query.items() if name in {"host", "port"}}
        # A database may default to REPEATABLE READ: a writer that waited for another would fail, not compare again.
        more = {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
        return create_async_engine(url.set(query=kept), connect_args=arguments, **more, **pool)
    made = create_async_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, **pool)
    event.listen(made.sync_engine, "connect", _set_up_sqlite)
    event.listen(made.sync_engine, "begin", _begin_sqlite)
    return made


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # Python's sqlite3 would begin transactions by itself
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")  # a chunk that was acknowledged is never sent again
    cursor.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    # Debian's SQLite overwrites what is deleted: a gigabyte that is dropped would go through the journal once more.
    cursor.execute("PRAGMA secure_delete = FAST")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # Each read is one statement, which sees one state of the database by itself: a BEGIN would cost as much as the read.
    # IMMEDIATE: one that reads first and then writes fails at once when another has written in between.
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare_file(path: Path) -> None:
    """Make the file, for this user only, in WAL mode; one process after the other."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Closing a descriptor of a database that is open drops SQLite's locks on it: only a new file is touched.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        os.close(lock)
