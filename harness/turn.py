"""One turn of a run: the prompt, the process, what it writes and changes, its end. Wiring only: decisions are elsewhere."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Literal

from structlog import get_logger

from cody.contracts.run import RunError, RunStats, TokenUsage, TurnRecord, TurnStatus
from cody.contracts.run_events import (
    TurnCompleted,
    TurnFailed,
    TurnInterrupted,
    TurnStarted,
    WarningRaised,
)
from cody.errors import CodyError
from cody.pipeline.tracing import current_trace_context, span
from cody.store import meta
from cody.wall_clock import now_text
from harness.agents.base import AgentExit, Body, TurnOutcome, TurnReader, TurnRequest
from harness.launch import AgentStartCutOff
from harness.preflight import check_codex
from harness.process import AgentProcess, Launch, ProcessExit, spawn
from harness.tally import Tally
from harness.turn_limits import TurnLimits, limit_error
from harness.turn_log import TurnLog
from harness.turn_output import TurnOutput
from harness.turn_response import TurnFacts, TurnResponse
from harness.turn_series import TurnSeries
from harness.turn_watch import TurnWatch
from harness.verdict import Completion, defect, host_error

log = get_logger()

InterruptReason = Literal["cancel", "shutdown", "fenced"]
BROKEN = frozenset({"lease_expired", "guard_died", "start_cut_off", "worker_lost"})
"""Interruptions that nobody asked for: they count against the restart budget."""
_BROKEN_BY = {"deadline": "lease_expired", "guard_died": "guard_died"}
MESSAGE_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ended. `interrupted`: it was ended from outside, or its lease ran out; it has no verdict then."""

    stats: RunStats
    interrupted: str | None = None
    completion: Completion | None = None
    error: RunError | None = None


