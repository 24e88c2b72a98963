"""The archive is found, made private, migrated once whoever comes first, and left alone when a newer Cody owns it."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from cody.contracts.run import TurnRecord
from cody.errors import ConfigurationError
from cody.pipeline.archive import Archive, FenceRaised
from cody.pipeline.archive.engine import archive_url, make_engine
from cody.pipeline.archive.migrate import MIGRATIONS, migrate
from cody.pipeline.archive.tables import METADATA, SCHEMA, VERSION_TABLE

ROOT = Path(__file__).resolve().parents[2]
OPEN_ONE = """
import asyncio, sys
from pathlib import Path
from cody.pipeline.archive import Archive
async def main():
    archive = Archive(sys.argv[1], Path(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()
    await archive.open()
    await archive.ping()
    await archive.aclose()
asyncio.run(main())
"""


def engine_of(database_url: str, tmp_path: Path) -> AsyncEngine:
    return make_engine(archive_url(database_url, tmp_path), pooled=False)


async def scalar(database_url: str, tmp_path: Path, sql: str) -> Any:
    async with engine_of(database_url, tmp_path).connect() as connection:
        return (await connection.execute(text(sql))).scalar()


async def execute(database_url: str, tmp_path: Path, sql: str) -> None:
    async with engine_of(database_url, tmp_path).begin() as connection:
        await connection.execute(text(sql))


async def test_an_empty_database_is_brought_to_the_newest_state(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    await archive.open()
    assert await scalar(database_url, tmp_path, f"SELECT version_num FROM {VERSION_TABLE}") == SCHEMA
    assert (await archive.page(limit=5)).runs == []


async def test_opening_it_again_changes_nothing(archive: Archive, database_url: str, tmp_path: Path) -> None:
    assert await archive.raise_fence("r", 3, claim_id="a") == FenceRaised()
    again = Archive(database_url, tmp_path)
    await again.open()
    await asyncio.to_thread(migrate, archive_url(database_url, tmp_path))
    assert await again.raise_fence("r", 3, claim_id="b") != FenceRaised()
    await again.aclose()


async def test_two_processes_that_open_an_empty_database_at_once_both_succeed(
    database_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", OPEN_ONE, database_url, str(tmp_path)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = await asyncio.to_thread(process.communicate, timeout=60)
        assert process.returncode == 0, errors.decode()
    assert await scalar(database_url, tmp_path, f"SELECT count(*) FROM {VERSION_TABLE}") == 1


async def test_databases_opened_at_once_in_one_process_do_not_get_mixed_up(tmp_path: Path) -> None:
    opened = [Archive(None, tmp_path / str(number)) for number in range(8)]
    await asyncio.gather(*(archive.open() for archive in opened))
    for archive in opened:
        assert (await archive.page(limit=1)).runs == []
        await archive.aclose()


async def test_the_migrations_make_the_tables_that_the_code_declares(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    await archive.open()

    def differences(connection: Connection) -> list[Any]:
        def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
            # The search index has tables that only its own database knows; the search tests look at those.
            return not (kind == "table" and name is not None and name.startswith(("search_", VERSION_TABLE)))

        context = MigrationContext.configure(connection, opts={"include_object": is_ours, "compare_type": True})
        return list(compare_metadata(context, METADATA))

    async with engine_of(database_url, tmp_path).connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_an_archive_of_the_first_schema_keeps_its_rows(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    def first_schema(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    record = TurnRecord(run_id="r", turn=1, status="completed", started_at="2026-01-31T09:00:00.000Z", response_id="x")
    async with engine_of(database_url, tmp_path).begin() as connection:
        await connection.run_sync(first_schema)
        await connection.execute(
            text("INSERT INTO turns VALUES ('r', 1, 'completed', 'x', NULL, :at, NULL, :record)"),
            {"at": record.started_at, "record": record.model_dump_json(by_alias=True)},
        )
    assert await archive.turn_records("r") == [record]
    assert await scalar(database_url, tmp_path, f"SELECT version_num FROM {VERSION_TABLE}") == SCHEMA
    assert await scalar(database_url, tmp_path, "SELECT count(*) FROM turns WHERE trace_id IS NULL") == 1


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA


async def test_a_database_of_a_newer_cody_is_refused_and_left_alone(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    await archive.open()
    await execute(database_url, tmp_path, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    newer = Archive(database_url, tmp_path)
    with pytest.raises(ConfigurationError, match="newer Cody"):
        await newer.page(limit=1)
    await newer.aclose()
    assert await scalar(database_url, tmp_path, f"SELECT version_num FROM {VERSION_TABLE}") == "9999"


async def test_tables_of_others_in_the_same_database_are_left_alone(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    await execute(database_url, tmp_path, "CREATE TABLE sync_jobs (id TEXT)")
    await execute(database_url, tmp_path, "CREATE TABLE alembic_version (version_num TEXT)")
    await archive.open()
    for table in ("sync_jobs", "alembic_version"):
        assert await scalar(database_url, tmp_path, f"SELECT count(*) FROM {table}") == 0


async def test_a_migration_that_fails_leaves_nothing_behind(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    # The last table but one of the first migration is in the way.
    await execute(database_url, tmp_path, "CREATE TABLE search_documents (id TEXT)")
    with pytest.raises(Exception, match="search_documents"):
        await archive.open()
    await execute(database_url, tmp_path, "DROP TABLE search_documents")
    await archive.open()
    assert (await archive.page(limit=1)).runs == []


async def test_the_file_is_for_this_user_only_and_in_wal_mode(tmp_path: Path) -> None:
    archive = Archive(None, tmp_path / "state")
    assert await archive.raise_fence("r", 1, claim_id="a") == FenceRaised()
    files = sorted((tmp_path / "state").glob("archive.sqlite3*"))
    assert [file.name for file in files] == [
        "archive.sqlite3",
        "archive.sqlite3-shm",
        "archive.sqlite3-wal",
        "archive.sqlite3.lock",
    ]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    await archive.aclose()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p@h:5/d", "postgresql+asyncpg://u:p@h:5/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+asyncpg://h/d"),
        ("sqlite:////a/b.db", "sqlite+aiosqlite:////a/b.db"),
        ("", "sqlite+aiosqlite:////state/archive.sqlite3"),
        (None, "sqlite+aiosqlite:////state/archive.sqlite3"),
    ],
)
def test_the_driver_is_chosen_for_a_plain_url(given: str | None, expected: str) -> None:
    assert archive_url(given, Path("/state")).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    "given", ["mysql://root:hunter2@h/d", "sqlite://", "sqlite:///:memory:", "hunter2", "postgresql://u:hunter2@h:x/d"]
)
def test_a_url_that_is_no_use_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as refused:
        archive_url(given, Path("/state"))
    assert "hunter2" not in refused.value.message


def test_options_of_libpq_are_translated_or_refused() -> None:
    url = "postgresql://u:hunter2@h/d?sslmode=require&connect_timeout=3&application_name=x"
    assert make_engine(archive_url(url, Path("/state"))).url.query == {}
    with pytest.raises(ConfigurationError, match="keepalives") as refused:
        Archive("postgresql://u:hunter2@h/d?keepalives=1", Path("/state"))
    assert "hunter2" not in refused.value.message


async def test_the_password_is_in_no_message(tmp_path: Path) -> None:
    archive = Archive(f"postgresql://u:hunter2@/d?host={tmp_path}", tmp_path)
    with pytest.raises(Exception, match="can't open the archive") as failed:
        await archive.ping()
    assert "hunter2" not in str(failed.value)
    assert isinstance(archive_url(None, tmp_path), URL)
    await archive.aclose()


@pytest.mark.parametrize("module", ["cody.cli.app", "cody.settings", "cody.store.archive_news", "harness.worker"])
def test_sqlalchemy_is_imported_by_those_only_who_use_the_archive(module: str) -> None:
    program = f"import sys, {module}; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
