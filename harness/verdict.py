"""What a run does next: pure decisions over what is known when a turn has ended, or before one begins."""

from __future__ import annotations

from dataclasses import dataclass

from cody.contracts.run import CompletionSource, RunError, RunStats, RunStatus
from cody.contracts.run_config import RunConfig

RESTART_BUDGET = 5
"""Breaks in a row after which a run fails; a turn that ends by itself starts the count anew."""
MAX_RESTART_DELAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Completion:
    """The work is done, and what says so."""

    source: CompletionSource
    line: str | None


@dataclass(frozen=True, slots=True)
class NextTurn:
    """Go on, after the delay."""


@dataclass(frozen=True, slots=True)
class Complete:
    completion: Completion


@dataclass(frozen=True, slots=True)
class Fail:
    error: RunError


Step = NextTurn | Complete | Fail


def after_turn(*, config: RunConfig, stats: RunStats, found: Completion | None, error: RunError | None) -> Step:
    """The step after a turn that ended by itself.

    A stop file or a matching log counts even when the agent's process then failed: the work is done. A failed turn ends
    the run; its error says whether starting it again is worth it. `stats` has this turn in it.
    """
    if found is not None:
        return Complete(found)
    if error is not None:
        return Fail(error)
    if config.max_turns is not None and stats.turns >= config.max_turns:
        return Complete(Completion("max_turns", f"{stats.turns} of {config.max_turns} turns made"))
    return NextTurn()


def may_take_turn(status: RunStatus) -> bool:
    """Only a running run takes turns; one that is to pause, is paused or is to end does not."""
    return status == "running"


def restart_delay_s(breaks: int) -> float:
    """How long to wait before the next attempt: nothing after the first break, then 1, 2, 4, ... seconds."""
    return 0.0 if breaks < 2 else min(MAX_RESTART_DELAY_S, 2.0 ** (breaks - 2))


def restarts_exhausted(breaks: int, what: str) -> RunError:
    """The run fails: something breaks its turns again and again."""
    return RunError(
        code="restart_budget_exhausted",
        message=(
            f"{breaks} turns in a row were cut off, the last one by: {what}. Look at the server's log and the turns' output; "
            "a new run starts with a new budget"
        ),
        retryable=True,
    )


def host_error(error: OSError) -> RunError:
    """The run fails: this host's files can't be written or read."""
    what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return RunError(
        code="host_io_error",
        message=f"this host can't keep the turn's files ({what}): make room in Cody's state folder, then start again",
        retryable=True,
    )


def defect(error: Exception) -> RunError:
    """The run fails by a fault of Cody's own, in a known state and alone."""
    message = f"a defect in Cody ended the run ({type(error).__name__}: {str(error)[:300]}): see the server's log"
    return RunError(code="internal", message=message, retryable=True)
