"""Tasks that go on as long as their process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from structlog import get_logger

log = get_logger()

RESTART_S = 1.0


async def keep_going(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do this until cancelled: a defect that one response meets must not end what all others need."""
    while True:
        try:
            await work()
            return
        except Exception:
            log.exception("pipeline.task_failed", task=name)
            await asyncio.sleep(RESTART_S)


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel these, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
