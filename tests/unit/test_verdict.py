"""What a run does after a turn, and how often it tries again: decisions, no effects."""

from __future__ import annotations

import pytest

from cody.contracts.run import RunError, RunStats
from cody.contracts.run_config import RunConfig
from harness.verdict import (
    RESTART_BUDGET,
    Complete,
    Completion,
    Fail,
    NextTurn,
    Step,
    after_turn,
    restart_delay_s,
    restarts_exhausted,
)

ERROR = RunError(code="agent_exited", message="x")
FOUND = Completion("stop_file", "done")


@pytest.mark.parametrize(
    ("turns", "max_turns", "found", "error", "step"),
    [
        (1, None, None, None, NextTurn()),
        (1, 2, None, None, NextTurn()),
        (2, 2, None, None, Complete(Completion("max_turns", "2 of 2 turns made"))),
        (3, 2, None, None, Complete(Completion("max_turns", "3 of 2 turns made"))),
        (1, None, FOUND, None, Complete(FOUND)),
        (2, 2, FOUND, None, Complete(FOUND)),
        (1, None, FOUND, ERROR, Complete(FOUND)),
        (1, None, None, ERROR, Fail(ERROR)),
        (2, 2, None, ERROR, Fail(ERROR)),
    ],
)
def test_the_step_after_a_turn(
    turns: int, max_turns: int | None, found: Completion | None, error: RunError | None, step: Step
) -> None:
    config = RunConfig(working_dir="/r", max_turns=max_turns)
    assert after_turn(config=config, stats=RunStats(turns=turns), found=found, error=error) == step


def test_breaks_are_tried_again_ever_more_slowly() -> None:
    delays = [restart_delay_s(breaks) for breaks in range(12)]
    assert delays[:6] == [0, 0, 1, 2, 4, 8]
    assert delays == sorted(delays)
    assert max(delays) <= 60


def test_an_exhausted_budget_says_what_was_seen() -> None:
    error = restarts_exhausted(RESTART_BUDGET + 1, "guard_died")
    assert (error.code, error.retryable) == ("restart_budget_exhausted", True)
    assert "guard_died" in error.message
