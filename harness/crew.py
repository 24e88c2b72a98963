"""The workers of this process: which runs it owns, how a run is taken, taken over, handed on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.run_config import RunConfig
from cody.errors import CodyError, StoreUnavailable
from cody.pipeline.pipeline import Pipeline
from cody.redaction import Redactor
from cody.sealing import Sealer, key_of
from cody.settings import Settings, process_secrets
from cody.store import control, keys, leases, runs
from cody.store.availability import store_calls
from cody.store.leases import Claim
from cody.store.reader import StreamReader
from cody.wall_clock import now_text
from harness.agents.registry import agents
from harness.archive_fence import fence_of
from harness.dispatch import Dispatcher
from harness.guard_clock import boottime_ns
from harness.journal_failures import StoreCorrupt
from harness.kept_runs import keep_recent
from harness.leases import LeaseKeeper
from harness.ownership import Ownership, Shared
from harness.slots import Slots
from harness.verdict import restart_delay_s
from harness.worker import RunWorker

log = get_logger()

SCANS_PER_TTL = 3
SHUTDOWN_SLACK_S = 5.0
KEPT_REASONS = 50
TASK_RESTART_S = 1.0


class Crew:
    """One worker a run. A run that another process owns is left alone. Made by `open`."""

    def __init__(self, url: str, redis: Redis, settings: Settings, pipeline: Pipeline | None = None) -> None:
        self.worker_id = str(uuid.uuid4())
        self.workers: dict[str, RunWorker] = {}
        self._url = url
        self._redis = redis
        self._settings = settings
        self.halted: dict[str, str] = {}
        """Runs that this process had to let go of because of their record in Redis, and why: the last of them."""
        self._deaf: set[str] = set()
        """Runs whose control messages can't be heard: what their key holds is not Cody's."""
        self._troubles: dict[str, _Trouble] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._dispatcher: Dispatcher | None = None
        self._slots = Slots(settings.concurrency, self._resize)
        self.sealer = Sealer(settings.secret_key or key_of(settings.state_dir))
        self._shared = Shared(
            redis=redis,
            settings=settings,
            worker_id=self.worker_id,
            host=socket.gethostname(),
            keeper=LeaseKeeper(
                redis, worker_id=self.worker_id, ttl_ms=settings.lock_ttl_ms, on_trouble=self._redis_in_trouble
            ),
            controls=StreamReader(url, redis, str(uuid.uuid4()), self._control_broken),
            agents=agents(codex_binary=settings.codex_bin),
            slots=self._slots,
            sealer=self.sealer,
            secrets=process_secrets(settings),
            workers=self.workers,
            publisher=pipeline.publisher if pipeline else None,
            check_fence=fence_of(pipeline, settings.lock_ttl_ms / 1000) if pipeline else None,
        )
        self._leaving = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, redis: Redis, settings: Settings, pipeline: Pipeline | None = None
    ) -> AsyncIterator[Crew]:
        """A crew at work; it is dismissed at the end if it was not before."""
        crew = cls(url, redis, settings, pipeline)
        ttl_s = settings.lock_ttl_ms / 1000
        async with Dispatcher.open(
            url, worker_id=crew.worker_id, concurrency=settings.concurrency, redelivery_s=ttl_s, execute=crew._execute
        ) as dispatcher:
            crew._dispatcher = dispatcher
            tasks = [
                asyncio.create_task(keep_going(name, work), name=name)
                for name, work in {
                    "leases": crew._shared.keeper.run,
                    "controls": crew._shared.controls.run,
                    "dispatch": dispatcher.run,
                    "scan": crew._scan,
                    "files": lambda: keep_recent(redis, settings.runs_dir, settings.keep_output_days),
                }.items()
            ]
            try:
                yield crew
            finally:
                await crew.dismiss("resume")
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def owned(self) -> int:
        """Runs that this process works on, or is taking up."""
        return len(self._tasks)

    def turn_dir(self, run_id: str, turn: int) -> Path:
        """Where a turn's prompt and raw output lie on this host."""
        return self._shared.turn_dir(run_id, turn)

    def redactor(self, stored: RunConfig) -> Redactor:
        """For what is shown of a run with this config, as it is stored; raises SealBroken."""
        return self._shared.redactor(stored.model_copy(update={"env": self.sealer.open_env(stored.env)}))

    async def submit(self, run_id: str, fence: int = 0) -> None:
        """Have some host work on this run; raises StoreUnavailable."""
        assert self._dispatcher is not None
        await self._dispatcher.submit(run_id, fence)

    def take(self, run_id: str) -> asyncio.Task[None]:
        """Own this run if it is free; the task ends when it is no longer ours. Not bound by slots: its worker is."""
        task = self._tasks.get(run_id)
        if task is None:
            task = asyncio.create_task(self._own(run_id), name=f"own {run_id}")
            self._tasks[run_id] = task
            task.add_done_callback(lambda done: self._forget(run_id, done))
        return task

    async def _execute(self, run_id: str) -> None:
        """What docket gave us to do: own the run for as long as it works, is paused, or waits."""
        if not self._leaving and not self._is_put_off(run_id):
            await asyncio.shield(self.take(run_id))

    async def _scan(self) -> None:
        """Every run that has not ended is owned, or asks for an owner again within a lease and this interval."""
        interval_s = self._settings.lock_ttl_ms / 1000 / SCANS_PER_TTL
        while True:
            try:
                with store_calls("look for runs without an owner"):
                    for run in await runs.unowned(self._redis):
                        if not self._is_put_off(run.run_id):
                            await self.submit(run.run_id, run.fence)
            except StoreUnavailable as error:
                log.warning("crew.scan_failed", error=error.message)
            await asyncio.sleep(interval_s * random.uniform(0.8, 1.0))  # noqa: S311  # hosts must not scan in step

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._troubles.pop(run_id, None)
            return
        log.error("run.left", run_id=run_id, error=f"{type(error).__name__}: {error}"[:500])
        if isinstance(error, StoreUnavailable):
            return
        self.halted.pop(run_id, None)
        self.halted[run_id] = error.message if isinstance(error, CodyError) else type(error).__name__
        if len(self.halted) > KEPT_REASONS:
            del self.halted[next(iter(self.halted))]
        count = self._troubles[run_id].count + 1 if run_id in self._troubles else 1
        self._troubles[run_id] = _Trouble(count, asyncio.get_running_loop().time() + restart_delay_s(count))

    def _is_put_off(self, run_id: str) -> bool:
        """Taking this run has failed again and again: not yet once more."""
        trouble = self._troubles.get(run_id)
        return trouble is not None and asyncio.get_running_loop().time() < trouble.not_before_s

    def _resize(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.resize(slots_used=self._slots.used)

    def _redis_in_trouble(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.let_go()

    async def dismiss(self, mode: Literal["resume", "finish-turn", "cancel"]) -> None:
        """Take nothing more and leave every run in the way that `mode` says: handed on, or cancelled. May be called again."""
        self._leaving = True
        if self._dispatcher is not None:
            self._dispatcher.take_no_more()
        workers = list(self.workers.values())
        match mode:
            case "cancel":
                for run_id in list(self.workers):
                    with contextlib.suppress(CodyError), store_calls("cancel a run"):
                        await control.request(self._redis, run_id, "cancel", reason="system", now=now_text())
            case "finish-turn":
                for worker in workers:
                    worker.leave_after_turn()
                await asyncio.gather(*map(asyncio.shield, self._tasks.values()), return_exceptions=True)
            case "resume":
                for worker in workers:
                    worker.leave("shutdown")
        await self._wait_for_tasks()

    async def _wait_for_tasks(self) -> None:
        tasks = list(self._tasks.values())
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=self._settings.grace_s + SHUTDOWN_SLACK_S)
        # Those that a cancel did not reach (Redis away), or that were between two steps.
        for worker in list(self.workers.values()):
            worker.leave("shutdown")
        _, pending = await asyncio.wait(tasks, timeout=SHUTDOWN_SLACK_S)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    def _control_broken(self, key: str) -> None:
        """Nothing of a run goes on here that nobody could pause or cancel."""
        for run_id, worker in self.workers.items():
            if keys.control(run_id) == key:
                self._deaf.add(run_id)
                worker.leave("shutdown")

    async def _own(self, run_id: str) -> None:
        before_ns = boottime_ns()
        with store_calls(f"take run {run_id}"):
            if not await control.is_readable(self._redis, run_id):
                raise _deaf(run_id)
            claim = await leases.acquire(
                self._redis, run_id, worker_id=self.worker_id, host=self._shared.host, ttl_ms=self._settings.lock_ttl_ms
            )
        if not isinstance(claim, Claim):
            return
        ownership = Ownership(self._shared, run_id, claim, before_ns, leaving=lambda: self._leaving)
        hand_on = False
        try:
            await ownership.work()
            if run_id in self._deaf and not ownership.ended:
                raise _deaf(run_id)
            # A run that could not be worked on waits for the next scan.
            hand_on = not ownership.ended
        finally:
            self._deaf.discard(run_id)
            self._shared.keeper.remove(run_id)
            with contextlib.suppress(StoreUnavailable):
                with store_calls("give a lock back"):
                    released = await leases.release(self._redis, run_id, worker_id=self.worker_id)
                if released and hand_on:
                    await self.submit(run_id, claim.fence)


def _deaf(run_id: str) -> StoreCorrupt:
    """A run that can't be worked on until someone deletes the key."""
    return StoreCorrupt(
        f"{keys.control(run_id)} in Redis is not a stream: nobody could pause or cancel the run; delete it"
    )


@dataclass(frozen=True, slots=True)
class _Trouble:
    """How often in a row a run could not be worked on here, and until when it is left alone (the loop's clock)."""

    count: int
    not_before_s: float


async def keep_going(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do this until cancelled: a defect in one of these tasks must not silently end what all runs need."""
    while True:
        try:
            await work()
            return
        except Exception:
            log.exception("crew.task_failed", task=name)
            await asyncio.sleep(TASK_RESTART_S)
