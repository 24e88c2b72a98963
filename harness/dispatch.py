"""Which host works on which run: one docket task a run, on the same Redis.

docket (0.27) hands a task to one worker that has room, renews its claim while the task runs, and hands it on when that worker
is gone. It decides who may *try*: who owns a run is decided by the run's own lock and fence, so that a task that is handed
out twice, or to a host that was only frozen, does no harm.

Three traps of docket that shape this file:
- A worker that loses Redis for a moment waits for all its tasks to end before it reads again; ours take hours. So tasks leave
  docket when Redis is in trouble (`let_go`), and the runs go on under their own leases.
- It has a fixed concurrency, but a paused run must not block a slot: the number is set anew at each change.
- A task's key is known until it ends: a run that is to be handed on gets a key with its fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from docket import Docket, Worker
from structlog import get_logger

from cody.store import keys
from cody.store.availability import store_calls

log = get_logger()

CHECK_INTERVAL = timedelta(seconds=1)
"""How long one blocking read of docket takes at most; new tasks end it at once."""
MISSED_HEARTBEATS = 5
CLOSE_S = 5.0

Execute = Callable[[str], Awaitable[None]]


class Dispatcher:
    """Hands runs out and takes them. Made by `open`."""

    def __init__(self, docket: Docket, worker: Worker | None, concurrency: int) -> None:
        self._docket = docket
        self._worker = worker
        self._concurrency = concurrency
        self._held: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, worker_id: str, concurrency: int, redelivery_s: float, execute: Execute
    ) -> AsyncIterator[Dispatcher]:
        """A dispatcher; `run` must be called to take runs. `concurrency` 0: hands out only."""
        docket = Docket(
            name=keys.DOCKET,
            url=url,
            heartbeat_interval=timedelta(seconds=max(0.5, redelivery_s / MISSED_HEARTBEATS)),
            missed_heartbeats=MISSED_HEARTBEATS,
            execution_ttl=timedelta(0),
        )

        stack = AsyncExitStack()
        await stack.enter_async_context(docket)
        try:
            worker: Worker | None = None
            if concurrency:
                worker = Worker(
                    docket,
                    name=worker_id,
                    concurrency=concurrency,
                    redelivery_timeout=timedelta(seconds=redelivery_s),
                    reconnection_delay=timedelta(seconds=0.5),
                    minimum_check_interval=CHECK_INTERVAL,
                    scheduling_resolution=CHECK_INTERVAL,
                    schedule_automatic_tasks=False,
                )
            made = cls(docket, worker, concurrency)

            async def execute_run(run_id: str) -> None:
                await made._execute(run_id, execute)

            docket.register(execute_run)
            if worker is not None:
                await stack.enter_async_context(worker)
            yield made
        finally:
            await _close(stack)

    async def submit(self, run_id: str, fence: int) -> None:
        """Ask for a host for this run; asking again changes nothing while the first request waits or is worked on."""
        with store_calls(f"hand out run {run_id}"):
            await self._docket.add("execute_run", key=f"{run_id}:{fence}")(run_id)

    async def run(self) -> None:
        """Take runs until cancelled; what is worked on then is left to `execute`."""
        if self._worker is None:
            await asyncio.Event().wait()
            return
        this = asyncio.current_task()
        assert this is not None
        # docket takes the cancellation of its loop for its orderly end, and returns.
        while not this.cancelling():
            try:
                await self._worker.run_forever()
            except Exception:
                # A defect of the library must not take the runs of this host with it.
                log.exception("dispatch.worker_failed")
                await asyncio.sleep(1)

    def let_go(self) -> None:
        """Redis is in trouble: end the tasks without an acknowledgement; the runs go on."""
        for task in list(self._held):
            task.cancel()

    def resize(self, *, slots_used: int) -> None:
        """Take as many more runs as there are free slots."""
        if self._worker is not None:
            self._worker.concurrency = max(0, self._concurrency - slots_used) + len(self._held)

    async def _execute(self, run_id: str, execute: Execute) -> None:
        work = asyncio.ensure_future(execute(run_id))
        held = asyncio.create_task(_outlast(work))
        self._held.add(held)
        try:
            await held
        finally:
            self._held.discard(held)


async def _close(stack: AsyncExitStack) -> None:
    """docket says goodbye to Redis; one that is unreachable must not hold the process: its workers expire by themselves."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await stack.aclose()
    except TimeoutError:
        log.warning("dispatch.not_closed", seconds=CLOSE_S)


async def _outlast(work: asyncio.Future[None]) -> None:
    """Wait for the work; being cancelled does not end it."""
    await asyncio.shield(work)
