"""One turn of a run: the prompt, the process, what it writes and changes, its end. Wiring only: decisions are elsewhere."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from structlog import get_logger

from cody.contracts.run import RunError, RunStats, TokenUsage, TurnRecord, TurnStatus
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import (
    FileDeleted,
    FileWritten,
    TurnCompleted,
    TurnFailed,
    TurnInterrupted,
    TurnStarted,
    WarningRaised,
)
from cody.contracts.wire import utc_text
from cody.errors import CodyError
from cody.pipeline.publisher import Publisher
from cody.pipeline.tracing import span
from cody.redaction import Redactor
from cody.settings import agent_environment
from cody.store import meta
from harness import epic as epics
from harness import prompt
from harness.agents.base import Agent, AgentExit, Body, TurnOutcome, TurnReader, TurnRequest
from harness.completion import (
    LogBaseline,
    LogWatch,
    StopFound,
    StopRefused,
    check_stop_file,
    clear_stale,
    take_baseline,
)
from harness.epic import Epic
from harness.journal import Journal, now_ms
from harness.leases import Lease
from harness.preflight import check_codex
from harness.process import AgentProcess, Launch, ProcessExit, spawn
from harness.tally import Tally
from harness.turn_limits import LimitReached, TurnLimits
from harness.turn_log import TurnLog
from harness.turn_output import TurnOutput
from harness.turn_response import TurnFacts, TurnResponse
from harness.turn_watch import TurnWatch
from harness.verdict import Completion

log = get_logger()

InterruptReason = Literal["cancel", "shutdown", "fenced"]
BROKEN = frozenset({"lease_expired", "guard_died", "worker_lost"})
"""Interruptions that nobody asked for: they count against the restart budget."""
MESSAGE_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ended. `interrupted`: it was ended from outside, or its lease ran out; it has no verdict then."""

    stats: RunStats
    interrupted: str | None = None
    completion: Completion | None = None
    error: RunError | None = None


@dataclass(slots=True)
class TurnMaker:
    """What all turns of a run share, and what one hands to the next: the conversation, when it is resumed."""

    run_id: str
    fence: int
    config: RunConfig
    epic: Epic
    agent: Agent
    journal: Journal
    lease: Lease
    grace_s: float
    turn_dir: Callable[[int], Path]
    redactor: Redactor
    log_watch: LogWatch
    thread_id: str | None
    thread_usage: TokenUsage | None
    publisher: Publisher | None

    @classmethod
    async def prepare(
        cls,
        *,
        run_id: str,
        fence: int,
        config: RunConfig,
        epic: Epic,
        agent: Agent,
        journal: Journal,
        lease: Lease,
        grace_s: float,
        turn_dir: Callable[[int], Path],
        redactor: Redactor,
        kept: Mapping[str, str],
        publisher: Publisher | None,
    ) -> TurnMaker:
        """Ready to make turns. At a run's first start a stale stop file is moved aside and the log's state is kept.

        `kept` is the run's meta: what an earlier worker of this run left for us.
        """
        if "completionBaseline" in kept:
            baseline = LogBaseline.from_json(kept["completionBaseline"])
        else:
            moved = await asyncio.to_thread(clear_stale, epic, run_id)
            baseline = await asyncio.to_thread(take_baseline, epic.codys_log, config.completion)
            journal.set({"completionBaseline": baseline.to_json()})
            for path in moved:
                message = f"a stop file from before this run was moved aside to {path}"
                journal.emit(WarningRaised(code="stale_stop_file", message=message))
        usage = kept.get("threadUsage")
        return cls(
            run_id=run_id,
            fence=fence,
            config=config,
            epic=epic,
            agent=agent,
            journal=journal,
            lease=lease,
            grace_s=grace_s,
            turn_dir=turn_dir,
            redactor=redactor,
            log_watch=LogWatch(epic.codys_log, config.completion, baseline),
            thread_id=kept.get("threadId"),
            thread_usage=TokenUsage.model_validate_json(usage) if usage else None,
            publisher=publisher,
        )

    def make(self, number: int, before: RunStats) -> Turn:
        """The next turn."""
        return Turn(self, number, before)

    def environment(self, turn: int) -> dict[str, str]:
        """What the agent's environment starts from: the allow-listed part of ours, and where it is."""
        return {**agent_environment(), **self.markers(turn)}

    def markers(self, turn: int) -> dict[str, str]:
        """Cody's own variables; config.env can't change them."""
        return {
            "CODY_RUN_ID": self.run_id,
            "CODY_TURN": str(turn),
            "CODY_FENCE": str(self.fence),
            "CODY_EPIC_DIR": str(self.epic.epic_dir),
            "CODY_HARNESS_DIR": str(self.epic.harness_dir),
            "CODY_STOP_FILE": str(self.epic.stop_files[0]),
        }

    def keep_thread(self, outcome: TurnOutcome) -> None:
        """The conversation that the next turn goes on in, should it be asked to."""
        if self.config.session != "resume" or outcome.thread_id is None:
            return
        self.thread_id, self.thread_usage = outcome.thread_id, outcome.thread_usage
        usage = outcome.thread_usage.model_dump_json(by_alias=True) if outcome.thread_usage else ""
        self.journal.set({"threadId": outcome.thread_id, "threadUsage": usage})


