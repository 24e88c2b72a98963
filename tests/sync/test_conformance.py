"""The kit passes what keeps the contract, and fails what is broken on purpose by the scenario of its fault."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from cody.sync import conformance
from cody.sync.adapters.memory import MemoryAdapter, MemoryStorage
from cody.sync.conformance import AdapterConformance
from cody.sync.contracts import Manifest, SourceSnapshot
from tests.sync import broken, broken_storage

UNHURRIED_S = 30.0
"""For a call of an adapter that keeps its promises."""


class MemoryConformance(AdapterConformance):
    """What an adapter's own test looks like."""

    def factory(self) -> MemoryAdapter:
        return MemoryAdapter()


FOUND: list[tuple[type[MemoryAdapter] | type[MemoryStorage], str]] = [
    (broken.StartsOnlyOnce, "start_makes_a_collecting_source"),
    (broken.SwallowsConflicts, "append_of_other_bytes_is_a_conflict"),
    (broken.SaysEverythingIsNew, "append_repeated_is_a_no_op"),
    (broken.LosesAChunk, "the_record_arrives_whole"),
    (broken.TakesChunksAfterTheSeal, "append_after_seal_is_refused"),
    (broken.TakesNonsense, "append_of_nonsense_is_refused"),
    (broken.SkipsTheChecksum, "seal_with_a_wrong_checksum_fails"),
    (broken.SkipsTheCounts, "seal_with_wrong_counts_fails"),
    (broken.SkipsTheMessageCount, "seal_with_a_wrong_message_count_fails"),
    (broken.SealsTwoJobs, "seal_again_gives_the_same_job"),
    (broken.ForgetsToCancel, "cancel_ends_a_job"),
    (broken.OnlySaysCancelled, "cancel_ends_a_job"),
    (broken.CancelsWhatHasEnded, "cancel_after_the_end_changes_nothing"),
    (broken.AnswersAWaitTooEarly, "waiting_ends_with_the_job"),
    (broken.IgnoresTheTimeout, "waiting_has_a_timeout"),
    (broken.NeverEnds, "the_record_arrives_whole"),
    (broken.CountsWrong, "snapshots_are_complete"),
    (broken.ListsNothing, "snapshots_are_complete"),
    (broken.ListsEverybodys, "conversations_do_not_mix"),
    (broken.RaisesItsOwnErrors, "unknown_jobs_are_not_found"),
    (broken.BelievesTheTarget, "a_lying_backend_is_found_out"),
    (broken_storage.LosesApplied, "the_record_arrives_whole"),
    (broken_storage.KeepsCopies, "a_frozen_worker_has_lost_its_job"),
    (broken_storage.MovesTheCursorLate, "crash_after_a_chunk_is_applied"),
    (broken_storage.WritesOverAnything, "a_frozen_worker_has_lost_its_job"),
    (broken_storage.WritesOverAnything, "cancel_while_running"),
    (broken_storage.ReplacesNobody, "a_newer_source_replaces_the_older_job"),
    (broken_storage.ReplacesNobody, "a_running_job_is_replaced"),
    (broken_storage.ForgetsTheRecord, "retries_have_a_budget"),
    (broken_storage.HurriesBackOffs, "a_back_off_is_kept"),
]


def made(kind: type[MemoryAdapter] | type[MemoryStorage]) -> object:
    return kind() if issubclass(kind, MemoryAdapter) else MemoryAdapter(kind())


@pytest.mark.parametrize(("kind", "scenario"), FOUND, ids=[f"{kind.__name__}-{name}" for kind, name in FOUND])
def test_an_adapter_that_is_broken_fails_by_the_scenario_of_its_fault(
    kind: type[MemoryAdapter] | type[MemoryStorage], scenario: str
) -> None:
    report = conformance.run(lambda: made(kind), only=[scenario], call_timeout_s=1.0)
    assert not report.passed
    assert report[scenario].diagnostics
    assert conformance.run(MemoryAdapter, only=[scenario], call_timeout_s=UNHURRIED_S).passed


def test_the_reference_keeps_every_promise() -> None:
    report = conformance.run(MemoryAdapter, call_timeout_s=UNHURRIED_S)
    assert report.passed, report
    assert [result.name for result in report.scenarios] == list(conformance.scenario_names())
    assert all(result.passed and not result.diagnostics for result in report.scenarios)
    assert not report.not_exercised


@pytest.mark.parametrize("kind", [broken.NeverAnswersAWait, broken.NeverEnds, broken.CannotBeInterrupted])
def test_an_adapter_that_hangs_is_reported_scenario_by_scenario(kind: type[MemoryAdapter]) -> None:
    report = conformance.run(kind, call_timeout_s=0.5, deadline_s=100)
    assert not report.passed
    assert len(report.scenarios) == len(conformance.scenario_names())
    assert report["the_record_arrives_whole"].outcome == "failed"
    assert report["append_of_nonsense_is_refused"].outcome == "failed"
    assert report["unknown_sources_are_not_found"].passed


