"""The life of a job: every move legal and illegal, budgets, and which of two jobs wins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cody.sync import state
from cody.sync.contracts import TERMINAL, JobState
from cody.sync.errors import SyncError
from cody.sync.state import TRANSITIONS, IllegalMove, JobEvent, next_state
from cody.sync.storage import ConversationRow, JobRow
from cody.sync.views import job_snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STATES: tuple[JobState, ...] = get_args(JobState)
EVENTS: tuple[JobEvent, ...] = get_args(JobEvent)
LEGAL: dict[tuple[JobState, JobEvent], JobState] = {
    ("queued", "claimed"): "running",
    ("queued", "cancelled"): "cancelled",
    ("running", "claimed"): "running",
    ("running", "progressed"): "running",
    ("running", "applied_all"): "verifying",
    ("running", "backed_off"): "retrying",
    ("running", "released"): "queued",
    ("running", "failed"): "failed",
    ("running", "cancelled"): "cancelled",
    ("verifying", "claimed"): "running",
    ("verifying", "progressed"): "verifying",
    ("verifying", "backed_off"): "retrying",
    ("verifying", "released"): "queued",
    ("verifying", "verified"): "succeeded",
    ("verifying", "failed"): "failed",
    ("verifying", "cancelled"): "cancelled",
    ("retrying", "claimed"): "running",
    ("retrying", "cancelled"): "cancelled",
}


def job(ordinal: int = 1, job_state: JobState = "queued", **changes: object) -> JobRow:
    row = JobRow(
        job_id=f"job-{ordinal}",
        source_id=f"source-{ordinal}",
        conversation_id="c",
        thread_id="t",
        ordinal=ordinal,
        state=job_state,
        source_state="sealed",
        policy_version=1,
        started_at=NOW,
        updated_at=NOW,
        due_at=None if job_state in TERMINAL else NOW,
        total_chunks=3,
        message_count=3,
        byte_size=3,
        checksum="0" * 64,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # the fields of the row, by name


@pytest.mark.parametrize(("before", "event"), list(product(STATES, EVENTS)))
def test_each_move_is_as_the_contract_says(before: JobState, event: JobEvent) -> None:
    after = LEGAL.get((before, event))
    if after is None:
        with pytest.raises(IllegalMove, match=before):
            next_state(before, event)
    else:
        assert next_state(before, event) == after


def test_terminal_is_absorbing_and_everything_else_can_be_cancelled() -> None:
    for name in STATES:
        if name in TERMINAL:
            assert TRANSITIONS[name] == {}
        else:
            assert next_state(name, "cancelled") == "cancelled"


@given(st.lists(st.sampled_from(EVENTS), max_size=30))
def test_no_sequence_of_events_leaves_an_end(events: list[JobEvent]) -> None:
    now: JobState = "queued"
    for event in events:
        try:
            after = next_state(now, event)
        except IllegalMove:
            continue
        assert now not in TERMINAL
        now = after


def test_a_claim_raises_the_lease_version_and_a_lost_worker_costs_a_failure() -> None:
    first = state.claimed(job(), "a", NOW, 30, 8)
    assert (first.lease_version, first.worker_id, first.retry_count) == (1, "a", 0)
    assert first.due_at == NOW + timedelta(seconds=30)
    second = state.claimed(first, "b", NOW + timedelta(seconds=31), 30, 8)
    assert (second.lease_version, second.worker_id, second.retry_count) == (2, "b", 1)
    assert second.error_code == "lease_lost"
    assert "worker a" in (second.error_message or "")


def test_a_job_that_costs_one_worker_after_the_other_ends_failed() -> None:
    row = state.claimed(job(), "w", NOW, 30, 2)
    for _ in range(2):
        row = state.claimed(row, "w", NOW, 30, 2)
        assert row.state == "running"
    row = state.claimed(row, "w", NOW, 30, 2)
    assert (row.state, row.due_at, row.error_code) == ("failed", None, "lease_lost")


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_failure_backs_off_within_the_budget_and_fails_beyond_it(failures: int, budget: int) -> None:
    row = job(job_state="running", failures=failures, retry_count=7, worker_id="w")
    after = state.given_up(row, SyncError("backend_unavailable", "away"), 9.0, budget, NOW)
    assert (after.retry_count, after.failures) == (8, failures + 1)
    if failures < budget:
        assert (after.state, after.due_at, after.worker_id) == ("retrying", NOW + timedelta(seconds=9), None)
    else:
        assert (after.state, after.due_at, after.completed_at) == ("failed", None, NOW)


def test_what_cannot_get_better_is_not_tried_again() -> None:
    row = job(job_state="verifying")
    after = state.given_up(row, SyncError("verification_failed", "wrong"), 9.0, 8, NOW)
    assert (after.state, after.retry_count, after.source_state) == ("failed", 0, "sealed")
    lost = state.given_up(replace(row, state="running"), SyncError("source_invalid", "gone"), 9.0, 8, NOW)
    assert (lost.state, lost.source_state) == ("failed", "failed")


def test_a_clock_that_is_set_back_does_not_turn_times_around() -> None:
    row = state.claimed(job(), "w", NOW - timedelta(days=1), 30, 8)
    assert row.updated_at == NOW
    end = state.cancelled(row, SyncError("job_cancelled", "on request"), NOW - timedelta(days=2))
    assert end.completed_at == NOW


@given(st.integers(1, 4), st.none() | st.tuples(st.integers(1, 4), st.sampled_from(STATES)), st.integers(0, 4))
def test_of_two_jobs_the_one_of_the_newer_source_wins(
    ordinal: int, current: tuple[int, JobState] | None, record: int
) -> None:
    older = None if current is None else job(*current)
    conversation = ConversationRow(
        conversation_id="c", current_job_id=older.job_id if older else None, record_ordinal=record, revision=5
    )
    new = replace(job(ordinal), job_id="new")
    after, jobs = state.admitted(new, conversation, older, NOW)
    assert after.revision == 6
    rival = older if older is not None and older.state not in TERMINAL else None
    if ordinal < max(record, rival.ordinal if rival else 0):
        assert [(row.job_id, row.state, row.revision) for row in jobs] == [("new", "cancelled", 1)]
        assert jobs[0].error_code == "job_cancelled_replaced"
        assert after.current_job_id == conversation.current_job_id
    else:
        assert jobs[0] == new
        assert after.current_job_id == "new"
        assert [(row.job_id, row.state) for row in jobs[1:]] == ([(rival.job_id, "cancelled")] if rival else [])
    assert sum(row.state not in TERMINAL for row in jobs) <= 1


def test_a_snapshot_shows_an_error_and_no_progress_before_the_first_chunk() -> None:
    snapshot = job_snapshot(job(error_code="timeout", error_message="late"))
    assert snapshot.last_error is not None
    assert (snapshot.last_error.code, snapshot.last_error.message) == ("timeout", "late")
    assert (snapshot.processed_chunk_index, snapshot.last_cursor) == (-1, 0)