class Turn:
    """One turn. `run` makes it; `interrupt` ends it early."""

    def __init__(self, series: TurnSeries, number: int, before: RunStats) -> None:
        self.number = number
        self._series = series
        self._journal = series.journal
        self._before = before
        self._tally = Tally()
        self._interrupted: InterruptReason | None = None
        self._process: AgentProcess | None = None
        self._limits = TurnLimits(series.config.budget, self._stop)
        # Other agents than codex tell of no patches: nothing of their workspace is read.
        clean = series.redactor.clean_text if series.agent.name == "codex" else None
        self._watch = TurnWatch(series.epic, series.config.watch, self.emit, self._limits.active, clean)
        self._stats_due = False
        self._has_item = False
        """Only then a conversation can be gone on with: of one without an item codex may have kept nothing."""
        self._thread_told = False
        self._record = TurnRecord(
            run_id=series.run_id,
            turn=number,
            status="running",
            started_at=now_text(),
            fence=series.fence,
            response_id=str(uuid.uuid4()),
            thread_id=series.thread_id,
        )
        self._response = TurnResponse(
            series.publisher,
            TurnFacts(
                run_id=series.run_id,
                turn=number,
                response_id=self._record.response_id,
                agent=series.agent.name,
                model=series.config.model,
                thread_id=series.resumed_thread,
                thread_usage=series.resumed_usage,
            ),
            series.redactor,
        )

    def interrupt(self, reason: InterruptReason) -> None:
        """End the agent now, by signal, the whole tree; `run` then returns. Never blocks."""
        self._interrupted = self._interrupted or reason
        self._stop()

    def emit(self, body: Body) -> None:
        """An event of this turn."""
        own = self._watch.with_diff(body)
        self._journal.emit(own, turn=self.number)
        # By its type's name: this is done for each of an agent's lines, and isinstance of models is slow.
        if (own.type == "file_written" or own.type == "file_deleted") and own.source == "agent":
            self._watch.by_agent(own)
        elif own.type == "turn_item":
            self._has_item = True
        if self._tally.add(own) and not self._stats_due:
            # Once for all events of a chunk, not once for each.
            self._stats_due = True
            asyncio.get_running_loop().call_soon(self._write_stats)

    async def run(self) -> TurnEnd:
        """Make the turn; it always ends with a record and one of turn_completed, turn_failed, turn_interrupted."""
        run_id, agent = self._series.run_id, self._series.agent.name
        with span("run.turn", run_id=run_id, turn=self.number, agent=agent, response_id=self._record.response_id):
            trace = current_trace_context()
            self._record = self._record.model_copy(update={"traceparent": trace.traceparent})
            self._response.trace = trace
            return await self._run()

    async def _run(self) -> TurnEnd:
        started_s = asyncio.get_running_loop().time()
        self._journal.set({"currentTurn": self.number})
        self._journal.record_turn(self._record)
        try:
            end = await self._made()
        except AgentStartCutOff as error:
            log.warning("turn.start_cut_off", run_id=self._series.run_id, turn=self.number, error=error.message)
            end = _Made(exit=None, outcome=_failed(None), broken="start_cut_off")
        except CodyError as error:
            end = _Made(exit=None, outcome=_failed(RunError(code=error.code, message=error.message)))
        except OSError as error:
            log.error("turn.host_failed", run_id=self._series.run_id, turn=self.number, error=str(error))
            end = _Made(exit=None, outcome=_failed(host_error(error)))
        except Exception as error:
            log.exception("turn.crashed", run_id=self._series.run_id, turn=self.number)
            end = _Made(exit=None, outcome=_failed(defect(error)))
        finally:
            self._limits.end()
            self._series.lease.on_extended = None
            await self._watch.stop()
        duration_ms = round((asyncio.get_running_loop().time() - started_s) * 1000)
        return await self._close(end, duration_ms)

    async def _made(self) -> _Made:
        series = self._series
        request = await asyncio.to_thread(series.request, self.number, self._before.turns + 1)
        launch = series.launch(request)
        if series.agent.name == "codex":
            await check_codex(launch)
        reader = series.agent.reader(request)
        await self._watch.start()
        output = TurnOutput(
            reader,
            TurnLog(request.prompt.with_name("output.log")),
            self.emit,
            self._limits.active,
            series.redactor,
            lambda line: self._line(line, reader.thread_id),
        )
        try:
            if self._interrupted is not None:
                return _Made(exit=None, outcome=_failed(None))
            ended = await self._spawned(launch, request, output)
        finally:
            output.finish()
            self._record = self._record.model_copy(update={"output_bytes": output.size})
        await self._watch.settle()
        return _Made(exit=ended, outcome=self._judge(ended, reader), broken=_BROKEN_BY.get(ended.reason))

    async def _spawned(self, launch: Launch, request: TurnRequest, output: TurnOutput) -> ProcessExit:
        series = self._series
        process = await spawn(
            launch,
            guard_id=str(uuid.uuid4()),
            grace_s=series.grace_s,
            on_stdout=output.stdout,
            on_stderr=output.stderr,
            deadline=series.lease.deadline,
        )
        self._process = process
        series.lease.on_extended = process.extend_deadline
        process.extend_deadline(*series.lease.deadline)
        self.emit(TurnStarted(pid=process.pid, response_id=self._record.response_id, thread_id=request.resume_thread))
        output.begin()
        self._journal.set({"pid": process.pid})
        self._record = self._record.model_copy(update={"pid": process.pid})
        self._journal.record_turn(self._record)
        log.info("turn.started", run_id=series.run_id, turn=self.number, pid=process.pid)
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

    def _line(self, line: bytes, thread_id: str | None) -> None:
        """A whole line of stdout was read; `thread_id` is the conversation's, once the agent has told it."""
        if self._has_item and not self._thread_told and thread_id is not None:
            # A turn that is cut off from here on is made again in the same conversation.
            self._thread_told = True
            self._series.begin_thread(thread_id)
        self._response.line(line, thread_id)

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
            error=limit_error(reached),
            usage=outcome.usage,
            thread_id=outcome.thread_id,
            thread_usage=outcome.thread_usage,
            last_message=outcome.last_message,
        )

    async def _close(self, made: _Made, duration_ms: int) -> TurnEnd:
        """Say how the turn ended: the event, the record, the numbers."""
        outcome = made.outcome
        interrupted = self._interrupted or made.broken
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
        log.info("turn.ended", run_id=self._series.run_id, turn=self.number, status=status, duration_ms=duration_ms)
        if interrupted is not None:
            return TurnEnd(stats, interrupted=interrupted)
        self._series.keep_thread(outcome.thread_id, outcome.thread_usage)
        completion, refused = await asyncio.to_thread(self._series.completion)
        if refused is not None:
            self.emit(WarningRaised(code="stop_file_refused", message=refused))
        return TurnEnd(stats, completion=completion, error=outcome.error)

    def _finish_record(self, status: TurnStatus, exit_code: int | None, outcome: TurnOutcome, duration_ms: int) -> None:
        tally = self._tally
        last = outcome.last_message
        changes: dict[str, object] = {
            "status": status,
            "finished_at": now_text(),
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

    def _write_stats(self) -> None:
        self._stats_due = False
        self._journal.set(meta.stats_fields(self._tally.on_top_of(self._before, ended=False)))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop(self._series.grace_s)


@dataclass(frozen=True, slots=True)
class _Made:
    """`exit` None: no process was started. `broken`: what cut it off that nobody asked for, one of BROKEN."""

    exit: ProcessExit | None
    outcome: TurnOutcome
    broken: str | None = None


def _failed(error: RunError | None) -> TurnOutcome:
    return TurnOutcome(error=error, usage=TokenUsage())
