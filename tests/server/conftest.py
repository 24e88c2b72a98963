"""Servers for the tests: one that a module shares, and others for tests that end or harm theirs."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from tests.server.cody_server import PATIENT, CodyServer, launch, running_server

Launch = Callable[..., CodyServer]


@pytest.fixture(scope="module")
def server() -> Iterator[CodyServer]:
    """A server that the tests of a module share."""
    with running_server("server", **PATIENT) as started:
        yield started


@pytest.fixture
def client(server: CodyServer) -> Iterator[httpx2.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture
async def store(server: CodyServer) -> AsyncIterator[Redis]:
    """The Valkey of the shared server."""
    opened = server.redis()
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path: a socket's path must fit into 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="cody-server-") as made:
        yield Path(made)


@pytest.fixture
def launched(folder: Path) -> Iterator[Launch]:
    """Start servers of the test's own; `launched("--flag", CODY_X="y")`. They end with the test."""
    started: list[CodyServer] = []

    def start(*flags: str, **options: Any) -> CodyServer:
        one = launch(folder, *flags, **PATIENT | options)
        started.append(one)
        return one

    try:
        yield start
    finally:
        for one in started:
            one.discard()
