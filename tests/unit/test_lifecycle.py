"""Every move of the state machine, legal and illegal."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from cody.contracts.lifecycle import TRANSITIONS, LifecycleEvent, document, next_status
from cody.contracts.run import TERMINAL, RunStatus
from cody.errors import IllegalTransition

LEGAL = {
    ("queued", "worker_started"): "running",
    ("queued", "cancel_requested"): "cancelling",
    ("queued", "run_failed"): "failed",
    ("running", "worker_recovered"): "running",
    ("running", "pause_requested"): "pausing",
    ("running", "cancel_requested"): "cancelling",
    ("running", "run_completed"): "completed",
    ("running", "run_failed"): "failed",
    ("pausing", "worker_recovered"): "pausing",
    ("pausing", "pause_acknowledged"): "paused",
    ("pausing", "cancel_requested"): "cancelling",
    ("pausing", "run_completed"): "completed",
    ("pausing", "run_failed"): "failed",
    ("paused", "worker_recovered"): "paused",
    ("paused", "resume_requested"): "running",
    ("paused", "cancel_requested"): "cancelling",
    ("paused", "run_failed"): "failed",
    ("cancelling", "worker_recovered"): "cancelling",
    ("cancelling", "cancel_acknowledged"): "cancelled",
}
STATUSES: tuple[RunStatus, ...] = get_args(RunStatus)
EVENTS: tuple[LifecycleEvent, ...] = get_args(LifecycleEvent)


@pytest.mark.parametrize(("status", "event"), list(product(STATUSES, EVENTS)))
def test_each_move_is_as_the_contract_says(status: RunStatus, event: LifecycleEvent) -> None:
    target = LEGAL.get((status, event))
    if target is None:
        with pytest.raises(IllegalTransition, match=status):
            next_status(status, event)
    else:
        assert next_status(status, event) == target


def test_terminal_is_absorbing_and_everything_else_can_be_cancelled() -> None:
    for status in STATUSES:
        if status in TERMINAL:
            assert TRANSITIONS[status] == {}
        elif status != "cancelling":
            assert next_status(status, "cancel_requested") == "cancelling"


def test_the_diagram_in_the_docs_is_drawn_from_the_table() -> None:
    drawn = (Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md").read_text(encoding="utf-8")
    assert drawn == document(), "run `make lifecycle`"
