"""Is the server alive, and can it start runs, on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cody.contracts.wire import Int, Wire


class Alive(Wire):
    """The process answers. `proof`: to a nonce, that it is the server that wrote `server.json` (`cody.proof`)."""

    status: Literal["ok"] = "ok"
    version: str
    proof: str | None = Field(default=None, exclude_if=lambda value: value is None)


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


class RedisHealth(Wire):
    """`state` begins with `ok` when it answers. `persistence`: what of it would survive a crash, in words."""

    ok: bool
    state: str
    persistence: str | None = None


class Backlog(Wire):
    """What the archive has not got yet. `oldest_ms`: for how long the oldest of it has waited; 0 = nothing waits."""

    waiting: Int
    oldest_ms: Int


class HaltedProjection(Wire):
    """A run that the archive takes no further, and why."""

    run_id: str
    reason: str


class ArchiveHealth(Wire):
    """The archive in SQL and those who write it. `projects`: the process that answers is one of them."""

    ok: bool
    state: str
    projects: bool
    runs: Backlog | None = None
    """None: it is not known, because Redis is away."""
    responses: Backlog | None = None
    halted: list[HaltedProjection] = Field(default_factory=list)


class Health(Wire):
    """How the whole is doing: who works on what, and the parts that all of it rests on. What is weak is at /readyz."""

    workers: list[WorkerHealth]
    queued: Int
    """Runs that no host has taken yet."""
    redis: RedisHealth
    archive: ArchiveHealth
