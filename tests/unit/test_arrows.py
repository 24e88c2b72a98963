"""The walls of the house: who may import whom, and who may speak to what. Read from the source, so nothing can hide."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABOVE = {"cody": {"harness", "server"}, "harness": {"server"}, "server": set()}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, package
    return found


def users_of(*modules: str) -> set[str]:
    """Files that import one of these top-level modules (or dotted prefixes)."""
    return {
        str(path.relative_to(ROOT))
        for package in ABOVE
        for path in sources(package)
        if any(name == module or name.startswith(f"{module}.") for name in imported(path) for module in modules)
    }


@pytest.mark.parametrize("package", sorted(ABOVE))
def test_imports_run_downhill(package: str) -> None:
    uphill = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imported(path)
        if name.split(".")[0] in ABOVE[package]
    }
    assert not uphill


def test_only_the_store_speaks_to_redis_and_the_journal_takes_its_client() -> None:
    outside = {path for path in users_of("redis") if not path.startswith("cody/store/")}
    # These hold a client that the store made, and hand it back to the store's functions: they send no command.
    assert {path.split("/")[0] for path in outside} <= {"harness"}
    for path in outside:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert set(re.findall(r"^(?:from|import) (redis\S*)", text, re.MULTILINE)) <= {
            "redis.asyncio",
            "redis.exceptions",
        }
        assert not re.search(r"redis\.(?!asyncio|exceptions|aclose)\w+\(", text), f"{path} sends commands itself"


def test_only_the_archive_and_syncs_database_speak_sql() -> None:
    users = users_of("sqlalchemy", "alembic", "sqlite3", "aiosqlite", "asyncpg", "psycopg")
    homes = ("cody/pipeline/archive/", "cody/pipeline/migrations/", "cody/sync/adapters/sql/")
    assert not {path for path in users if not path.startswith(homes)}


def test_only_the_server_serves_http_and_the_replays_that_stand_in_for_a_model() -> None:
    frameworks = ("starlette", "uvicorn", "h11", "httptools", "fastapi", "aiohttp", "websockets")
    users = users_of(*frameworks, "http.server", "socketserver", "wsgiref", "xmlrpc.server")
    assert not {path for path in users if not path.startswith(("server/", "harness/replay/"))}


def test_connections_are_waited_for_in_few_places() -> None:
    words = {"start_server", "start_unix_server", "create_server", "create_unix_server", "bind"}
    listeners = {
        str(path.relative_to(ROOT))
        for package in ABOVE
        for path in sources(package)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in words
    }
    # A model's answers from a record, for `cody verify` and for codex; and whether a port is free, without listening.
    assert listeners == {
        "server/listening.py",
        "cody/pipeline/wire_replay.py",
        "harness/replay/loopback.py",
        "cody/cli/local_server.py",
    }


def test_child_processes_are_started_in_few_places() -> None:
    allowed = {
        "cody/store/embedded.py",
        "cody/store/server_binary.py",
        "cody/cli",
        "harness/process.py",
        "harness/guard.py",
        "harness/probe.py",
        "harness/demo.py",
        "server/dashboard/build.py",
    }
    users = users_of("subprocess", "multiprocessing")
    assert not {path for path in users if not any(path.startswith(prefix) for prefix in allowed)}


def test_only_settings_reads_the_environment() -> None:
    """By any name, and by any library: what is read elsewhere has no place where it is described, checked or redacted."""
    words = {"environ", "environb", "getenv", "getenvb", "putenv", "expandvars", "BaseSettings", "dotenv"}
    readers = {
        str(path.relative_to(ROOT))
        for package in ABOVE
        for path in sources(package)
        for node in ast.walk(tree(path))
        if named(node) & words
    }
    assert readers == {"cody/settings.py"}
    takers = {path for path in users_of("cody.settings") if "environment" in taken_from_settings(ROOT / path)}
    # What is no setting of Cody's: the terminal's COLUMNS and NO_COLOR, `--env NAME`, and what Cody's own processes get.
    assert takers == {
        "cody/cli/local_server.py",
        "cody/cli/processes.py",
        "cody/cli/run_command.py",
        "cody/cli/terminal.py",
        "harness/demo.py",
        "harness/doctor.py",
    }


def named(node: ast.AST) -> set[str]:
    """The names of others that this node of a program takes."""
    match node:
        case ast.Attribute(attr=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {part for alias in names for part in alias.name.split(".")}
        case _:
            return set()


def taken_from_settings(path: Path) -> set[str]:
    return {
        alias.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module == "cody.settings"
        for alias in node.names
    }


def test_nothing_stands_in_for_a_real_part() -> None:
    words = ("unittest.m" + "ock", "fake" + "redis", "Magic" + "Mock", "monkeypatch" + ".setattr")
    found = {
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }
    assert not found
