"""One run while it is ours: made ready under its fence, taken over from whoever had it, worked on, let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.lifecycle import TRANSITIONS
from cody.contracts.run import TERMINAL, RunError, RunStatus, TurnRecord
from cody.contracts.run_config import AgentName, RunConfig
from cody.contracts.run_events import RunCancelled, RunFailed, RunRecovered, TurnInterrupted, WarningRaised
from cody.contracts.wire import epoch_ms, utc_text
from cody.errors import CodyError, Fenced, NotFound, SequenceGap, StoreUnavailable
from cody.pipeline.publisher import Publisher
from cody.redaction import Redactor, Secret, secrets_of
from cody.sealing import Sealer
from cody.settings import Settings
from cody.store import control, keys, meta, runs
from cody.store.availability import store_calls
from cody.store.leases import Claim
from cody.store.reader import Entry, StreamReader
from cody.wall_clock import now_ms, now_text
from harness.agents.base import Agent, Body
from harness.archive_fence import CheckFence
from harness.journal import Journal
from harness.journal_failures import JournalBroken, StoreCorrupt, StoreLost
from harness.leases import Lease, LeaseKeeper
from harness.permission import located
from harness.process import ProcessesLeft, sweep
from harness.slots import Slot, Slots
from harness.spool import Spool
from harness.standing import RunState
from harness.turn_series import TurnSeries
from harness.verdict import RESTART_BUDGET, restarts_exhausted
from harness.worker import RunWorker

log = get_logger()

TTL_BY_ARCHIVE = 0
"""Of a run that ends: Redis keeps it until the projector has all of it, which then sets `run_ttl_s`. Set here, the TTL would
let Redis forget a run that the archive never got: down for a week, halted, or not running at all."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all runs of a process share."""

    redis: Redis
    settings: Settings
    worker_id: str
    host: str
    keeper: LeaseKeeper
    controls: StreamReader
    agents: Mapping[AgentName, Agent]
    slots: Slots
    sealer: Sealer
    secrets: Sequence[Secret]
    """Of this process; each run adds those of its own config.env."""
    workers: dict[str, RunWorker]
    publisher: Publisher | None = None
    """Turns are published as Responses, too."""
    check_fence: CheckFence | None = None

    def redactor(self, config: RunConfig) -> Redactor:
        """For what a run with this config (its env opened) says and writes."""
        return Redactor([*self.secrets, *secrets_of(config.env)])

    def turn_dir(self, run_id: str, turn: int) -> Path:
        """Where a turn's prompt and raw output lie on this host."""
        return self.settings.runs_dir / run_id / f"turn-{turn:04d}"