class Turn:
    """One turn. `run` makes it; `interrupt` ends it early."""

    def __init__(self, maker: TurnMaker, number: int, before: RunStats) -> None:
        self.number = number
        self._maker = maker
        self._journal = maker.journal
        self._before = before
        self._tally = Tally()
        self._interrupted: InterruptReason | None = None
        self._process: AgentProcess | None = None
        self._limits = TurnLimits(maker.config.budget, self._stop)
        self._watch = TurnWatch(maker.epic, maker.config.watch, self.emit, self._limits.active)
        self._stats_due = False
        self._record = TurnRecord(
            run_id=maker.run_id,
            turn=number,
            status="running",
            started_at=utc_text(now_ms()),
            fence=maker.fence,
            response_id=str(uuid.uuid4()),
            thread_id=maker.thread_id,
        )
        resumes = maker.config.session == "resume"
        self._response = TurnResponse(
            maker.publisher,
            TurnFacts(
                run_id=maker.run_id,
                turn=number,
                response_id=self._record.response_id,
                agent=maker.agent.name,
                model=maker.config.model,
                thread_id=maker.thread_id if resumes else None,
                thread_usage=maker.thread_usage if resumes else None,
            ),
            maker.redactor,
        )

    def interrupt(self, reason: InterruptReason) -> None:
        """End the agent now, by signal, the whole tree; `run` then returns. Never blocks."""
        self._interrupted = self._interrupted or reason
        self._stop()

    def emit(self, body: Body) -> None:
        """An event of this turn."""
        own = body.model_copy(update={"turn": self.number})
        self._journal.emit(own)
        if isinstance(own, FileWritten | FileDeleted) and own.source == "agent":
            self._watch.by_agent(own)
        if self._tally.add(own) and not self._stats_due:
            # Once for all events of a chunk, not once for each.
            self._stats_due = True
            asyncio.get_running_loop().call_soon(self._write_stats)

    async def run(self) -> TurnEnd:
        """Make the turn; it always ends with a record and one of turn_completed, turn_failed, turn_interrupted."""
        run_id, agent = self._maker.run_id, self._maker.agent.name
        with span("run.turn", run_id=run_id, turn=self.number, agent=agent, response_id=self._record.response_id):
            return await self._run()

    async def _run(self) -> TurnEnd:
        started_s = asyncio.get_running_loop().time()
        self._journal.set({"currentTurn": self.number})
        self._journal.record_turn(self._record)
        try:
            end = await self._made()
        except CodyError as error:
            end = _Made(exit=None, outcome=_failed(RunError(code=error.code, message=error.message)))
        finally:
            self._limits.end()
            self._maker.lease.on_extended = None
            await self._watch.stop()
        duration_ms = round((asyncio.get_running_loop().time() - started_s) * 1000)
        return await self._close(end, duration_ms)

    async def _made(self) -> _Made:
        request = await asyncio.to_thread(self._prepare)
        launch = self._maker.agent.launch(request)
        if self._maker.agent.name == "codex":
            await check_codex(launch)
        reader = self._maker.agent.reader(request)
        await self._watch.start()
        maker = self._maker
        output = TurnOutput(
            reader,
            TurnLog(request.prompt.with_name("output.log")),
            self.emit,
            self._limits.active,
            maker.redactor,
            lambda line: self._response.line(line, reader.thread_id),
        )
        try:
            if self._interrupted is not None:
                return _Made(exit=None, outcome=_failed(None))
            ended = await self._spawned(launch, request, output)
        finally:
            output.finish()
            self._record = self._record.model_copy(update={"output_bytes": output.size})
        await self._watch.settle()
        return _Made(exit=ended, outcome=self._judge(ended, reader))

    def _prepare(self) -> TurnRequest:
        """Assemble the prompt and keep it; blocking."""
        maker = self._maker
        epics.check_in_place(maker.epic, maker.config)
        folder = maker.turn_dir(self.number)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = prompt.assemble(
            epics.read(maker.epic),
            epic=maker.epic,
            turn=self.number,
            max_turns=maker.config.max_turns,
            run_id=maker.run_id,
        )
        path = folder / "prompt.md"
        # Cody keeps this file: what the agent needs of a secret is in its environment.
        path.write_text(maker.redactor.clean_text(text), encoding="utf-8")
        resumes = maker.config.session == "resume"
        return TurnRequest(
            run_id=maker.run_id,
            turn=self.number,
            config=maker.config,
            prompt=path,
            base_env=maker.environment(self.number),
            resume_thread=maker.thread_id if resumes else None,
            resume_usage=maker.thread_usage if resumes else None,
        )

    async def _spawned(self, launch: Launch, request: TurnRequest, output: TurnOutput) -> ProcessExit:
        maker = self._maker
        own = Launch(
            argv=launch.argv,
            # Where the epic was found, all links resolved: a link in config.workingDir may lead elsewhere by now.
            cwd=maker.epic.working_dir,
            env={**launch.env, **maker.markers(self.number)},
            stdin=launch.stdin,
        )
        process = await spawn(
            own,
            guard_id=str(uuid.uuid4()),
            grace_s=maker.grace_s,
            on_stdout=output.stdout,
            on_stderr=output.stderr,
            deadline=maker.lease.deadline,
        )
        self._process = process
        maker.lease.on_extended = process.extend_deadline
        process.extend_deadline(*maker.lease.deadline)
        self.emit(TurnStarted(pid=process.pid, response_id=self._record.response_id, thread_id=request.resume_thread))
        self._journal.set({"pid": process.pid})
        self._record = self._record.model_copy(update={"pid": process.pid})
        self._journal.record_turn(self._record)
        log.info("turn.started", run_id=maker.run_id, turn=self.number, pid=process.pid)
        self._limits.begin()
        if self._interrupted is not None:
            self._stop()
        try:
            ended = await process.wait()
        except BaseException:
            process.stop(0)
            raise
        self._process = None
        return ended

    def _judge(self, ended: ProcessExit, reader: TurnReader) -> TurnOutcome:
        if ended.leftovers and self._interrupted is None:
            names = ", ".join(f"{one.name} ({one.pid})" for one in ended.leftovers[:10])
            self.emit(
                WarningRaised(code="leftover_processes", message=f"still running at the turn's end, ended now: {names}")
            )
        if ended.survivors:
            names = ", ".join(f"{one.name} ({one.pid})" for one in ended.survivors[:10])
            self.emit(WarningRaised(code="unkillable_processes", message=f"SIGKILL did not end: {names}"))
        outcome = reader.outcome(AgentExit(ended.exit_code, ended.signal))
        for body in outcome.events:
            self.emit(body)
        reached = self._limits.reached
        if reached is None:
            return outcome
        return TurnOutcome(
            error=_limit_error(reached),
            usage=outcome.usage,
            thread_id=outcome.thread_id,
            thread_usage=outcome.thread_usage,
            last_message=outcome.last_message,
        )

    async def _close(self, made: _Made, duration_ms: int) -> TurnEnd:
        """Say how the turn ended: the event, the record, the numbers."""
        outcome = made.outcome
        interrupted: str | None = self._interrupted
        if interrupted is None and made.exit is not None and made.exit.reason in {"deadline", "guard_died"}:
            interrupted = "lease_expired" if made.exit.reason == "deadline" else "guard_died"
        exit_code = made.exit.exit_code if made.exit else None
        status: TurnStatus
        if interrupted is not None:
            status = "interrupted"
            self.emit(TurnInterrupted(reason=interrupted, duration_ms=duration_ms))
        elif outcome.error is not None:
            status = "failed"
            self.emit(TurnFailed(exit_code=exit_code, error=outcome.error, duration_ms=duration_ms))
        else:
            status = "completed"
            self.emit(TurnCompleted(token_usage=outcome.usage, duration_ms=duration_ms, exit_code=exit_code))
        self._finish_record(status, exit_code, outcome, duration_ms)
        self._response.end(outcome, interrupted)
        stats = self._tally.on_top_of(self._before, ended=interrupted is None)
        self._journal.set({**meta.stats_fields(stats), "pid": ""})
        log.info("turn.ended", run_id=self._maker.run_id, turn=self.number, status=status, duration_ms=duration_ms)
        if interrupted is not None:
            return TurnEnd(stats, interrupted=interrupted)
        self._maker.keep_thread(outcome)
        return TurnEnd(stats, completion=await self._completion(), error=outcome.error)

    def _finish_record(self, status: TurnStatus, exit_code: int | None, outcome: TurnOutcome, duration_ms: int) -> None:
        tally = self._tally
        last = outcome.last_message
        changes: dict[str, object] = {
            "status": status,
            "finished_at": utc_text(now_ms()),
            "duration_ms": duration_ms,
            "thread_id": outcome.thread_id or self._record.thread_id,
            "exit_code": exit_code,
            "token_usage": tally.usage,
            "files": tally.files,
            "files_written": tally.files_written,
            "tests_passed": tally.tests_passed,
            "tests_failed": tally.tests_failed,
            "last_message": last.encode()[:MESSAGE_BYTES].decode(errors="ignore") if last else None,
            "error": outcome.error if status == "failed" else None,
        }
        self._record = self._record.model_copy(update=changes)
        self._journal.record_turn(self._record)

    async def _completion(self) -> Completion | None:
        """Whether the stop file or the log says that the work is done. What the agent prints never counts."""
        match await asyncio.to_thread(check_stop_file, self._maker.epic):
            case StopFound(line=line):
                return Completion("stop_file", line)
            case StopRefused(reason=reason):
                self.emit(WarningRaised(code="stop_file_refused", message=reason))
            case None:
                pass
        matched = await asyncio.to_thread(self._maker.log_watch.check)
        return Completion("log_pattern", matched) if matched is not None else None

    def _write_stats(self) -> None:
        self._stats_due = False
        self._journal.set(meta.stats_fields(self._tally.on_top_of(self._before, ended=False)))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop(self._maker.grace_s)


@dataclass(frozen=True, slots=True)
class _Made:
    """`exit` None: no process was started."""

    exit: ProcessExit | None
    outcome: TurnOutcome


def _failed(error: RunError | None) -> TurnOutcome:
    return TurnOutcome(error=error, usage=TokenUsage())


def _limit_error(reached: LimitReached) -> RunError:
    if reached.name == "maxIdleSec":
        message = (
            f"the agent wrote nothing and changed nothing for {reached.seconds:g} s (budget.maxIdleSec) and was ended"
        )
        return RunError(code="turn_idle", message=message, retryable=True)
    message = f"the turn took longer than {reached.seconds:g} s (budget.maxTurnSec) and was ended"
    return RunError(code="turn_timeout", message=message, retryable=True)
