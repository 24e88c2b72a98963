"""Which host works on which run: one docket task a run, on the same Redis.

docket (0.27) hands a task to one worker that has room, renews its claim while the task runs, and hands it on when that worker
is gone. It decides who may *try*: who owns a run is decided by the run's own lock and fence, so that a task that is handed
out twice, or to a host that was only frozen, does no harm.

Four traps of docket that shape this file:
- A worker that loses Redis for a moment waits for all its tasks to end before it reads again; ours take hours. So tasks leave
  docket when Redis is in trouble (`let_go`), and the runs go on under their own leases.
- It has a fixed concurrency, but a paused run must not block a slot: the number is set anew at each change.
- A task's key is known until it ends: a run that is to be handed on gets a key with its fence.
- Its goodbyes wait for Redis, and redis-py may swallow the one cancellation that would end such a wait. So docket lives in
  tasks of its own, which are asked to end again and again, and left behind in the end: what it holds expires by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from datetime import timedelta
from typing import Any

from docket import Docket, Worker
from structlog import get_logger

from cody.store import keys
from cody.store.availability import store_calls

log = get_logger()

CHECK_INTERVAL = timedelta(seconds=1)
"""How long one blocking read of docket takes at most; new tasks end it at once."""
MISSED_HEARTBEATS = 5
GOODBYE_S = 2.0
"""For docket's end in order; then it is asked again."""
CLOSE_S = 4.0
ASK_AGAIN_S = 0.2

Execute = Callable[[str], Awaitable[None]]


class Dispatcher:
    """Hands runs out and takes them. Made by `open`."""

    def __init__(self, docket: Docket, worker: Worker | None, concurrency: int) -> None:
        self._docket = docket
        self._worker = worker
        self._concurrency = concurrency
        self._held: set[asyncio.Task[None]] = set()
        self._taking: asyncio.Task[None] | None = None
        self._takes_no_more = False
        self._context = copy_context()
        """docket finds itself by context variables."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, worker_id: str, concurrency: int, redelivery_s: float, execute: Execute
    ) -> AsyncIterator[Dispatcher]:
        """A dispatcher; `run` must be called to take runs. `concurrency` 0: hands out only."""
        made: asyncio.Future[Dispatcher] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()
        held = asyncio.create_task(
            _hold(url, worker_id, concurrency, redelivery_s, execute, made, leave), name="docket"
        )
        try:
            either: set[asyncio.Future[Any]] = {held, made}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if held.done():
                held.result()
            yield made.result()
        finally:
            leave.set()
            await _ended("docket", held)

    async def submit(self, run_id: str, fence: int) -> None:
        """Ask for a host for this run; asking again changes nothing while the first request waits or is worked on."""
        with store_calls(f"hand out run {run_id}"):
            await self._docket.add("execute_run", key=f"{run_id}:{fence}")(run_id)

    async def run(self) -> None:
        """Take runs until cancelled, or told to take no more; what is worked on then is left to `execute`."""
        if self._worker is None or self._takes_no_more:
            await asyncio.Event().wait()
            return
        self._taking = asyncio.create_task(self._take(self._worker), context=self._context)
        try:
            await asyncio.shield(self._taking)
        finally:
            self._taking.cancel()
            await _ended("docket's worker", self._taking)

    def take_no_more(self) -> None:
        """Leave what is handed out from now on to others; what was taken goes on.

        A host that leaves would else take what it has just handed on, and drop it.
        """
        self._takes_no_more = True
        if self._taking is not None:
            self._taking.cancel()  # docket stops reading at once, and ends when its tasks have

    async def _take(self, worker: Worker) -> None:
        this = asyncio.current_task()
        assert this is not None
        # docket takes the cancellation of its loop for its orderly end, and returns.
        while not this.cancelling():
            try:
                await worker.run_forever()
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


async def _hold(
    url: str,
    worker_id: str,
    concurrency: int,
    redelivery_s: float,
    execute: Execute,
    made: asyncio.Future[Dispatcher],
    leave: asyncio.Event,
) -> None:
    """Give a dispatcher, and keep docket open until `leave`."""
    docket = Docket(
        name=keys.DOCKET,
        url=url,
        heartbeat_interval=timedelta(seconds=max(0.5, redelivery_s / MISSED_HEARTBEATS)),
        missed_heartbeats=MISSED_HEARTBEATS,
        execution_ttl=timedelta(0),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(docket)
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
        dispatcher = Dispatcher(docket, worker, concurrency)

        async def execute_run(run_id: str) -> None:
            await dispatcher._execute(run_id, execute)

        docket.register(execute_run)
        if worker is not None:
            await stack.enter_async_context(worker)
        made.set_result(dispatcher)
        await leave.wait()


async def _ended(what: str, task: asyncio.Task[None]) -> None:
    """It has ended, or is left behind: an unreachable Redis must not hold this process."""
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + CLOSE_S
    await asyncio.wait([task], timeout=GOODBYE_S)
    while not task.done() and loop.time() < give_up_s:
        task.cancel()
        await asyncio.wait([task], timeout=ASK_AGAIN_S)
    if not task.done():
        log.warning("dispatch.not_closed", what=what, seconds=CLOSE_S)
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.warning("dispatch.closed_with_error", what=what, error=f"{type(error).__name__}: {error}"[:300])


async def _outlast(work: asyncio.Future[None]) -> None:
    """Wait for the work; being cancelled does not end it."""
    await asyncio.shield(work)
