"""The workers of this process: which runs it owns, how a run is taken, taken over, and left."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.run import TERMINAL, RunError, RunStatus, TurnRecord
from cody.contracts.run_events import RunFailed, RunRecovered, TurnInterrupted
from cody.contracts.wire import epoch_ms, utc_text
from cody.errors import CodyError, NotFound, StoreUnavailable
from cody.settings import Settings
from cody.store import control, keys, leases, meta, runs
from cody.store.availability import store_calls
from cody.store.leases import Claim
from cody.store.reader import Entry, StreamReader
from harness import epic
from harness.agents.registry import agents
from harness.guard_clock import boottime_ns
from harness.journal import Journal, now_ms
from harness.leases import Lease, LeaseKeeper
from harness.process import ProcessesLeft, sweep
from harness.turn import TurnMaker
from harness.worker import RunState, RunWorker

log = get_logger()

SCAN_PER_TTL = 1
SHUTDOWN_SLACK_S = 5.0


class Crew:
    """One worker a run. `take` may be called for any run at any time: a run that another process owns is left alone."""

    def __init__(self, url: str, redis: Redis, settings: Settings) -> None:
        self.worker_id = str(uuid.uuid4())
        self.host = socket.gethostname()
        self.workers: dict[str, RunWorker] = {}
        self._redis = redis
        self._settings = settings
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._keeper = LeaseKeeper(redis, worker_id=self.worker_id, ttl_ms=settings.lock_ttl_ms)
        self._controls = StreamReader(url, redis, str(uuid.uuid4()))
        self._agents = agents(codex_binary=settings.codex_bin)
        self._leaving = False

    def turn_dir(self, run_id: str, turn: int) -> Path:
        """Where a turn's prompt and raw output lie on this host."""
        return self._settings.runs_dir / run_id / f"turn-{turn:04d}"

    async def run(self) -> None:
        """Keep leases, hear control messages, take up runs that nobody owns; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keeper.run(), name="leases")
            group.create_task(self._controls.run(), name="controls")
            group.create_task(self._scan(), name="scan")

    async def _scan(self) -> None:
        while True:
            try:
                with store_calls("look for runs without an owner"):
                    for run_id in await runs.active_ids(self._redis):
                        self.take(run_id)
            except StoreUnavailable as error:
                log.warning("crew.scan_failed", error=error.message)
            await asyncio.sleep(self._settings.lock_ttl_ms / 1000 / SCAN_PER_TTL)

    def take(self, run_id: str) -> None:
        """Work on this run, if it is free."""
        if run_id in self._tasks or self._leaving:
            return
        task = asyncio.create_task(self._own(run_id), name=f"own {run_id}")
        self._tasks[run_id] = task
        task.add_done_callback(lambda done: self._forget(run_id, done))

    def _forget(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run.left", run_id=run_id, error=f"{type(error).__name__}: {error}"[:500])

    async def dismiss(self, mode: Literal["resume", "cancel"]) -> None:
        """Take nothing more, end every agent, and leave each run resumable or cancelled; within the grace and some slack."""
        self._leaving = True
        if mode == "cancel":
            for run_id in list(self.workers):
                with contextlib.suppress(CodyError), store_calls("cancel a run"):
                    await control.request(self._redis, run_id, "cancel", reason="system", now=utc_text(now_ms()))
        else:
            for worker in list(self.workers.values()):
                worker.leave("shutdown")
        tasks = list(self._tasks.values())
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=self._settings.grace_s + SHUTDOWN_SLACK_S)
        # A cancel that could not be delivered (Redis away), or a run between two steps.
        for worker in list(self.workers.values()):
            worker.leave("shutdown")
        if pending:
            _, pending = await asyncio.wait(pending, timeout=SHUTDOWN_SLACK_S)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _own(self, run_id: str) -> None:
        before_ns = boottime_ns()
        with store_calls(f"take run {run_id}"):
            claim = await leases.acquire(
                self._redis, run_id, worker_id=self.worker_id, host=self.host, ttl_ms=self._settings.lock_ttl_ms
            )
        if not isinstance(claim, Claim):
            return
        try:
            with store_calls(f"read run {run_id}"):
                fields = await runs.fields(self._redis, run_id)
            await self._work(run_id, claim, fields, before_ns)
        finally:
            self._keeper.remove(run_id)
            with contextlib.suppress(StoreUnavailable), store_calls("give a lock back"):
                await leases.release(self._redis, run_id, worker_id=self.worker_id)

    async def _work(self, run_id: str, claim: Claim, fields: Mapping[str, str], before_ns: int) -> None:
        journal = Journal(self._redis, run_id, fence=claim.fence, last_seq=int(fields.get("lastSeq", 0)))
        try:
            try:
                config = meta.config_of(run_id, fields)
                grace_s = self._settings.grace_s if config.grace_period_sec is None else config.grace_period_sec
                lease = Lease(run_id, self._settings.lock_ttl_ms, grace_s, before_ns, on_lost=lambda: None)
                self._keeper.add(lease)
                state = self._state(run_id, fields)
                recovering = state.status != "queued" or claim.fence > 1
                turns = await self._turns(run_id, claim.fence, fields, journal, lease, grace_s)
            except CodyError as error:
                await self._fail_before_start(journal, fields, error)
                return
            worker = RunWorker(state, journal, turns, worker_id=self.worker_id, host=self.host)
            lease.on_lost = lambda: worker.leave("fenced")
            if recovering:
                await self._recover(run_id, claim, fields, journal)
            await self._listen_and_run(run_id, worker, fields.get("ctlCursor", "0-0"))
        finally:
            await journal.close()

    def _state(self, run_id: str, fields: Mapping[str, str]) -> RunState:
        status: RunStatus = fields.get("workerStatus", "queued")  # type: ignore[assignment]  # only workers write it
        return RunState(
            run_id=run_id,
            status=status,
            stats=meta.stats_of(fields),
            turns_begun=int(fields.get("currentTurn", 0)),
            end_ttl_s=self._settings.run_ttl_s,
            reason=fields.get("reason"),
        )

    async def _turns(
        self, run_id: str, fence: int, fields: Mapping[str, str], journal: Journal, lease: Lease, grace_s: float
    ) -> TurnMaker:
        config = meta.config_of(run_id, fields)
        return await TurnMaker.prepare(
            run_id=run_id,
            fence=fence,
            config=config,
            epic=await asyncio.to_thread(epic.locate, config, fields["epicId"]),
            agent=self._agents[config.agent],
            journal=journal,
            lease=lease,
            grace_s=grace_s,
            turn_dir=lambda turn: self.turn_dir(run_id, turn),
            kept=fields,
        )

    async def _fail_before_start(self, journal: Journal, fields: Mapping[str, str], error: CodyError) -> None:
        """The run can't be worked on at all: its epic or its config is gone."""
        known: RunStatus = fields["status"]  # type: ignore[assignment]  # written by our scripts only
        if known in TERMINAL:
            return
        failure = RunError(code=error.code, message=error.message, retryable=False)
        ended = {**meta.error_fields(failure), "finishedAt": utc_text(now_ms())}
        log.error("run.unworkable", run_id=journal.run_id, error=error.message)
        await journal.transition(
            known, "failed", [RunFailed(error=failure)], meta=ended, end_ttl_s=self._settings.run_ttl_s
        )

    async def _recover(self, run_id: str, claim: Claim, fields: Mapping[str, str], journal: Journal) -> None:
        """Make sure that nothing of the worker before us lives, and record the turn it could not end."""
        try:
            killed = await sweep({"CODY_RUN_ID": run_id})
        except ProcessesLeft as error:
            raise CodyError(f"run {run_id} can't be taken up: {error.message}") from error
        log.info("run.recovered", run_id=run_id, fence=claim.fence, from_worker=claim.worker_before, killed=killed)
        journal.emit(RunRecovered(from_worker=claim.worker_before, to_worker=self.worker_id, fence=claim.fence))
        journal.set({"pid": ""})
        turn = int(fields.get("currentTurn", 0))
        with contextlib.suppress(NotFound), store_calls(f"read turn {turn}"):
            record = await runs.turn_record(self._redis, run_id, turn)
            if record.status == "running":
                self._record_broken(journal, record)

    def _record_broken(self, journal: Journal, record: TurnRecord) -> None:
        now = now_ms()
        duration_ms = max(0, now - epoch_ms(record.started_at))
        changes = {"status": "interrupted", "finished_at": utc_text(now), "duration_ms": duration_ms}
        journal.emit(TurnInterrupted(turn=record.turn, reason="worker_lost", duration_ms=duration_ms))
        journal.record_turn(record.model_copy(update=changes))

    async def _listen_and_run(self, run_id: str, worker: RunWorker, cursor: str) -> None:
        def deliver(entries: Sequence[Entry]) -> None:
            for entry_id, flat in entries:
                found = control.message(entry_id, dict(zip(flat[::2], flat[1::2], strict=True)))
                if found is not None:
                    worker.control(found)

        self.workers[run_id] = worker
        key = keys.control(run_id)
        try:
            if self._leaving:
                worker.leave("shutdown")
            await self._controls.follow(key, cursor, deliver)
            await worker.run()
        finally:
            self._controls.unfollow(key)
            del self.workers[run_id]
