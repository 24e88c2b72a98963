"""Databases for the sync engine: every test that takes one runs on a SQLite file and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pipeline.conftest import own_postgres, postgres_url
from tests.pipeline.postgres_server import new_database

__all__ = ["own_postgres", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/sync.sqlite3"
        return
    async with new_database(request.getfixturevalue("postgres_url")) as url:
        yield url
