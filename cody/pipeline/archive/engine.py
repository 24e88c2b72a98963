"""The way to the archive's database: which one, how it is opened, and what its failures mean to callers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from structlog import get_logger

from cody.errors import CodyError, ConfigurationError

log = get_logger()

DEFAULT_FILE = "archive.sqlite3"
SQLITE_OLDEST = (3, 35)
"""RETURNING."""
BUSY_TIMEOUT_S = 10.0
CONNECT_DEADLINE_S = 5.0
STATEMENT_DEADLINE_S = 30.0
MAX_CONNECTIONS = 5
WAL_KEPT_BYTES = 64 << 20

WRITES = "cody_writes"
"""Execution option of connections whose transactions write."""

REFUSED_CLASSES = frozenset({"22", "23", "54"})
"""SQLSTATE: data exception, integrity constraint violation, program limit exceeded."""


class ArchiveUnavailable(CodyError):
    """The archive's database is away, full or busy: the same call may well succeed later."""

    code = "service_unavailable"


class ArchiveRefused(CodyError):
    """The database will never take this data: repeating the call is useless."""

    code = "archive_refused"


@contextlib.contextmanager
def sql_calls(doing: str) -> Iterator[None]:
    """Turn what SQLAlchemy and its drivers raise into ArchiveUnavailable or ArchiveRefused, saying what failed."""
    try:
        yield
    except (OverflowError, UnicodeEncodeError) as error:
        raise ArchiveRefused(f"can't {doing}: {error}") from error
    except DBAPIError as error:
        kind = ArchiveRefused if _is_refusal(error) else ArchiveUnavailable
        raise kind(f"can't {doing}: {_told(error.orig)}") from error
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise ArchiveUnavailable(f"can't {doing}: {_told(error)}") from error
    except Exception as error:
        # What asyncpg raises while it connects (a server that starts or stops) is not wrapped by SQLAlchemy 2.1.
        if not type(error).__module__.startswith("asyncpg"):
            raise
        raise ArchiveUnavailable(f"can't {doing}: {_told(error)}") from error


def _told(error: object) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def _is_refusal(error: DBAPIError) -> bool:
    sqlstate = getattr(error.orig, "sqlstate", None)
    if isinstance(sqlstate, str):
        return sqlstate[:2] in REFUSED_CLASSES
    # asyncpg's DataError (a value that does not fit its column) is an InterfaceError to SQLAlchemy.
    cause = getattr(error.orig, "__cause__", None)
    return isinstance(error, IntegrityError | DataError) or isinstance(cause, ValueError)


def archive_url(database_url: str | None, state_dir: Path) -> URL:
    """The database: what DATABASE_URL names, else a file in the state folder. Raises ConfigurationError.

    `postgresql://` and `sqlite:///` as everybody writes them; the driver is ours to choose.
    """
    if not database_url:
        return URL.create("sqlite+aiosqlite", database=str(state_dir / DEFAULT_FILE))
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        # Not quoted: it may hold a password.
        raise ConfigurationError(
            "DATABASE_URL is not understood: use postgresql://user:password@host:port/name or sqlite:////path/to/file"
        ) from None
    match url.drivername.partition("+")[0]:
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+asyncpg")
        case "sqlite" if url.database and not url.database.startswith((":memory:", "file:")):
            return url.set(drivername="sqlite+aiosqlite", database=os.path.abspath(url.database), query={})
        case "sqlite":
            raise ConfigurationError("DATABASE_URL names no file: the archive has to outlive the process")
        case other:
            raise ConfigurationError(f"DATABASE_URL: no archive in {other} (use postgresql:// or sqlite:///)")


def make_engine(url: URL, *, pooled: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AsyncEngine:
    """An engine, not connected yet. Raises ConfigurationError for options of the URL that are not known."""
    pool: dict[str, Any] = {"poolclass": NullPool}
    if pooled:
        pool = {"pool_size": MAX_CONNECTIONS, "max_overflow": 0}
    if url.get_backend_name() == "postgresql":
        bare, arguments = _postgresql(url)
        # Asked before use: after a restart of the server every kept connection is dead.
        return create_async_engine(bare, connect_args=arguments, pool_pre_ping=True, **pool)
    engine = create_async_engine(url, connect_args={"timeout": busy_timeout_s}, **pool)
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL without libpq's options, and what asyncpg 0.32 calls them."""
    settings = {"application_name": "cody", "jit": "off"}
    arguments: dict[str, Any] = {
        "timeout": CONNECT_DEADLINE_S,
        "command_timeout": STATEMENT_DEADLINE_S,
        "server_settings": settings,
    }
    kept: dict[str, Any] = {}
    foreign = []
    for name, value in url.query.items():
        match name:
            case "host" | "port" | "prepared_statement_cache_size":
                kept[name] = value
            case "sslmode" | "ssl":
                arguments["ssl"] = value
            case "connect_timeout" if isinstance(value, str) and value.isdecimal():
                arguments["timeout"] = float(value)
            case "application_name":
                settings["application_name"] = str(value)
            case _:
                foreign.append(name)
    if foreign:
        raise ConfigurationError(f"DATABASE_URL has options that are not known: {', '.join(sorted(foreign))}")
    return url.set(query=kept), arguments


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and only at the first write.
    connection.isolation_level = None
    cursor = connection.cursor()
    # What power loss takes from the WAL is still in Redis, and the sweep brings it back.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that first reads and then writes fails at once, busy timeout or not, when another
    # one has written in between.
    options: Mapping[str, Any] = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(WRITES) else "BEGIN")


def prepare_file(path: Path) -> None:
    """Make the SQLite file, for this user only, in WAL mode; blocking. Raises ConfigurationError, OSError.

    Several processes may do this at once: a lock file lets one after the other.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Only a file that is new is opened here: closing a descriptor of an open database drops SQLite's locks on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.chmod(path, 0o600)
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            _require_features(connection)
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            log.warning("archive.no_wal", path=str(path), mode=mode)
    except sqlite3.Error as error:
        raise ArchiveUnavailable(f"can't open the archive {path}: {error}") from error
    finally:
        os.close(lock)


def _require_features(connection: sqlite3.Connection) -> None:
    modules = {row[0] for row in connection.execute("PRAGMA module_list")}
    if sqlite3.sqlite_version_info < SQLITE_OLDEST or "fts5" not in modules:
        raise ConfigurationError(
            f"this Python's SQLite ({sqlite3.sqlite_version}) is older than 3.35 or has no FTS5: use another Python, "
            "or a PostgreSQL by DATABASE_URL"
        )
