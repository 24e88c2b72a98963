"""A run that Redis does not have, or not whole, is read from the archive: imported, trimmed, expired; and pushed on."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from cody.cli.exits import ERROR
from cody.contracts.run import TokenUsage, TurnRecord
from cody.pipeline.archive import Archive
from cody.pipeline.arrivals import put
from cody.store import events, keys
from cody.store.events import Answer, PendingEvent, commit
from cody.sync.adapters.http import HttpAdapter
from tests.conftest import Wait
from tests.server.cody_server import TS, CodyServer, OwnedRun, launch
from tests.sync.arriving import answer
from tests.sync.syncing_cody import Laptop, team_server

RETRY = b"retry: 2000\n\n"
DONE = b"data: [DONE]\n\n"
DEADLINE_S = 60.0
ODD_PAYLOADS = (
    b"{}",
    b'{"text":"\\u0000 \xc3\xa9 \xf0\x9f\x98\x80"}',
    b'{"n":1.50,"big":12345678901234567890,"deep":[[{}]]}',
)


@pytest.fixture
async def cody(tmp_path: Path) -> AsyncIterator[CodyServer]:
    """Where the runs were."""
    server = await asyncio.to_thread(launch, tmp_path, state="first")
    assert server.url, server.stderr
    yield server
    await asyncio.to_thread(server.discard)


@pytest.fixture
async def redis(cody: CodyServer) -> AsyncIterator[Redis]:
    client = cody.redis()
    yield client
    await client.aclose()


async def ended_run(redis: Redis, count: int) -> OwnedRun:
    """A run with a turn, and with events of every kind that was ever hard to copy."""
    run = await OwnedRun.create(redis)
    await run.add(count)
    await run._commit([PendingEvent("custom", TS, payload) for payload in ODD_PAYLOADS])
    turn = TurnRecord(
        run_id=run.run_id,
        turn=1,
        response_id="resp_1",
        status="completed",
        started_at=TS,
        finished_at=TS,
        exit_code=0,
        token_usage=TokenUsage(input_tokens=3),
    )
    said = json.dumps({"turn": 1, "stream": "stdout", "text": "the cormorant dries its wings"}).encode()
    done = await commit(
        redis,
        run.run_id,
        fence=run.fence,
        first_seq=run.last_seq + 1,
        events=[PendingEvent("subprocess_output", TS, said)],
        meta={"currentTurn": 1},
        turn=(1, turn.model_dump_json(by_alias=True).encode()),
    )
    assert done.answer is Answer.OK
    run.last_seq = done.last_seq
    await run.complete()
    return run


def stream(server: CodyServer, run_id: str, last_id: str | None = None, **query: str) -> bytes:
    """All that the server sends of a run's events."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with server.client() as client:
        answer = client.get(f"/api/runs/{run_id}/stream", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.content


def get(server: CodyServer, path: str, **query: str) -> httpx2.Response:
    with server.client() as client:
        return client.get(path, params=query)


def is_archived(server: CodyServer, run: OwnedRun) -> bool:
    """Whether the archive has all of its events."""
    exported = get(server, f"/api/runs/{run.run_id}/export", format="jsonl")
    return exported.status_code == 200 and exported.content.count(b'{"kind":"event"') == run.last_seq


def laptop(source: CodyServer, target: CodyServer) -> Laptop:
    return Laptop(source.state_dir, target.url, target.token)


async def test_an_imported_run_is_like_the_first_one_and_can_be_pushed_on(
    cody: CodyServer, redis: Redis, tmp_path: Path, eventually: Wait
) -> None:
    run = await ended_run(redis, 1_300)
    await eventually(lambda: is_archived(cody, run), "the run is archived where it ran", DEADLINE_S)
    archive = Archive(None, cody.state_dir)
    await put(archive, answer("resp_1", "guano"), run.run_id)
    await archive.aclose()
    source = stream(cody, run.run_id)
    assert source.count(b"\nid: ") == run.last_seq
    second = await asyncio.to_thread(launch, tmp_path, state="second")
    third = await asyncio.to_thread(launch, tmp_path, state="third")
    try:
        for sender, receiver in ((cody, second), (second, third)):
            job = await asyncio.to_thread(laptop(sender, receiver).json, "push", run.run_id[:8])
            assert job["state"] == "succeeded"
            await eventually(lambda: is_archived(receiver, run), "the run is taken in", DEADLINE_S)  # noqa: B023
            check_imported(run.run_id, cody, receiver, source)
        records = [get(one, "/api/sync/record", conversationId=f"run:{run.run_id}").content for one in (second, third)]
        assert records[0] == records[1]
        assert len(records[0]) > 100_000
    finally:
        await asyncio.to_thread(second.discard)
        await asyncio.to_thread(third.discard)


def check_imported(run_id: str, first: CodyServer, imported: CodyServer, source: bytes) -> None:
    assert stream(imported, run_id) == source
    assert source.startswith(RETRY)
    assert source.endswith(DONE)
    frames = source.removeprefix(RETRY).removesuffix(DONE).split(b"\n\n")
    seen = frames[700].split(b"\n")[0].removeprefix(b"id: ").decode()
    assert stream(imported, run_id, seen) == RETRY + b"\n\n".join(frames[701:]) + DONE
    assert stream(imported, run_id, **{"from": "$"}) == RETRY + DONE
    trimmed = get(imported, f"/api/runs/{run_id}/stream", **{"from": "77-7"})
    earliest = frames[0].split(b"\n")[0].removeprefix(b"id: ").decode()
    assert (trimmed.status_code, trimmed.json()["error"]["details"]) == (410, {"earliestEventId": earliest})
    for path in (f"/api/runs/{run_id}/export", f"/api/runs/{run_id}/turns", "/api/v2/responses/resp_1"):
        assert get(first, path).status_code == 200
        assert get(imported, path).content == get(first, path).content
    assert [one["runId"] for one in get(imported, "/api/runs").json()["runs"]] == [run_id]
    found = get(imported, "/api/search", q="cormorant wings").json()["hits"]
    assert [(hit["runId"], hit["turn"]) for hit in found] == [(run_id, 1)]


async def test_a_run_that_was_trimmed_or_has_expired_is_whole_from_the_archive(
    cody: CodyServer, redis: Redis, eventually: Wait
) -> None:
    run = await ended_run(redis, 20)
    await eventually(lambda: is_archived(cody, run), "the run is archived", DEADLINE_S)
    whole = stream(cody, run.run_id)
    ids = [frame.id for frame in await events.after(redis, run.run_id, "0-0")]
    await redis.xtrim(keys.events(run.run_id), maxlen=3, approximate=False)
    assert stream(cody, run.run_id) == whole
    refused = get(cody, f"/api/runs/{run.run_id}/stream", **{"from": ids[4]})
    assert (refused.status_code, refused.json()["error"]["details"]) == (410, {"earliestEventId": ids[-3]})
    await redis.delete(keys.events(run.run_id), keys.meta(run.run_id), keys.turns(run.run_id))
    assert stream(cody, run.run_id) == whole
    rest = stream(cody, run.run_id, ids[4])
    assert rest == RETRY + whole[whole.index(b"id: " + ids[5].encode()) :]


async def test_a_run_whose_end_was_lost_with_redis_does_not_look_ended(
    cody: CodyServer, redis: Redis, eventually: Wait
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(7)
    await eventually(lambda: is_archived(cody, run), "what there is of the run is archived", DEADLINE_S)
    await redis.delete(keys.events(run.run_id), keys.meta(run.run_id), keys.turns(run.run_id))
    raw = await asyncio.to_thread(stream, cody, run.run_id)
    assert raw.count(b"\nid: ") == run.last_seq
    problem = json.loads(raw.rsplit(b"event: error\ndata: ", 1)[1])
    assert problem["error"]["code"] == "not_found"
    assert f"up to event {run.last_seq}" in problem["error"]["message"]
    assert DONE not in raw


async def test_a_run_that_nobody_has_is_not_found(cody: CodyServer) -> None:
    answer = get(cody, "/api/runs/3f9a3f9a-0000-4000-8000-00000000dead/stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_thread_of_any_length_is_sent_whole_and_only_when_it_has_ended(
    cody: CodyServer, tmp_path: Path
) -> None:
    archive = Archive(None, cody.state_dir)
    await put(archive, answer("first", "a thread that never ends \u2028 for lines"))
    await archive.aclose()
    count = 1_005
    with sqlite3.connect(cody.state_dir / "archive.sqlite3") as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(responses)")]
        copied = {"response_id": "'r' || n", "created_at": "n + 1"}
        copied["response"] = """replace(response, '"first"', '"r' || n || '"')"""
        columns = ", ".join(copied.get(name, name) for name in names)
        database.execute(
            f"WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < {count - 1}) "
            f"INSERT INTO responses SELECT {columns} FROM responses, more"
        )
    database.close()
    with team_server(f"sqlite:///{tmp_path}/team/sync.sqlite3", tmp_path / "team") as team:
        sender = Laptop(cody.state_dir, team.url, team.token)
        job = await asyncio.to_thread(sender.json, "push", "thread:t")
        assert (job["state"], job["processedMessageCount"]) == ("succeeded", 1 + count)
        async with HttpAdapter(team.url, token=team.token) as adapter:
            record = b"".join([piece async for piece in adapter.read("thread:t")])
        sent = [json.loads(line)["response"]["id"] for line in record.splitlines()[1:]]
        assert sent == ["first", *(f"r{number}" for number in range(1, count))]
        with sqlite3.connect(cody.state_dir / "archive.sqlite3") as database:
            opened = """replace(response, '"complete"', '"in_progress"')"""
            database.execute(f"UPDATE responses SET response = {opened} WHERE response_id = 'r700'")
        database.close()
        told = await asyncio.to_thread(sender, "push", "thread:t", code=ERROR)
        assert "response r700 has not ended yet" in told
