"""Faults of what is asked of Cody and of what it finds: equal POSTs, corrupt records, trimmed streams, slow readers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
from redis.asyncio import Redis

from cody.contracts.run import StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.errors import StreamTrimmed
from cody.settings import load_settings
from cody.store import keys, runs
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.server_binary import find_server_binary
from harness.service import RunService
from tests.faults import evidence
from tests.faults.stage import Measured, Stage, Watched, boottime_ns, leases, stage, until
from tests.server.cody_server import OwnedRun

MANY_RUNS = 10_000


async def equal_posts(seed: int) -> Measured:
    """100 equal POSTs with one Idempotency-Key, over two servers: one run."""
    async with stage(seed) as set_up:
        folder = set_up.folder / "repo"
        (folder / ".cody-harness" / "current-epic").mkdir(parents=True)
        config = {"workingDir": str(folder), "agent": "command", "command": [sys.executable, "-c", ""], "maxTurns": 1}
        request = StartRunRequest.model_validate({"epicId": "current-epic", "config": config})
        settings = load_settings(state_dir=set_up.folder / "second", redis_url=set_up.server.url, concurrency=0)
        async with RunService.open(settings) as second:
            answers = await asyncio.gather(
                *((set_up.front, second)[n % 2].start(request, idempotency_key="the same") for n in range(100))
            )
        ids = {answer.run_id for answer in answers}
        listed = (await set_up.front.records.page(limit=100, status=None, epic_id=None, cursor=None)).runs
        return Measured(duplicated=max(len(ids), len(listed)) - 1)


async def corrupt_records(seed: int) -> Measured:
    """What Redis holds of some runs is not what Cody wrote: they end or halt, and say so; the others go on."""
    async with stage(seed) as set_up:
        first = await set_up.machine("a")
        healthy = await set_up.run()
        await healthy.marks_of(1)
        harmed = {kind: await _queued(set_up) for kind in (*FAILS, *HALTS)}
        fault_ns = boottime_ns()
        first.kill()
        for kind, run_id in harmed.items():
            await _harm(set_up.redis, kind, run_id)
        await set_up.machine("b")
        await healthy.marks_of(2)
        for kind in FAILS:
            await until(partial(_status_is, set_up.redis, harmed[kind], b"failed"), f"{kind} ends the run")
        log = set_up.machines[-1].log
        await until(lambda: harmed["lastSeq"] in log.read_text(encoding="utf-8"), "the halted run is in the log")
        # Taking what can't be taken is tried less and less often.
        assert await _fence(set_up.redis, harmed["lastSeq"]) < 20
        end = await healthy.end()
        assert end.status == "completed", end
        return await set_up.measure(healthy, fault_ns)


FAILS = ("config", "workerStatus", "stats.turns", "brokenStarts")
HALTS = ("fence", "lastSeq", "meta is a list")


async def _queued(set_up: Stage) -> str:
    """A run that waits: its config is good, its folder is the healthy run's."""
    run_id = str(uuid.uuid4())
    config = RunConfig(working_dir=str(set_up.folder / "repo0"), agent="command", command=["true"], max_turns=1)
    await set_up.redis.zadd(keys.ACTIVE, {run_id: 1})
    await runs.create(set_up.redis, run_id, epic_id="current-epic", config=config, now_ms=1)
    # As after a worker's death: nobody was told to take it, the scan has to find it.
    await set_up.redis.set(keys.lock(run_id), "nobody", px=set_up.ttl_ms)
    return run_id


async def _harm(redis: Redis, kind: str, run_id: str) -> None:
    if kind == "meta is a list":
        await redis.delete(keys.meta(run_id))
        await redis.rpush(keys.meta(run_id), "x")
    else:
        await redis.hset(keys.meta(run_id), kind, "{not what it was")


async def _status_is(redis: Redis, run_id: str, status: bytes) -> bool:
    return bool(await redis.hget(keys.meta(run_id), "status") == status)


async def _fence(redis: Redis, run_id: str) -> int:
    return int(await redis.hget(keys.meta(run_id), "fence") or 0)


