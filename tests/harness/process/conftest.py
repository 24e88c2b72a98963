"""Both event loops, and a marker whose processes must be gone at the end of the test."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvloop

from tests.harness.process.spawned import HANG_S, Run, alive


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on each of the two event loops."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda main: runner.run(asyncio.wait_for(main, 3 * HANG_S))


@pytest.fixture
def guard_id() -> Iterator[str]:
    """A marker of this test's own; what still carries it at the end failed the test, and is ended."""
    marker = str(uuid.uuid4())
    yield marker
    left = alive(marker)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert left == []
