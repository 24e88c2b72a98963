"""The archive after kill -9, a full disk, a database or a Redis that goes and comes back: the same as without."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cody.errors import CodyError
from cody.pipeline.archive import Archive, ArchiveUnavailable, FenceRaised
from cody.pipeline.projecting import Pace
from cody.pipeline.run_projector import RunProjector
from cody.store import keys
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.server_binary import find_server_binary
from tests.conftest import Wait
from tests.pipeline.live_runs import (
    LiveRun,
    answered,
    assert_equal,
    is_archived,
    live_run,
    projector,
    running,
    until_still,
    warning,
)
from tests.pipeline.postgres_server import PostgresServer, patient

ROOT = Path(__file__).resolve().parents[2]
CLAIMS_AT_ONCE = Pace(gather_s=0.0, block_ms=20, claim_every_s=0.0, claim_idle_ms=0)
OUTAGE_S = 60.0
"""The projector tries again less and less often: after a long outage it may take 10 s until it does."""
TURNS_AHEAD = 50
"""So many turns more are written for each kill: enough that it is in the midst of them."""


@contextlib.asynccontextmanager
async def projector_process(*arguments: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A projector that is at work, killed at the end."""
    command = [sys.executable, "-m", "tests.pipeline.projector_process", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        await said(process, b"ready")
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


async def said(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Wait until the process has printed this word."""
    assert process.stdout is not None
    async with asyncio.timeout(90):
        while word not in (line := await asyncio.to_thread(process.stdout.readline)):
            assert line, f"the process ended ({process.poll()}) before it said {word!r}"


async def test_a_projector_killed_between_commit_and_ack_leaves_nothing_twice(
    valkey_url: str, redis: Redis, archive: Archive, database_url: str, tmp_path: Path
) -> None:
    run = await live_run(redis)
    # The sweep at the start acknowledges nothing: it is to find nothing to do.
    async with projector(valkey_url, redis, archive) as first:
        await until_still(first)
    async with projector_process(valkey_url, database_url, str(tmp_path), "--stop-before-ack") as process:
        await run.emit(answered("needle"), warning(1))
        await said(process, b"committed")
        process.kill()
        await asyncio.to_thread(process.wait)
    assert await is_archived(redis, archive, run.run_id)
    assert await redis.xlen(keys.ARCHIVE_NEWS) == 1
    await run.emit(warning(2))
    async with projector(valkey_url, redis, archive, pace=CLAIMS_AT_ONCE) as second:
        await until_still(second)
    await assert_equal(redis, archive, run.run_id)
    assert len((await archive.search("needle")).hits) == 1


async def test_projectors_that_are_killed_again_and_again_archive_everything_once(
    valkey_url: str, redis: Redis, archive: Archive, database_url: str, tmp_path: Path, eventually: Wait
) -> None:
    made = [await live_run(redis) for _ in range(4)]
    stop = asyncio.Event()
    ahead = [asyncio.Semaphore(TURNS_AHEAD) for _ in made]

    async def work(run: LiveRun, may: asyncio.Semaphore) -> None:
        number = 0
        while True:
            await may.acquire()
            if stop.is_set():
                break
            number += 1
            await run.turn(number)
            await run.emit(*(answered(f"word{number} of {run.run_id}") for _ in range(20)))
            await run.turn(number, "completed")
        await run.complete()

    workers = [asyncio.create_task(work(run, may)) for run, may in zip(made, ahead, strict=True)]
    reached = 0

    async def has_come_further() -> bool:
        return (await archive.cursor(made[0].run_id)).last_seq > reached

    for _ in range(3):
        async with projector_process(valkey_url, database_url, str(tmp_path)) as process:
            await eventually(has_come_further, deadline_s=60)
            process.kill()
        reached = (await archive.cursor(made[0].run_id)).last_seq
        for may in ahead:
            for _ in range(TURNS_AHEAD):
                may.release()
    stop.set()
    for may in ahead:
        may.release()
    await asyncio.gather(*workers)
    async with projector(valkey_url, redis, archive, pace=CLAIMS_AT_ONCE) as last:
        await until_still(last)
        assert await last.halted() == []
    for run in made:
        await assert_equal(redis, archive, run.run_id)
        # The search texts were written with their events: as many, neither more nor fewer.
        assert len((await archive.search("word2", run_id=run.run_id, limit=100)).hits) == 20


async def test_a_projector_cancelled_anywhere_can_be_started_again(
    valkey_url: str, redis: Redis, archive: Archive
) -> None:
    run = await live_run(redis)
    for steps in range(40):
        await run.emit(warning(steps), answered("needle"))
        async with projector(valkey_url, redis, archive, pace=CLAIMS_AT_ONCE) as one:
            task = asyncio.create_task(one.run())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    async with projector(valkey_url, redis, archive, pace=CLAIMS_AT_ONCE) as last:
        await until_still(last)
    await assert_equal(redis, archive, run.run_id)
    assert len((await archive.search("needle", limit=100)).hits) == 40


async def test_while_the_database_is_down_nothing_is_acknowledged_and_then_all_is_archived(
    valkey_url: str, redis: Redis, own_postgres: PostgresServer, tmp_path: Path, eventually: Wait
) -> None:
    archive = Archive(patient(own_postgres.url), tmp_path)
    run = await live_run(redis)
    async with projector(valkey_url, redis, archive) as one, running(one):
        await eventually(lambda: is_archived(redis, archive, run.run_id))
        await own_postgres.stop()
        await run.emit_many(50)
        with pytest.raises(ArchiveUnavailable, match="can't list runs"):
            await archive.page(limit=1)
        with pytest.raises(ArchiveUnavailable):
            await archive.raise_fence(run.run_id, 1, claim_id="a")
        assert (await one.lag()).pending > 0
        await own_postgres.start()
        await eventually(lambda: is_archived(redis, archive, run.run_id), deadline_s=OUTAGE_S)
        assert await archive.raise_fence(run.run_id, 1, claim_id="a") == FenceRaised()
    await assert_equal(redis, archive, run.run_id)
    await archive.aclose()


async def test_a_database_that_was_restarted_is_reached_by_the_very_next_call(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    archive = Archive(patient(own_postgres.url), tmp_path)
    await archive.ping()
    await own_postgres.stop()
    await own_postgres.start()
    await archive.ping()
    await archive.aclose()


async def test_a_projector_that_starts_before_the_database_waits_for_it(
    valkey_url: str, redis: Redis, own_postgres: PostgresServer, tmp_path: Path, eventually: Wait
) -> None:
    await own_postgres.stop()
    archive = Archive(patient(own_postgres.url), tmp_path)
    run = await live_run(redis)
    async with projector(valkey_url, redis, archive) as one, running(one):
        with pytest.raises(ArchiveUnavailable, match="can't open the archive"):
            await archive.ping()
        await own_postgres.start()

        async def is_there() -> bool:
            try:
                return await is_archived(redis, archive, run.run_id)
            except ArchiveUnavailable:
                return False

        await eventually(is_there, deadline_s=OUTAGE_S)
    await archive.aclose()


async def test_a_full_disk_stops_nothing_for_good(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Wait
) -> None:
    """The disk is full for one process: its files may not grow beyond a limit, which then is lifted."""
    url = f"sqlite:///{tmp_path}/archive.sqlite3"
    archive = Archive(url, tmp_path)
    await archive.open()
    run = await live_run(redis)
    async with projector_process(valkey_url, url, str(tmp_path), "--max-file", "400000") as process:
        await eventually(lambda: is_archived(redis, archive, run.run_id))
        for number in range(40):
            await run.emit(*(answered(f"{number} " + "x" * 4_000) for _ in range(10)))
        await said(process, b"projector.waiting")
        assert await redis.xlen(keys.ARCHIVE_NEWS) > 0
        assert not await is_archived(redis, archive, run.run_id)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await eventually(lambda: is_archived(redis, archive, run.run_id), deadline_s=OUTAGE_S)
        await assert_equal(redis, archive, run.run_id)
    await archive.aclose()


async def test_a_locked_file_does_not_block_the_event_loop(redis: Redis, tmp_path: Path) -> None:
    archive = Archive(None, tmp_path)
    await archive.open()
    other = sqlite3.connect(tmp_path / "archive.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(archive.raise_fence("r", 1, claim_id="a"))
    # The loop goes round, readers read, and the writer waits.
    for _ in range(20):
        assert (await archive.page(limit=1)).runs == []
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    assert await writing == FenceRaised()
    await archive.aclose()


async def test_a_file_that_is_no_database_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "archive.sqlite3").write_text("hello " * 1000)
    archive = Archive(None, tmp_path)
    with pytest.raises(CodyError, match="not a database"):
        await archive.ping()
    await archive.aclose()


async def test_a_redis_that_goes_and_comes_back_is_gone_on_with(tmp_path: Path, eventually: Wait) -> None:
    server = EmbeddedServer(find_server_binary(None), tmp_path / "state", appendfsync="always")
    await server.start()
    redis = connect(server.url)
    archive = Archive(None, tmp_path)
    try:
        run = await live_run(redis)
        async with projector(server.url, redis, archive) as one, running(one):
            await eventually(lambda: is_archived(redis, archive, run.run_id))
            await server.stop()
            with pytest.raises(CodyError):
                await one.lag()
            await server.start()
            await run.emit_many(30)
            await eventually(lambda: is_archived(redis, archive, run.run_id), deadline_s=OUTAGE_S)
        await assert_equal(redis, archive, run.run_id)
    finally:
        await archive.aclose()
        await redis.aclose()
        await server.stop()


async def test_many_runs_wait_for_one_database_without_being_forgotten(
    redis: Redis, archive: Archive, projecting: RunProjector, eventually: Wait
) -> None:
    made = [await live_run(redis) for _ in range(60)]
    async with running(projecting):
        for run in made:
            await run.complete()
        for run in made:
            run_id = run.run_id
            await eventually(lambda run_id=run_id: is_archived(redis, archive, run_id))
    for run in made:
        await assert_equal(redis, archive, run.run_id)
