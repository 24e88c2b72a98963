"""How the parts that runs rest on are doing, in plain words: Redis, the archive, and how far it is behind."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from cody.contracts.health import ArchiveHealth, Backlog, HaltedProjection, RedisHealth
from cody.errors import CodyError
from cody.pipeline.pipeline import Pipeline
from cody.store.connection import check

ANSWER_S = 3.0
"""A database that takes longer to say that it is there is as good as away."""
LATE_MS = 60_000
"""The archive is some hundred milliseconds behind; a minute means that nobody works on it, or that SQL is away."""
HALTED_AT_MOST = 20


async def redis_health(redis: Redis) -> RedisHealth:
    """What Redis says of itself; it being away is an answer too."""
    try:
        facts = await check(redis)
    except CodyError as error:
        return RedisHealth(ok=False, state=error.message)
    return RedisHealth(
        ok=True, state=f"ok ({facts.flavour} {facts.version})", persistence=facts.degraded or _kept(facts.appendfsync)
    )


def _kept(appendfsync: str | None) -> str:
    """What survives, where nothing is weaker than it should be."""
    if appendfsync == "always":
        return "Redis keeps every event that it accepts"
    return "Redis keeps what it accepts; power loss may cost about the last second"


async def archive_health(pipeline: Pipeline, *, projects: bool) -> ArchiveHealth:
    """Whether SQL answers, and what is not in it yet. `projects`: this process brings it up to date."""
    try:
        async with asyncio.timeout(ANSWER_S):
            archive = await pipeline.archive()
            address = archive.address
            await archive.ping()
            halted = [HaltedProjection(run_id=one.run_id, reason=one.reason) for one in await archive.halted()]
    except (CodyError, TimeoutError) as error:
        said = error.message if isinstance(error, CodyError) else f"SQL did not answer within {ANSWER_S:g} s"
        runs, responses = await backlogs(pipeline)
        return ArchiveHealth(ok=False, state=said, projects=projects, runs=runs, responses=responses)
    runs, responses = await backlogs(pipeline)
    state, halted = f"ok ({_named(address)})", halted[:HALTED_AT_MOST]
    return ArchiveHealth(ok=True, state=state, projects=projects, halted=halted, runs=runs, responses=responses)


def _named(address: str) -> str:
    """The database's address as a person would say it. Pure."""
    kind, _, where = address.partition("://")
    if kind.startswith("sqlite"):
        return f"SQLite, {where.removeprefix('/')}"
    return f"PostgreSQL at {where.rpartition('@')[2]}" if kind.startswith("postgresql") else address


async def backlogs(pipeline: Pipeline) -> tuple[Backlog | None, Backlog | None]:
    """What the archive has not got yet, of runs and of responses.

    None where it is not known: Redis is away, or the archive can't be used at all.
    """
    try:
        async with asyncio.timeout(ANSWER_S):
            runs, responses = await pipeline.run_lag(), await pipeline.lag()
    except (CodyError, TimeoutError):
        return None, None
    return (
        Backlog(waiting=runs.pending, oldest_ms=runs.oldest_ms),
        Backlog(waiting=responses.pending, oldest_ms=responses.oldest_ms),
    )


def weaknesses(archive: ArchiveHealth) -> list[str]:
    """What of the archive is weaker than it should be. Runs go on without it: Redis keeps what it has not got yet. Pure."""
    found = [] if archive.ok else [f"the archive can't be reached, and catches up when it can: {archive.state}"]
    late = max((one.oldest_ms for one in (archive.runs, archive.responses) if one is not None), default=0)
    if archive.ok and late > LATE_MS:
        who = "" if archive.projects else "; this process leaves it to `cody projector`: is one running?"
        found.append(f"the archive is {late // 1000} s behind{who}")
    found += [f"run {one.run_id} is archived no further: {one.reason}" for one in archive.halted]
    return found
