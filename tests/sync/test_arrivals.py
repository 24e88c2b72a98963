"""A run, a thread and a session that were pushed from one Cody are in the archive of another, and can be searched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.cli.exits import ERROR
from cody.contracts.responses import Response
from cody.contracts.run import TurnRecord
from cody.pipeline.archive import Archive, RunBatch
from cody.pipeline.arrivals import put
from cody.pipeline.arrived_lines import event_row
from cody.pipeline.publisher import Publisher
from cody.pipeline.response_state import ReducerState
from cody.pipeline.transfer import ResponseLine, ThreadHead, TurnLine, encoded
from cody.store.dead_letters import list_letters
from cody.store.events import Frame, PendingEvent, after
from cody.store.response_events import ResponseEvents
from server.sync import SyncEndpoints
from server.sync_host import SyncHost
from tests.conftest import Wait
from tests.pipeline.publishing import message, opening, response_projector
from tests.server.cody_server import TS, CodyServer, OwnedRun, launch
from tests.sync.arriving import DEADLINE_S, RUN_ID, answer, arrive, event, run_record, taking_in
from tests.sync.serving import Serving, served_table
from tests.sync.syncing_cody import Laptop

GOES_ON = answer("r", "x").model_copy(update={"status": "in_progress"})
TURN = TurnRecord(run_id=RUN_ID, turn=1, status="completed", started_at=TS, response_id="r")


@dataclass
class TeamHost:
    """The other Cody."""

    serving: Serving
    host: SyncHost
    archive: Archive
    own_runs: set[str]

    async def taken_in(self) -> bool:
        return not await (await self.host.engine()).arrivals()


@pytest.fixture
async def team(database_url: str, tmp_path: Path) -> AsyncIterator[TeamHost]:
    """Its sync engine and its archive share one database."""
    state_dir = tmp_path / "team"
    archive, own_runs = Archive(database_url, state_dir), set[str]()

    async def is_ours(run_id: str) -> bool:
        return run_id in own_runs

    async def opened() -> Archive:
        return archive

    async with (
        SyncHost(database_url, state_dir, opened, is_ours) as host,
        served_table(SyncEndpoints(host.engine).table(), state_dir) as serving,
    ):
        yield TeamHost(serving, host, archive, own_runs)
    await archive.aclose()


def laptop_of(state_dir: Path, team: TeamHost) -> Laptop:
    return Laptop(state_dir, team.serving.url, team.serving.token)


@pytest.fixture
async def cody(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CodyServer]:
    """The Cody that the runs are on."""
    server = await asyncio.to_thread(launch, tmp_path_factory.mktemp("cody"))
    assert server.url, server.stderr
    yield server
    await asyncio.to_thread(server.discard)


async def ended_run(cody: CodyServer, events: int) -> str:
    redis = cody.redis()
    run = await OwnedRun.create(redis)
    await run.add(events)
    said = json.dumps({"stream": "stdout", "text": "the needle lies in this haystack \u00e9\U0001f600"}).encode()
    await run._commit([PendingEvent("subprocess_output", TS, said)])
    await run.complete()
    await redis.aclose()
    return run.run_id


async def test_a_run_is_pushed_archived_listed_and_found(cody: CodyServer, team: TeamHost, eventually: Wait) -> None:
    run_id = await ended_run(cody, 2_500)
    laptop = laptop_of(cody.state_dir, team)
    job = await asyncio.to_thread(laptop.json, "push", run_id[:8])
    assert (job["state"], job["conversationId"]) == ("succeeded", f"run:{run_id}")
    await eventually(team.taken_in, "the run is taken in", DEADLINE_S)
    redis = cody.redis()
    live = await after(redis, run_id, "0-0", count=5_000)
    await redis.aclose()
    frames: list[Frame] = []
    while page := await team.archive.events_after(run_id, len(frames)):
        frames += page
    assert [frame.sse for frame in frames] == [frame.sse for frame in live]
    assert len(frames) > 2_500
    listed = await team.archive.page(limit=10)
    assert [(run.run_id, run.status) for run in listed.runs] == [(run_id, "completed")]
    found = await team.archive.search("needle haystack")
    assert [hit.run_id for hit in found.hits] == [run_id]
    again = await asyncio.to_thread(laptop.json, "push", run_id)
    assert again["jobId"] != job["jobId"]
    await eventually(team.taken_in, "the run is taken in once more", DEADLINE_S)
    assert len((await team.archive.search("needle haystack")).hits) == 1
    jobs = await asyncio.to_thread(laptop.json, "list", run_id)
    assert [one["jobId"] for one in jobs["jobs"]] == [again["jobId"], job["jobId"]]


async def test_a_run_that_goes_on_is_not_pushed(cody: CodyServer, team: TeamHost) -> None:
    redis = cody.redis()
    run = await OwnedRun.create(redis)
    laptop = laptop_of(cody.state_dir, team)
    told = await asyncio.to_thread(laptop, "push", run.run_id, code=ERROR)
    assert "its record is whole when it has ended" in told
    await run.complete()
    await redis.aclose()
    assert (await asyncio.to_thread(laptop.json, "push", run.run_id))["state"] == "succeeded"


async def test_a_session_of_codex_is_searched_by_its_turns(team: TeamHost, tmp_path: Path, eventually: Wait) -> None:
    session = "01a1fb7c-6120-7b63-9568-fae55264fe30"
    path = tmp_path / "rollout-2026-01-31T09-00-00.jsonl"
    entries: list[tuple[str, dict[str, Any]]] = [
        ("session_meta", {"id": session, "cwd": "/workspace"}),
        (
            "response_item",
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
        ),
        ("turn_context", {"turn_id": "turn-1", "model": "gpt-5.5"}),
        ("response_item", {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "mend it"}]}),
        ("response_item", {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "hm"}]}),
        ("response_item", {"type": "function_call", "name": "exec_command", "arguments": "{}", "call_id": "c"}),
        ("response_item", {"type": "function_call_output", "call_id": "c", "output": "pelican says ok"}),
        ("turn_context", {"turn_id": "turn-2", "model": "gpt-5.5"}),
        (
            "response_item",
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
        ),
        ("response_item", {"type": "message", "role": "assistant", "content": 7}),
    ]
    lines = [
        {"timestamp": f"2026-01-31T09:00:{n:02}.000Z", "type": k, "payload": p} for n, (k, p) in enumerate(entries)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"timestamp": "2026-01-31T09:0')
    job = await asyncio.to_thread(laptop_of(tmp_path / "laptop", team).json, "push", str(path))
    assert (job["conversationId"], job["threadId"]) == (f"codex:{session}", session)
    await eventually(team.taken_in, "the session is taken in", DEADLINE_S)
    rows = await team.archive.responses_of_thread(session)
    answers = [Response.model_validate_json(row.response) for row in rows]
    assert [(answer.turn_id, len(answer.output_items)) for answer in answers] == [("turn-1", 4), ("turn-2", 1)]
    assert answers[0].model_id == "gpt-5.5"
    [hit] = (await team.archive.search("pelican")).hits
    assert hit.response_id == answers[0].id
    engine = await team.host.engine()
    assert b"".join([piece async for piece in engine.read(f"codex:{session}")]) == path.read_bytes()


async def test_a_thread_is_pushed_and_found(cody: CodyServer, team: TeamHost, eventually: Wait) -> None:
    there = Archive(None, cody.state_dir)
    for number in range(3):
        await put(there, answer(f"r{number}", f"albatross {number}"))
    await there.aclose()
    laptop = laptop_of(cody.state_dir, team)
    job = await asyncio.to_thread(laptop.json, "push", "thread:t")
    assert (job["state"], job["conversationId"], job["threadId"]) == ("succeeded", "thread:t", "t")
    await asyncio.to_thread(laptop, "push", "thread:nobody", code=ERROR)
    await eventually(team.taken_in, "the thread is taken in", DEADLINE_S)
    assert len(await team.archive.responses_of_thread("t")) == 3
    assert [hit.response_id for hit in (await team.archive.search("albatross 2")).hits] == ["r2"]


@pytest.mark.parametrize(
    "content",
    [
        b"no record at all\n",
        b"\xff\xfe\n",
        run_record(status="running"),
        run_record(run_id="../../etc/passwd"),
        run_record(created_at="yesterday"),
        run_record(created_at="2026-99-99T99:99:99.000Z"),
        run_record(created_at="0001-01-01T00:00:00.000Z"),
        run_record(event(1, ts="2026-02-30T00:00:00.000Z")),
        run_record(event(1), event(3)),
        run_record(event(2)),
        run_record(event(1, event_id="1-0\ndata: forged")),
        run_record(event(1, type='x"},"y":{"')),
        run_record(event(1, ts="2026-01-01T00:00:00.000Z\n")),
        run_record(event(1, payload='{\n"code": "c"}')),
        run_record(event(1, payload="[]")),
        run_record(event(1, payload="{ }")),
        run_record() + encoded(ResponseLine(response=answer("r", "x"))),
        run_record() + encoded(TurnLine(turn=TURN)) + encoded(ResponseLine(response=GOES_ON)),
        encoded(ThreadHead(thread_id="another")) + encoded(ResponseLine(response=answer("r", "x"))),
        encoded(ThreadHead(thread_id="t")) + encoded(ResponseLine(response=GOES_ON)),
        b'{"kind": "run"}\n',
        b'{"kind": "thread", "version": 2, "threadId": "t"}\n',
    ],
)
async def test_what_is_no_record_is_kept_and_archives_nothing(content: bytes, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/both.sqlite3"
    async with taking_in(url, tmp_path) as (adapter, archive, arrivals):
        await arrive(adapter, content)
        assert await arrivals.take_all() == 1
        assert await arrivals.take_all() == 0
        assert (await archive.page(limit=5)).runs == []
        assert await archive.responses_of_thread("another") == []
        assert await archive.response("r") is None
        assert await archive.events_after(RUN_ID, 0) == []
        assert b"".join([piece async for piece in adapter.read("sent")]) == content


async def test_events_under_the_id_of_an_imported_response_find_it_closed(
    valkey_url: str, redis: Redis, tmp_path: Path
) -> None:
    imported = answer("r", "whole")
    async with taking_in(f"sqlite:///{tmp_path}/both.sqlite3", tmp_path) as (adapter, archive, arrivals):
        await arrive(adapter, encoded(ThreadHead(thread_id="t")) + encoded(ResponseLine(response=imported)))
        assert await arrivals.take_all() == 1
        row = await archive.response("r")
        assert row is not None
        assert ReducerState.model_validate_json(row.reducer_state).response == imported
        publication = Publisher(ResponseEvents(redis)).begin(opening("r"))
        publication.say(*message("forged", pieces=1))
        await publication.written()
        async with response_projector(valkey_url, redis, archive) as projector:
            assert await projector.project("r")
        parked = await list_letters(redis)
        assert [letter.code for letter in parked] == ["response_ended"] * 3
        kept = await archive.response("r")
        assert kept is not None
        assert Response.model_validate_json(kept.response) == imported


async def test_a_run_of_this_servers_own_is_not_overwritten(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/both.sqlite3"
    async with taking_in(url, tmp_path, own=RUN_ID) as (adapter, archive, arrivals):
        await arrive(adapter, run_record(event(1)))
        assert await arrivals.take_all() == 1
        assert (await archive.page(limit=5)).runs == []


async def test_an_import_that_broke_off_goes_on_and_contradicts_nothing(tmp_path: Path) -> None:
    url, events = f"sqlite:///{tmp_path}/both.sqlite3", [event(seq) for seq in range(1, 2_301)]
    async with taking_in(url, tmp_path) as (adapter, archive, arrivals):
        half = [event_row(line)[0] for line in events[:700]]
        assert await archive.record(RUN_ID, await archive.cursor(RUN_ID), RunBatch(None, 700, half))
        await arrive(adapter, run_record(*events))
        assert await arrivals.take_all() == 1
        assert (await archive.cursor(RUN_ID)).last_seq == 2_300
        assert [run.run_id for run in (await archive.page(limit=5)).runs] == [RUN_ID]
        await arrive(adapter, run_record(*events[:-1], event(2_300, ts="2026-02-02T00:00:00.000Z"), status="failed"))
        await arrivals.take_all()
        await arrive(adapter, run_record(*events, event(2_301), epic_id="another"))
        await arrivals.take_all()
        assert (await archive.cursor(RUN_ID)).last_seq == 2_300
        kept = await archive.snapshot(RUN_ID)
        assert (kept.status, kept.epic_id) == ("completed", "e")
