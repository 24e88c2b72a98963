"""A server that a module shares, a workspace in a root of its own, and what an attacker sends."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cody.settings import Settings, load_settings
from tests.server.cody_server import PATIENT, CodyServer, launch

Launch = Callable[..., CodyServer]


@pytest.fixture(scope="module")
def server() -> Iterator[CodyServer]:
    with tempfile.TemporaryDirectory(prefix="cody-security-") as folder:
        started = launch(Path(folder), CODY_LOG_LEVEL="debug", **PATIENT)
        try:
            assert started.url, started.stderr
            yield started
        finally:
            started.discard()
        assert "Traceback" not in started.stderr


@pytest.fixture
def client(server: CodyServer) -> Iterator[httpx2.Client]:
    """With the local token."""
    with server.client() as opened:
        yield opened


@pytest.fixture
def stranger(server: CodyServer) -> Iterator[httpx2.Client]:
    """Without any; it keeps the cookies it gets, as a browser does."""
    with httpx2.Client(base_url=server.url, timeout=30) as opened:
        yield opened


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path must fit into 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="cody-security-") as made:
        yield Path(made)


@pytest.fixture
def launched(folder: Path) -> Iterator[Launch]:
    """Start servers of the test's own; they end with the test."""
    started: list[CodyServer] = []

    def start(*flags: str, **options: Any) -> CodyServer:
        started.append(launch(folder, *flags, **PATIENT | options))
        return started[-1]

    try:
        yield start
    finally:
        for one in started:
            one.discard()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A repository with an epic."""
    return make_workspace(tmp_path / "repo")


def make_workspace(path: Path) -> Path:
    epic = path / ".cody-harness" / "current-epic"
    epic.mkdir(parents=True)
    (epic / "codys-log.md").write_text("# Log\n", encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that is allowed; outside of it another repository, and links that lead out, in, and nowhere."""
    made = tmp_path / "root"
    make_workspace(made / "repo")
    make_workspace(tmp_path / "outside" / "repo")
    make_workspace(tmp_path / "root2" / "repo")
    (made / "out").symlink_to(tmp_path / "outside" / "repo")
    (made / "loop").symlink_to(made / "loop")
    (tmp_path / "in").symlink_to(made / "repo")
    return made


@pytest.fixture
def rooted(launched: Launch, root: Path) -> CodyServer:
    """A server that may work in the root only."""
    return launched("--allow-danger", workspace_root=str(root))


@pytest.fixture
def settings(valkey_url: str, root: Path, tmp_path: Path) -> Settings:
    """Of a host that may work in the root only."""
    return load_settings(
        state_dir=tmp_path / "state",
        redis_url=valkey_url,
        grace_s=0.5,
        lock_ttl_ms=30_000,
        workspace_roots=(root,),
    )