async def trimmed_past_a_reader(seed: int) -> Measured:
    """Events are trimmed before a slow reader got to them: it is told, mid-stream; a new reader starts at the oldest."""
    async with stage(seed) as set_up:
        run = await OwnedRun.create(set_up.redis)
        await run.add(5_000)
        cursor = await set_up.front.open_stream(run.run_id, "0")
        batches = set_up.front.follow(run.run_id, cursor)
        got = [json.loads(frame.data)["seq"] for frame in await anext(batches)]
        await set_up.redis.xtrim(keys.events(run.run_id), maxlen=100, approximate=False)
        try:
            async for batch in batches:
                got += [json.loads(frame.data)["seq"] for frame in batch]
            raise AssertionError("the reader was told nothing")
        except StreamTrimmed:
            pass
        assert got == list(range(1, len(got) + 1))
        later = set_up.front.follow(run.run_id, await set_up.front.open_stream(run.run_id, "0"))
        fresh = [json.loads(frame.data)["seq"] for frame in await anext(later)]
        assert fresh == list(range(4_902, 5_002))
        return Measured(gaps=len(got) - got[-1])


async def ten_thousand_runs(seed: int) -> Measured:
    """10,000 runs listed page by page: one round trip a page, each run once."""
    async with bare_redis() as client:
        rng = random.Random(seed)
        config = RunConfig(working_dir="/r", agent="command", command=["true"])
        ids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(MANY_RUNS)]
        async with asyncio.TaskGroup() as tasks:
            for worker in range(20):
                tasks.create_task(_create(client, ids[worker::20], config))
        before = await _calls(client)
        found: list[str] = []
        pages, cursor = 0, None
        while True:
            page = await runs.page(client, limit=100, now_ms=1_800_000_000_000, cursor=cursor)
            found += [row.run_id for row in page.runs]
            pages, cursor = pages + 1, page.next_cursor
            if cursor is None:
                break
        # The first page loads the script: EVALSHA is refused, then EVAL.
        assert pages == MANY_RUNS // 100
        assert await _calls(client) - before == pages + 1
        return Measured(lost=len(set(ids) - set(found)), duplicated=len(found) - len(set(found)))


async def _create(redis: Redis, ids: list[str], config: RunConfig) -> None:
    for run_id in ids:
        await runs.create(
            redis, run_id, epic_id="e", config=config, now_ms=1_700_000_000_000 + int(run_id[:4], 16) % 500
        )


async def _calls(client: Redis) -> int:
    """How many scripts were called: one round trip each."""
    found = await client.info("commandstats")
    return sum(int(found[name]["calls"]) for name in ("cmdstat_evalsha", "cmdstat_eval") if name in found)


@asynccontextmanager
async def bare_redis() -> AsyncIterator[Redis]:
    """A Valkey that nobody else speaks to."""
    with tempfile.TemporaryDirectory(prefix="cody-fault-") as folder:
        server = EmbeddedServer(find_server_binary(None), Path(folder))
        await server.start()
        client = connect(server.url)
        try:
            yield client
        finally:
            await client.aclose()
            await server.stop()


def _cwd(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return str(process.cwd())
    return ""


async def readers_over_a_restart(seed: int) -> Measured:
    """Twenty readers at different places while Redis is killed and started again, twice: each event once."""
    async with stage(seed, ttl_ms=leases.long_ms) as set_up:
        await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        others = []
        for _ in range(20):
            one = Watched(set_up.front, run.run_id, Path("/nowhere"), run.done)
            one.listen()
            others.append(one)
            await asyncio.sleep(set_up.rng.uniform(0, 0.05))
        for one in others:
            await one.marks_of(1, 1)
        fault_ns = boottime_ns()
        for _ in range(2):
            psutil.Process(set_up.server.pid).kill()
            await set_up.server.wait_exit()
            await set_up.server.start()
            await run.more(30)
        assert (await run.end()).status == "completed"
        judged = await set_up.measure(run, fault_ns)
        wrong = 0
        for one in others:
            await one.end()
            wrong += one.events != run.events or evidence.gaps(one.events)
        return Measured(judged.orphans, judged.lost, judged.duplicated, judged.gaps + wrong, judged.overlap_ms)


async def embedded_redis_killed(seed: int) -> Measured:
    """kill -9 of the Redis that Cody started itself: it is started again, the run goes on."""
    async with stage(seed) as set_up:
        folder = set_up.folder / "own"
        settings = load_settings(state_dir=folder, lock_ttl_ms=leases.long_ms, grace_s=0.3, redis_url=None)
        async with RunService.open(settings) as service:
            run = await set_up.run(service=service)
            await run.marks_of(1)
            await set_up.jitter()
            lock = (folder / "redis").resolve()
            (redis,) = [child for child in psutil.Process().children() if _cwd(child) == str(lock)]
            redis.kill()
            await run.marks_of(1, 100)
            end = await run.end()
            assert (end.status, len(run.of("turn_started"))) == ("completed", 1), end
            seen = evidence.marks(run.events)
            return Measured(
                lost=evidence.lost(seen, seen), duplicated=evidence.doubled(seen), gaps=evidence.gaps(run.events)
            )
