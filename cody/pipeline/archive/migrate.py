"""The archive's tables brought to the newest state, once, whoever comes first."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from structlog import get_logger

from cody.errors import ConfigurationError
from cody.pipeline.archive.engine import WRITES, make_engine, sql_calls

log = get_logger()

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
LOCK_ID = 0x636F6479
"""`cody` in ASCII: the advisory lock of PostgreSQL that one migrator holds."""
WAIT_FOR_OTHER_S = 60.0

_one_in_this_process = threading.Lock()
"""Alembic's `op` and `context` are one per process."""


def migrate(url: URL) -> None:
    """Bring the database to the newest state; blocking: call it in a thread. Nothing to do is fine.

    One transaction: a killed migrator leaves nothing behind. Of several processes one migrates, the others wait.
    Raises ArchiveUnavailable; ConfigurationError for a database that a newer Cody has migrated.
    """
    with _one_in_this_process, sql_calls("migrate the archive"):
        asyncio.run(_migrate(url))


async def _migrate(url: URL) -> None:
    engine = make_engine(url, pooled=False, busy_timeout_s=WAIT_FOR_OTHER_S)
    try:
        async with engine.execution_options(**{WRITES: True}).begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
            await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the archive can't be brought up to date ({error}): was it used by a newer Cody?"
        ) from error
