"""Who owns a run: a lock with a TTL and a fence that grows with every acquisition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from cody.contracts.run import RunStatus
from cody.errors import NotFound
from cody.store import keys
from cody.store.scripts import script


@dataclass(frozen=True, slots=True)
class Claim:
    """The run is ours until the lock's TTL passes without a renewal."""

    fence: int
    worker_before: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker has it."""

    owner: str


@dataclass(frozen=True, slots=True)
class Ended:
    status: RunStatus


async def acquire(redis: Redis, run_id: str, *, worker_id: str, host: str, ttl_ms: int) -> Claim | Held | Ended:
    """Try to own a run; raises NotFound when there is no such run."""
    answer = await script("acquire")(redis, [keys.lock(run_id), keys.meta(run_id)], [worker_id, ttl_ms, host])
    match answer[0]:
        case b"ok":
            return Claim(int(answer[1]), answer[2].decode() or None)
        case b"held":
            return Held((answer[1] or b"").decode())
        case b"ended":
            return Ended(answer[1].decode())
        case _:
            raise NotFound(f"no run {run_id} to take")


async def renew(redis: Redis, run_ids: Sequence[str], *, worker_id: str, ttl_ms: int) -> list[str]:
    """Renew the locks of all these runs in one call; answers the ids that are not ours any more."""
    answer = await script("renew")(redis, [keys.lock(run_id) for run_id in run_ids], [worker_id, ttl_ms])
    return [run_id for run_id, renewed in zip(run_ids, answer, strict=True) if not renewed]


async def release(redis: Redis, run_id: str, *, worker_id: str) -> bool:
    """Give the lock back; False when it was not ours."""
    return bool(await script("release")(redis, [keys.lock(run_id)], [worker_id]))


@dataclass(frozen=True, slots=True)
class Owner:
    """A worker and the runs that it holds. `lease_age_ms`: of the lease that was renewed longest ago."""

    worker_id: str
    host: str
    run_ids: tuple[str, ...]
    lease_age_ms: int


async def owners(redis: Redis, *, ttl_ms: int) -> list[Owner]:
    """Who works on what right now, in two round trips; `ttl_ms` is the TTL of a fresh lease."""
    found = cast("Sequence[bytes]", await redis.zrange(keys.ACTIVE, 0, -1))
    ids = [raw.decode() for raw in found]
    async with redis.pipeline(transaction=False) as pipe:
        for run_id in ids:
            pipe.get(keys.lock(run_id))
            pipe.pttl(keys.lock(run_id))
            pipe.hget(keys.meta(run_id), "host")
        answers = await pipe.execute(raise_on_error=False)
    held: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for place, run_id in enumerate(ids):
        worker_id, left_ms, host = answers[3 * place : 3 * place + 3]
        if isinstance(worker_id, bytes) and isinstance(host, bytes):
            age_ms = max(0, ttl_ms - int(left_ms))
            held.setdefault((worker_id.decode(), host.decode("utf-8", "replace")), []).append((run_id, age_ms))
    return [
        Owner(worker_id, host, tuple(run_id for run_id, _ in runs), max(age for _, age in runs))
        for (worker_id, host), runs in sorted(held.items())
    ]
