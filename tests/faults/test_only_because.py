"""Each fault is caught only because of its mechanism: without it the oracle sees the harm."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.errors import StreamTrimmed
from cody.store import events, keys, leases, runs
from cody.store.events import Answer, Commit, PendingEvent, commit
from cody.store.leases import Claim
from harness.tail import Reading, TailHub
from harness.tail_pages import Batch
from tests.faults import evidence
from tests.faults.machines import REPOSITORY, agents, guards, marked
from tests.faults.scenarios_hosts import DAEMON_AGENT
from tests.faults.stage import Leases, stage, until

Eventually = Callable[..., Awaitable[None]]
TTL_MS = Leases().short_ms


async def owned(redis: Redis, ttl_ms: int = 60_000) -> tuple[str, int]:
    run_id = str(uuid.uuid4())
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    return run_id, await taken(redis, run_id, ttl_ms)


async def taken(redis: Redis, run_id: str, ttl_ms: int = 60_000) -> int:
    claim = await leases.acquire(redis, run_id, worker_id=str(uuid.uuid4()), host="h", ttl_ms=ttl_ms)
    assert isinstance(claim, Claim)
    return claim.fence


def supervisor(url: str, run_id: str, guarded: str, record: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.supervisor", url, run_id, str(TTL_MS), guarded, str(record)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
    )


async def said_its_fence(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(await asyncio.to_thread(process.stdout.readline))


@pytest.mark.parametrize("guarded", ["yes", "no"])
async def test_without_the_guards_deadline_a_frozen_supervisors_agent_meets_its_successor(
    guarded: str, redis: Redis, valkey_url: str, tmp_path: Path, eventually: Eventually
) -> None:
    run_id, record = str(uuid.uuid4()), tmp_path / "evidence"
    await runs.create(redis, run_id, epic_id="e", config=RunConfig(working_dir="/r"), now_ms=1)
    first = supervisor(valkey_url, run_id, guarded, record)
    second: subprocess.Popen[bytes] | None = None
    try:
        assert await said_its_fence(first) == 1
        second = supervisor(valkey_url, run_id, guarded, record)
        os.kill(first.pid, signal.SIGSTOP)
        assert await said_its_fence(second) == 2
        await eventually(
            lambda: any(life.fence == 2 and life.last_ns - life.begin_ns > 5e8 for life in evidence.lifetimes(record))
        )
        if guarded == "yes":
            assert evidence.overlap_ms(evidence.lifetimes(record)) <= 0
        else:
            await eventually(lambda: evidence.overlap_ms(evidence.lifetimes(record)) > 300, "both agents live")
    finally:
        os.kill(first.pid, signal.SIGCONT)
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
        await eventually(lambda: not marked(run_id), "the guards have ended the agents")


async def test_only_the_fence_keeps_a_former_owner_from_writing(redis: Redis) -> None:
    run_id, old = await owned(redis)
    await redis.delete(keys.lock(run_id))
    new = await taken(redis, run_id)

    async def write(fence: int) -> Commit:
        events = [PendingEvent("warning", "t", b'{"code":"c","message":"from the former owner"}')]
        return await commit(redis, run_id, fence=fence, first_seq=2, events=events, meta={"pid": 1})

    assert (await write(old)).answer is Answer.FENCED
    assert await redis.xlen(keys.events(run_id)) == 1
    # The same call, but for the fence.
    assert (await write(new)).answer is Answer.OK
    assert await redis.xlen(keys.events(run_id)) == 2


async def test_only_the_sequence_number_keeps_a_repeated_call_from_adding_twice(redis: Redis) -> None:
    run_id, fence = await owned(redis)

    async def write(first_seq: int) -> Commit:
        events = [PendingEvent("warning", "t", b'{"code":"c","message":"once"}')]
        return await commit(redis, run_id, fence=fence, first_seq=first_seq, events=events)

    assert (await write(2)).answer is Answer.OK
    # As after a lost reply.
    assert (await write(2)).answer is Answer.DUPLICATE
    assert await redis.xlen(keys.events(run_id)) == 2
    # A writer that asked the store where it is, instead of knowing: it adds again.
    assert (await write((await write(2)).last_seq + 1)).answer is Answer.OK
    assert await redis.xlen(keys.events(run_id)) == 3


async def test_only_the_owners_name_in_the_lock_keeps_a_late_release_from_opening_it(redis: Redis) -> None:
    run_id, _ = await owned(redis)
    await redis.delete(keys.lock(run_id))  # as after the lease of the first one
    await taken(redis, run_id)
    assert not await leases.release(redis, run_id, worker_id="the first one")
    assert await redis.exists(keys.lock(run_id))
    # A release that does not look whose it is: a third one gets in beside the second.
    await redis.delete(keys.lock(run_id))
    assert await taken(redis, run_id) == 3


async def test_only_the_idempotency_key_makes_equal_requests_one_run(redis: Redis) -> None:
    config = RunConfig(working_dir="/r")

    async def create(key: str | None) -> str:
        return await runs.create(redis, str(uuid.uuid4()), epic_id="e", config=config, now_ms=1, idempotency_key=key)

    assert len({await create("k") for _ in range(5)}) == 1
    assert len({await create(None) for _ in range(5)}) == 5


async def test_only_the_numbers_show_a_reader_that_events_are_missing(redis: Redis, valkey_url: str) -> None:
    run_id, fence = await owned(redis)
    some = [PendingEvent("warning", "t", b'{"code":"c","message":"m"}')] * 20
    await commit(redis, run_id, fence=fence, first_seq=2, events=some)
    hub = TailHub(valkey_url, redis)
    reading = hub.follow(run_id, await hub.open(run_id, "0"))
    (batch, place) = await anext_part(reading)
    reading.sent(batch, place, 5)
    await redis.xtrim(keys.events(run_id), maxlen=3, approximate=False)
    hub.pages.forget(run_id)
    # What Redis has after the reader's place looks as good as any answer.
    assert [frame.seq for frame in await events.after(redis, run_id, batch.frames[4].id)] == [19, 20, 21]
    with pytest.raises(StreamTrimmed):
        await reading.next()
    await reading.aclose()


async def anext_part(reading: Reading) -> tuple[Batch, int]:
    found = await reading.next()
    assert found is not None
    return found


async def test_only_the_sweep_ends_a_daemon_whose_guard_and_supervisor_were_killed() -> None:
    async with stage(3) as set_up:
        first = await set_up.machine("a", isolated=False)
        run = await set_up.run([sys.executable, "-I", "-S", str(DAEMON_AGENT), str(set_up.folder / "done0")])
        await run.until(lambda: run.of("subprocess_output"), "the daemon's start")
        before = set(agents(run.run_id))
        (guard,) = guards(run.run_id)
        # Awake, it would hear of the first kill, and could be at its work before the second.
        os.kill(guard, signal.SIGSTOP)
        first.kill()
        os.kill(guard, signal.SIGKILL)
        await until(lambda: len(agents(run.run_id)) == 1, "the agent died with its guard")
        (daemon,) = agents(run.run_id)
        assert daemon in before
        # The lease is over, and still it lives: nobody has taken the run up.
        await until(lambda: _free(set_up.redis, run.run_id), "the lock has expired")
        assert agents(run.run_id) == [daemon]
        await set_up.machine("again", isolated=False, state_dir=set_up.folder / "state-a")
        await run.until(lambda: run.of("run_recovered"), "the run was taken up")
        assert daemon not in agents(run.run_id)
        await run.end()
        assert marked(run.run_id) == []


async def _free(redis: Redis, run_id: str) -> bool:
    return not await redis.exists(keys.lock(run_id))


async def test_only_the_kernels_timer_ends_an_agent_whose_guard_and_supervisor_are_frozen() -> None:
    async with stage(4) as set_up:
        first = await set_up.machine("a")
        run = await set_up.run()
        await run.marks_of(1)
        (guard,) = guards(run.run_id)
        (agent,) = agents(run.run_id)
        first.freeze(guard)
        # Nobody who could send a signal is awake: no other machine, the supervisor and the guard are stopped.
        await until(lambda: agent not in marked(run.run_id), "the agent is ended")
        assert guard not in marked(run.run_id)
        assert Path(f"/proc/{first.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