class Ownership:
    """The run `run_id` under `claim.fence`. `ended`: nothing remains to be done, by nobody."""

    def __init__(
        self, shared: Shared, run_id: str, claim: Claim, claimed_before_ns: int, *, leaving: Callable[[], bool]
    ) -> None:
        self.ended = False
        self._shared = shared
        self._run_id = run_id
        self._claim = claim
        self._before_ns = claimed_before_ns
        self._leaving = leaving

    async def work(self) -> None:
        """Work on the run until it has ended, is lost, or is to be left. Raises StoreUnavailable, CodyError."""
        shared = self._shared
        with store_calls(f"read run {self._run_id}"):
            fields = await runs.fields(shared.redis, self._run_id)
            last_seq = _number(self._run_id, fields, "lastSeq")
        if shared.check_fence is not None:
            await shared.check_fence(self._run_id, self._claim.fence, last_seq)
        spool = Spool(shared.settings.runs_dir / self._run_id / f"spool-{self._claim.fence}")
        journal = Journal(shared.redis, self._run_id, fence=self._claim.fence, last_seq=last_seq, spool=spool)
        try:
            await self._work(journal, fields)
            if journal.failure is not None and not isinstance(journal.failure, Fenced):
                raise journal.failure
        finally:
            await journal.close()

    async def _work(self, journal: Journal, fields: Mapping[str, str]) -> None:
        shared = self._shared
        try:
            state = self._state(fields)
            config = meta.config_of(self._run_id, fields)
            config = config.model_copy(update={"env": shared.sealer.open_env(config.env)})
            redactor = shared.redactor(config)
            journal.redactor = redactor
            grace_s = shared.settings.grace_s if config.grace_period_sec is None else config.grace_period_sec
            lease = Lease(self._run_id, shared.settings.lock_ttl_ms, grace_s, self._before_ns)
            shared.keeper.add(lease)
            left = await self._recover(journal, fields, state) if state.status != "queued" else None
            # This host may have other roots than the server that accepted the run, and links may lead elsewhere by now.
            found = await asyncio.to_thread(located, config, fields["epicId"], shared.settings)
            turns = await TurnSeries.prepare(
                run_id=self._run_id,
                fence=self._claim.fence,
                config=config,
                epic=found,
                agent=shared.agents[config.agent],
                journal=journal,
                lease=lease,
                grace_s=grace_s,
                turn_dir=lambda turn: shared.turn_dir(self._run_id, turn),
                redactor=redactor,
                epic_id=fields["epicId"],
                kept=fields,
                publisher=shared.publisher,
            )
            if state.broken_starts > RESTART_BUDGET and state.status == "running":
                await self._fail(journal, fields, restarts_exhausted(state.broken_starts, "worker_lost"))
                return
        except (ProcessesLeft, StoreUnavailable, Fenced, StoreLost, StoreCorrupt, SequenceGap, JournalBroken) as error:
            # Not by us, or not now: another try comes with the next scan.
            log.error("run.not_taken_up", run_id=self._run_id, error=error.message)
            raise
        except CodyError as error:
            # Its config or its epic can't be used: no host can work on it.
            await self._fail(journal, fields, RunError(code=error.code, message=error.message))
            return
        self._tell_shared(journal, turns)
        slot = Slot(shared.slots)
        worker = RunWorker(state, journal, turns, slot, worker_id=shared.worker_id, host=shared.host, left=left)
        lease.on_lost = lambda: worker.leave("fenced")
        if lease.lost:
            # While the run was made ready, a sweep can take seconds.
            worker.leave("fenced")
        await self._listen_and_run(worker, fields.get("ctlCursor", "0-0"))
        self.ended = state.status in TERMINAL

    def _tell_shared(self, journal: Journal, turns: TurnSeries) -> None:
        """Two runs on one epic are allowed, and hardly ever meant."""
        epic_dir = turns.epic.epic_dir
        others = [run_id for run_id, worker in self._shared.workers.items() if worker.epic_dir == epic_dir]
        if others:
            message = (
                f"run {', '.join(sorted(others)[:5])} works on the same epic: both write {epic_dir}/codys-log.md, "
                "and the stop file of one ends both"
            )
            journal.emit(WarningRaised(code="epic_shared", message=message))

    def _state(self, fields: Mapping[str, str]) -> RunState:
        # The status that the worker before us knew; control messages after its cursor lead on from there.
        status = fields.get("workerStatus", "queued")
        if status not in TRANSITIONS:
            raise meta.MetaCorrupt(f"the meta of run {self._run_id} can't be read: {status!r} is no status")
        try:
            stats = meta.stats_of(fields)
        except ValueError as error:
            text = str(error)[:200]
            raise meta.MetaCorrupt(f"the meta of run {self._run_id} can't be read: {text}") from None
        return RunState(
            run_id=self._run_id,
            status=status,
            stats=stats,
            turns_begun=_number(self._run_id, fields, "currentTurn"),
            end_ttl_s=TTL_BY_ARCHIVE,
            reason=fields.get("reason"),
            broken_starts=_number(self._run_id, fields, "brokenStarts"),
        )

    async def _fail(self, journal: Journal, fields: Mapping[str, str], failure: RunError) -> None:
        """End a run that can't be worked on."""
        status = cast("RunStatus", fields["status"])
        ended = {**meta.error_fields(failure), "finishedAt": now_text(), "pid": ""}
        log.error("run.unworkable", run_id=self._run_id, code=failure.code, error=failure.message)
        target: RunStatus = "cancelled" if status == "cancelling" else "failed"
        body: Body = RunCancelled(reason="error") if status == "cancelling" else RunFailed(error=failure)
        self.ended = await journal.transition(status, target, [body], meta=ended, end_ttl_s=TTL_BY_ARCHIVE)

    async def _recover(self, journal: Journal, fields: Mapping[str, str], state: RunState) -> TurnRecord | None:
        """Make sure that nothing of the worker before us lives here, and record the turn that it could not end.

        Gives its last turn, if that ended by itself: the worker may have died before it did what follows from it.
        """
        killed = await sweep({"CODY_RUN_ID": self._run_id})
        before, fence = self._claim.worker_before, self._claim.fence
        log.info("run.recovered", run_id=self._run_id, fence=fence, from_worker=before, killed=killed)
        journal.emit(RunRecovered(from_worker=before, to_worker=self._shared.worker_id, fence=fence))
        journal.set({"pid": ""})
        try:
            with store_calls(f"read turn {state.turns_begun}"):
                record = await runs.turn_record(self._shared.redis, self._run_id, state.turns_begun)
        except NotFound:
            return None
        except ValueError as error:
            raise meta.MetaCorrupt(f"turn {state.turns_begun} of run {self._run_id} can't be read: {error}") from None
        if record.status == "running":
            self._record_broken(journal, record)
            state.broken_starts += 1
            journal.set({"brokenStarts": state.broken_starts})
        if record.status not in {"completed", "failed"}:
            return None
        if state.broken_starts:
            state.broken_starts = 0
            journal.set({"brokenStarts": ""})
        return record

    def _record_broken(self, journal: Journal, record: TurnRecord) -> None:
        now = now_ms()
        duration_ms = max(0, now - epoch_ms(record.started_at))
        changes = {"status": "interrupted", "finished_at": utc_text(now), "duration_ms": duration_ms}
        journal.emit(TurnInterrupted(turn=record.turn, reason="worker_lost", duration_ms=duration_ms))
        journal.record_turn(record.model_copy(update=changes))

    async def _listen_and_run(self, worker: RunWorker, cursor: str) -> None:
        def deliver(entries: Sequence[Entry]) -> None:
            for entry_id, flat in entries:
                found = control.message(entry_id, dict(zip(flat[::2], flat[1::2], strict=True)))
                if found is not None:
                    worker.control(found)

        shared, key = self._shared, keys.control(self._run_id)
        shared.workers[self._run_id] = worker
        try:
            if self._leaving():
                worker.leave("shutdown")
            await shared.controls.follow(key, cursor, deliver)
            await worker.run()
        finally:
            shared.controls.unfollow(key)
            del shared.workers[self._run_id]


def _number(run_id: str, fields: Mapping[str, str], name: str) -> int:
    """A field that counts; raises MetaCorrupt."""
    text = fields.get(name, "0")
    if not (text.isascii() and text.isdigit()):
        raise meta.MetaCorrupt(f"the meta of run {run_id} can't be read: {name} is {text[:40]!r}")
    return int(text)
