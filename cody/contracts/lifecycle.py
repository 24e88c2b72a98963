"""The life of a run: one table, pure.

Rules:
1. Everything that may change a run's status is a row of TRANSITIONS. There is no other way.
2. A move that is not in the table raises and changes nothing.
3. A terminal status has no row: nothing leaves it.
4. Pause takes effect at the end of a turn; cancel ends the turn now and wins over a pause.

docs/lifecycle.md is drawn from this table (`python -m cody.contracts.lifecycle`); a test holds the two together.
"""

from __future__ import annotations

from typing import Literal

from cody.contracts.run import TERMINAL, ControlAction, RunStatus
from cody.errors import IllegalTransition

LifecycleEvent = Literal[
    "worker_started",
    "worker_recovered",
    "pause_requested",
    "pause_acknowledged",
    "resume_requested",
    "cancel_requested",
    "cancel_acknowledged",
    "run_completed",
    "run_failed",
]

TRANSITIONS: dict[RunStatus, dict[LifecycleEvent, RunStatus]] = {
    "queued": {
        "worker_started": "running",
        "cancel_requested": "cancelling",
        "run_failed": "failed",
    },
    "running": {
        # A run whose worker died, or whose server was shut down, is taken up where it was.
        "worker_recovered": "running",
        "pause_requested": "pausing",
        "cancel_requested": "cancelling",
        "run_completed": "completed",
        "run_failed": "failed",
    },
    "pausing": {
        "worker_recovered": "pausing",
        "pause_acknowledged": "paused",
        "cancel_requested": "cancelling",
        "run_completed": "completed",
        "run_failed": "failed",
    },
    "paused": {
        "worker_recovered": "paused",
        "resume_requested": "running",
        "cancel_requested": "cancelling",
        "run_failed": "failed",
    },
    "cancelling": {
        "worker_recovered": "cancelling",
        "cancel_acknowledged": "cancelled",
    },
    "completed": {},
    "failed": {},
    "cancelled": {},
}

REQUESTED: dict[ControlAction, LifecycleEvent] = {
    "pause": "pause_requested",
    "resume": "resume_requested",
    "cancel": "cancel_requested",
}


def next_status(status: RunStatus, event: LifecycleEvent) -> RunStatus:
    """The status after `event`; raises IllegalTransition, which names both, when the table has no such move."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        if status in TERMINAL:
            raise IllegalTransition(f"the run has ended ({status}): {event} is not possible any more") from None
        allowed = ", ".join(sorted(TRANSITIONS[status])) or "nothing"
        raise IllegalTransition(f"{event} is not possible while the run is {status} (possible: {allowed})") from None


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    for status, moves in TRANSITIONS.items():
        lines += [f"    {status} --> {target}: {event}" for event, target in moves.items() if target != status]
        if status in TERMINAL:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines) + "\n"


def document() -> str:
    """docs/lifecycle.md, whole."""
    rows = [
        f"| {status} | {event} | {target} |" for status, moves in TRANSITIONS.items() for event, target in moves.items()
    ]
    return "\n".join(
        [
            "# The life of a run",
            "",
            "Drawn from the table in `cody/contracts/lifecycle.py` by `make lifecycle`; a test holds the two together.",
            "",
            "```mermaid",
            diagram() + "```",
            "",
            "Pause takes effect at the end of the turn; cancel ends the turn now and wins over a pause. A move that is not",
            "here is refused (409 over HTTP) and changes nothing.",
            "",
            "| while it is | and this happens | it becomes |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    print(document(), end="")
