"""The workers of one engine: started when there is work, stopped with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cody.sync.worker import Bench, Worker

log = logging.getLogger(__name__)


class Crew:
    """Up to `size` workers on one bench."""

    def __init__(self, bench: Bench, size: int, new_id: Callable[[], str]) -> None:
        self._bench = bench
        self._new_id = new_id
        self._tasks: list[asyncio.Task[None] | None] = [None] * size
        self._closed = False

    def open(self) -> None:
        """Let workers be started again after a stop."""
        self._closed = False

    def keep_working(self) -> None:
        """Start the workers that are not at work, unless they were stopped; needs a running loop."""
        if self._closed:
            return
        for place, task in enumerate(self._tasks):
            if task is None or task.done():
                worker = Worker(self._bench, self._new_id())
                self._tasks[place] = started = asyncio.create_task(worker.run(), name=f"sync-worker-{worker.worker_id}")
                started.add_done_callback(_report)

    async def stop(self) -> None:
        """End them; each gives its job back first."""
        self._closed = True
        tasks = [task for task in self._tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.error("sync.worker_died worker=%s error=%r", task.get_name(), failure)
