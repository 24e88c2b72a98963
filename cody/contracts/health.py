"""Is the server alive, and can it start runs, on the wire."""

from __future__ import annotations

from typing import Literal

from cody.contracts.wire import Int, Wire


class Alive(Wire):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(Wire):
    """Runs can be started. `degraded`: what works, but is weaker than it should be."""

    ready: Literal[True] = True
    checks: dict[str, str]
    degraded: list[str]


class WorkerHealth(Wire):
    """A worker that holds runs, wherever it is. `lease_age_ms`: since its oldest lease was renewed."""

    worker_id: str
    host: str
    runs: list[str]
    lease_age_ms: Int


class Health(Wire):
    """How the whole is doing: who works on what. Checks in words are at /readyz."""

    workers: list[WorkerHealth]
    queued: Int
    """Runs that no host has taken yet."""