def test_a_machine_that_stands_still_is_no_fault_of_the_adapter() -> None:
    class Frozen(MemoryAdapter):
        async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
            time.sleep(0.5)
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().start(conversation_id, thread_id)

    only = ["start_makes_a_collecting_source"]
    assert conformance.run(Frozen, only=only, call_timeout_s=0.2).passed


def test_an_adapter_that_blocks_its_event_loop_is_reported_too() -> None:
    try:
        report = conformance.run(broken.BlocksTheLoop, call_timeout_s=1.0, deadline_s=5.0)
    finally:
        broken.BlocksTheLoop.let_go.set()
    assert not report.passed
    assert report["start_makes_a_collecting_source"].passed
    assert "blocked the event loop" in report["the_record_arrives_whole"].diagnostics[0]


class Bare:
    """An adapter of somebody else's: the seven methods, and nothing to look behind them."""

    def __init__(self, inner: MemoryAdapter) -> None:
        self.start, self.append, self.seal = inner.start, inner.append, inner.seal
        self.get, self.list, self.cancel, self.wait_for_terminal = (
            inner.get,
            inner.list,
            inner.cancel,
            inner.wait_for_terminal,
        )


def test_what_needs_faults_is_not_passed_off_as_kept() -> None:
    report = conformance.run(lambda: Bare(MemoryAdapter()), call_timeout_s=UNHURRIED_S)
    assert report.passed
    assert "a_lying_backend_is_found_out" in {result.name for result in report.not_exercised}
    assert not any(result.passed for result in report.not_exercised)
    assert report["the_record_arrives_whole"].passed
    assert "not_exercised" in str(report)


def test_a_run_in_which_nothing_was_played_has_not_passed() -> None:
    assert not conformance.run(lambda: Bare(MemoryAdapter()), only=["crash_while_verifying"]).passed


@asynccontextmanager
async def opened() -> AsyncIterator[MemoryAdapter]:
    async with MemoryAdapter() as adapter:
        yield adapter


@contextmanager
def entered() -> Iterator[MemoryAdapter]:
    yield MemoryAdapter()


async def awaited() -> MemoryAdapter:
    return MemoryAdapter()


@pytest.mark.parametrize("factory", [MemoryAdapter, opened, entered, awaited])
def test_an_adapter_may_be_made_in_any_way(factory: type[MemoryAdapter]) -> None:
    names = ["the_record_arrives_whole", "cancel_while_running"]
    assert conformance.run(factory, only=names, call_timeout_s=UNHURRIED_S).passed


async def test_it_runs_inside_a_running_loop_and_on_it() -> None:
    inside = conformance.run(MemoryAdapter, only=["the_record_arrives_whole"], call_timeout_s=UNHURRIED_S)
    assert inside.passed
    assert await inside is inside
    made_on: set[asyncio.AbstractEventLoop] = set()

    class Here(MemoryAdapter):
        async def start(self, conversation_id: str, thread_id: str | None = None) -> SourceSnapshot:
            made_on.add(asyncio.get_running_loop())
            return await super().start(conversation_id, thread_id)

    report = await conformance.run_async(Here, only=["the_record_arrives_whole"], call_timeout_s=UNHURRIED_S)
    assert report.passed
    assert made_on == {asyncio.get_running_loop()}


def test_a_factory_that_fails_fails_every_scenario() -> None:
    def factory() -> MemoryAdapter:
        raise ConnectionError("no database")

    report = conformance.run(factory)
    assert {result.outcome for result in report.scenarios} == {"failed"}
    assert "no database" in str(report)


def test_a_report_reads_well_and_survives_json() -> None:
    report = conformance.run(broken.SwallowsConflicts, call_timeout_s=UNHURRIED_S)
    failed = report["append_of_other_bytes_is_a_conflict"]
    assert [result.name for result in report.failures][:1] == [failed.name]
    assert "expected chunk_conflict" in failed.diagnostics[0]
    assert any(line.startswith("append(") for line in failed.diagnostics[1:])
    assert json.loads(report.model_dump_json())["passed"] is False
    with pytest.raises(AssertionError, match="conformance FAILED"):
        report.raise_for_failures()


def test_an_unknown_scenario_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError, match="no-such"):
        conformance.run(MemoryAdapter, only=["no-such"])


def test_a_method_that_is_missing_or_not_async_is_named() -> None:
    class Blocking(Bare):
        def __init__(self) -> None:
            super().__init__(MemoryAdapter())
            self.seal = lambda *_: Manifest(total_chunks=0, message_count=0, byte_size=0)  # type: ignore[assignment]

    assert "not async" in str(conformance.run(Blocking)["the_record_arrives_whole"].diagnostics)
    assert "no method start" in str(conformance.run(object)["the_record_arrives_whole"].diagnostics)
