"""One record that can't be taken in holds up no other, and nothing that goes wrong once ends the taking in."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from cody.contracts.run import RunSummary
from cody.errors import StoreUnavailable
from cody.pipeline.archive import Archive
from cody.pipeline.arrivals import LISTED, Arrivals
from cody.pipeline.transfer import ThreadHead, encoded
from cody.sync.adapters.sql import SqlAdapter
from server.sync_host import SyncHost
from tests.conftest import Wait
from tests.sync.arriving import DEADLINE_S, arrive, event, run_record, taking_in

OTHER = "3f9a3f9a-0000-4000-8000-00000000000{}"


class Whose:
    """Tells whether a run is ours; fails for those in `failing`."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.asked: list[str] = []

    async def __call__(self, run_id: str) -> bool:
        self.asked.append(run_id)
        if run_id in self.failing:
            raise self.failing[run_id]
        return False


def named(number: int) -> str:
    return OTHER.format(number)


async def listed(archive: Archive) -> set[str]:
    runs: Sequence[RunSummary] = (await archive.page(limit=50)).runs
    return {run.run_id for run in runs}


async def test_a_record_that_fails_again_and_again_does_not_hold_up_the_later_ones(
    tmp_path: Path, eventually: Wait
) -> None:
    whose = Whose()
    async with taking_in(f"sqlite:///{tmp_path}/both.sqlite3", tmp_path) as (adapter, archive, _):
        arrivals = Arrivals(adapter, archive, whose, look_every_s=60.0)
        for number in (1, 2, 3, 4):
            await arrive(adapter, run_record(event(1), run_id=named(number)), f"sent-{number}")
        whose.failing = {named(1): StoreUnavailable("away"), named(3): RuntimeError("nobody expected this")}
        assert await arrivals.take_all() == 2
        assert await listed(archive) == {named(2), named(4)}
        asked = len(whose.asked)
        assert await arrivals.take_all() == 0
        assert len(whose.asked) == asked, "what has only just failed is tried again at once"
        quick = Arrivals(adapter, archive, whose, look_every_s=1.0)
        assert await quick.take_all() == 0
        whose.failing.clear()
        running = asyncio.create_task(quick.run())
        try:

            async def is_all_there() -> bool:
                return await listed(archive) == {named(number) for number in (1, 2, 3, 4)}

            await eventually(is_all_there, "what had failed is taken in", DEADLINE_S)
        finally:
            running.cancel()


async def test_any_number_of_records_that_fail_leaves_room_for_the_others(tmp_path: Path) -> None:
    whose = Whose()
    whose.failing = {named(1): StoreUnavailable("away")}
    async with taking_in(f"sqlite:///{tmp_path}/both.sqlite3", tmp_path) as (adapter, archive, _):
        await arrive(adapter, run_record(event(1), run_id=named(1)), "fails")
        copy_arrival(tmp_path / "both.sqlite3", LISTED)
        await arrive(adapter, run_record(event(1), run_id=named(2)), "good")
        assert await Arrivals(adapter, archive, whose).take_all() == 1
        assert await listed(archive) == {named(2)}
        assert len(await adapter.arrivals(2 * LISTED)) == 1 + LISTED


def copy_arrival(path: Path, count: int) -> None:
    """So many arrivals more, each like the only one that there is."""
    with sqlite3.connect(path) as database:
        for table in ("sync_conversations", "sync_jobs", "sync_records"):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            copied = {name: f"{name} || n" for name in ("conversation_id", "job_id", "record_job_id", "current_job_id")}
            columns = ", ".join(copied.get(name, name) for name in names)
            database.execute(
                f"WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < {count}) "
                f"INSERT INTO {table} SELECT {columns} FROM {table}, more"
            )
    database.close()


async def test_what_nobody_expected_is_logged_and_the_server_goes_on_taking_in(
    tmp_path: Path, eventually: Wait
) -> None:
    database = f"sqlite:///{tmp_path}/both.sqlite3"
    archive, opened = Archive(database, tmp_path), 0

    async def opens_at_the_second_time() -> Archive:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise RuntimeError("nobody expected this")
        return archive

    async with SyncHost(database, tmp_path, opens_at_the_second_time, Whose()) as host:
        engine = await host.engine()
        assert isinstance(engine, SqlAdapter)
        await arrive(engine, encoded(ThreadHead(thread_id="t")))

        async def is_taken_in() -> bool:
            return not await engine.arrivals()

        await eventually(is_taken_in, "the record is taken in", DEADLINE_S)
    assert opened == 2
    await archive.aclose()
