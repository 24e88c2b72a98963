"""The client against a real server: typed answers, typed errors, and a stream that survives the network."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cody.client import ApiError, CodyClient, ServerUnreachable, find_server
from cody.client.errors import error_of_answer
from cody.client.stream import follow
from cody.contracts.run import StartRunRequest
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import Custom
from cody.errors import Conflict, Forbidden, InvalidRequest, NotFound, StoreUnavailable, StreamTrimmed
from cody.settings import Settings, load_settings
from cody.store import keys
from cody.store.events import PendingEvent, commit
from tests.cli.conftest import Agent
from tests.cli.tcp_proxy import tcp_proxy
from tests.conftest import Wait
from tests.ports import reserved_port
from tests.server.cody_server import TS, CodyServer, OwnedRun, launch

DEADLINE_S = 60.0
SILENCE_S = 8.0


async def sequence(client: CodyClient, run_id: str, from_: str = "0") -> list[int]:
    """The sequence numbers of the events, to the stream's end."""
    async with asyncio.timeout(DEADLINE_S), aclosing(client.stream(run_id, from_)) as stream:
        return [event.seq async for _, event in stream]


def watched_by(client: CodyClient, run_id: str, count: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many follow the run: the server counts them a moment after they came, or went."""

    async def is_so() -> bool:
        return (await client.snapshot(run_id)).subscribers == count

    return is_so


def request(repo: Path, command: list[str], **config: object) -> StartRunRequest:
    fields = {"working_dir": str(repo), "agent": "command", "command": command, "loop_delay_sec": 0, **config}
    return StartRunRequest(epic_id="current-epic", config=RunConfig.model_validate(fields))


async def test_a_run_from_its_start_to_its_records(client: CodyClient, repo: Path, agent: Agent) -> None:
    started = await client.start(request(repo, agent('print("hello"); stop("all done")')))
    assert started.meta.status == "queued"
    seen = await sequence(client, started.run_id)
    assert seen == list(range(1, len(seen) + 1))

    snapshot = await client.snapshot(started.run_id)
    assert (snapshot.status, snapshot.completion.line) == ("completed", "all done")
    assert snapshot.config.command == started.meta.config.command
    turns = await client.turns(started.run_id)
    assert turns == [await client.turn(started.run_id, 1)]
    async with aclosing(client.output(started.run_id, 1)) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"hello\n"
    async with aclosing(client.output(started.run_id, 1, offset=3)) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"lo\n"
    assert "Do it." in (await client.prompt(started.run_id)).prompt


async def test_limits_that_are_switched_off_reach_the_server_as_such(
    client: CodyClient, repo: Path, agent: Agent
) -> None:
    budget = {"max_turn_sec": None, "max_idle_sec": None}
    started = await client.start(request(repo, agent("stop()"), budget=budget))
    assert (await client.snapshot(started.run_id)).config.budget.max_turn_sec is None
    await sequence(client, started.run_id)


async def test_the_same_key_starts_one_run(client: CodyClient, repo: Path, agent: Agent) -> None:
    wanted = request(repo, agent("stop()"))
    answers = [await client.start(wanted, idempotency_key="the-key") for _ in range(2)]
    assert answers[0].run_id == answers[1].run_id
    with pytest.raises(Conflict):
        await client.start(request(repo, agent("stop()"), max_turns=5), idempotency_key="the-key")
    await sequence(client, answers[0].run_id)


async def test_pages_go_through_all_runs(client: CodyClient, store: Redis) -> None:
    mine = {(await OwnedRun.create(store)).run_id for _ in range(5)}
    found: list[str] = []
    cursor = None
    while True:
        page = await client.runs(limit=2, cursor=cursor)
        found += [run.run_id for run in page.runs]
        if (cursor := page.next_cursor) is None:
            break
    assert mine <= set(found)
    assert len(found) == len(set(found))
    assert all(run.status == "paused" for run in (await client.runs(status="paused")).runs)


async def test_errors_have_the_class_of_their_code(client: CodyClient, store: Redis, repo: Path) -> None:
    nobody = str(uuid.uuid4())
    with pytest.raises(NotFound, match=nobody):
        await client.snapshot(nobody)
    with pytest.raises(NotFound):
        await client.turn((await OwnedRun.create(store)).run_id, 7)
    with pytest.raises(NotFound):
        await sequence(client, nobody)
    with pytest.raises(InvalidRequest):
        await client.runs(limit=1000)
    with pytest.raises(InvalidRequest):
        await client.start(request(repo / "nowhere", ["true"]))
    with pytest.raises(Forbidden):
        await client.start(request(repo, ["true"], sandbox="danger-full-access"))
    with pytest.raises(Conflict):
        await client.control((await OwnedRun.create(store)).run_id, "resume")
    with pytest.raises((NotFound, InvalidRequest)):
        await client.snapshot("../healthz")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, b'{"error": {"code": "service_unavailable", "message": "no Redis"}}', StoreUnavailable),
        (
            410,
            b'{"error": {"code": "stream_trimmed", "message": "m", "details": {"earliestEventId": "5-0"}}}',
            StreamTrimmed,
        ),
        (418, b'{"error": {"code": "teapot", "message": "m"}}', ApiError),
        (502, b"<html>Bad Gateway</html>", ApiError),
        (500, b"\xff\xfe", ApiError),
    ],
)
def test_any_answer_becomes_an_error(status: int, body: bytes, kind: type[Exception]) -> None:
    assert type(error_of_answer(status, body)) is kind


async def test_nobody_there() -> None:
    async with CodyClient("http://127.0.0.1:1") as client:
        with pytest.raises(ServerUnreachable, match="cody serve"):
            await client.runs()
        with pytest.raises(ServerUnreachable):
            await sequence(client, str(uuid.uuid4()))


async def test_a_stream_over_many_lost_connections_has_each_event_once(server: CodyServer, store: Redis) -> None:
    run = await OwnedRun.create(store)
    await run.add(400, text_bytes=100)
    lost: list[str | None] = []
    async with tcp_proxy(server.port) as proxy, CodyClient(proxy.url, token=server.token) as client:
        # After some events; then in the middle of the headers, of a frame, at once, and after much.
        proxy.cut_after = [5_000, 50, 700, 1, 20_000, 777, 30_000]
        stream = client.stream(run.run_id, on_lost=lost.append)
        seen: list[int] = []
        async with asyncio.timeout(DEADLINE_S), aclosing(stream):
            async for _, event in stream:
                seen.append(event.seq)
                if event.seq == 401:
                    proxy.cut()
                    await run.add(50)
                    await run.complete()
        assert proxy.cut_after == []
        assert proxy.connections >= 8
    assert seen == list(range(1, 453))
    assert None in lost
    assert any(isinstance(reason, str) for reason in lost)


@pytest.fixture
def port() -> Iterator[int]:
    """For a server that comes back, or one that nobody else shall stand in for."""
    with reserved_port() as reserved:
        yield reserved


async def test_a_server_that_is_killed_and_comes_back_loses_no_event(tmp_path: Path, port: int) -> None:
    first = launch(tmp_path, port=port)
    second: CodyServer | None = None
    try:
        redis = first.redis()
        run = await OwnedRun.create(redis)
        await run.add(10)
        await redis.aclose()
        seen: list[int] = []
        async with CodyClient(first.url, token=first.token) as client:
            stream = client.stream(run.run_id)
            async with asyncio.timeout(DEADLINE_S), aclosing(stream):
                async for _, event in stream:
                    seen.append(event.seq)
                    if event.seq == 11:
                        first.end(signal.SIGTERM)
                        second = await asyncio.to_thread(launch, tmp_path, port=port)
                        assert second.url == first.url, second.stderr
                        run.redis = second.redis()
                        await run.add(5)
                        await run.complete()
        await run.redis.aclose()
        assert seen == list(range(1, 18))
    finally:
        first.discard()
        if second is not None:
            second.discard()


async def test_a_server_that_stays_away_is_given_up(tmp_path: Path, port: int) -> None:
    server = launch(tmp_path, port=port)
    try:
        redis = server.redis()
        run = await OwnedRun.create(redis)
        await redis.aclose()
        async with CodyClient(server.url, token=server.token) as client:
            stream = client.stream(run.run_id, give_up_after_s=0.5)
            async with asyncio.timeout(DEADLINE_S), aclosing(stream):
                assert (await anext(stream))[1].type == "run_queued"
                server.end(signal.SIGTERM)
                with pytest.raises(ServerUnreachable, match=f"cody watch {run.run_id}"):
                    await anext(stream)
    finally:
        server.discard()


async def test_events_that_are_no_longer_kept_are_an_error_that_says_where_to_begin(
    client: CodyClient, store: Redis, eventually: Wait
) -> None:
    run = await OwnedRun.create(store)
    await run.add(50)
    async with aclosing(client.stream(run.run_id)) as stream:
        first_id, _ = await anext(stream)
        await eventually(watched_by(client, run.run_id, 1))
    await eventually(watched_by(client, run.run_id, 0))
    await store.xtrim(keys.events(run.run_id), maxlen=10, approximate=False)
    with pytest.raises(StreamTrimmed) as caught:
        await sequence(client, run.run_id, first_id)
    assert caught.value.earliest_event_id > first_id
    # Begun before the end: of a run that has ended the archive may have what Redis let go of.
    kept = asyncio.create_task(sequence(client, run.run_id, "0"))
    await eventually(watched_by(client, run.run_id, 1))
    await run.complete()
    assert await kept == list(range(42, 53))


async def test_an_event_that_is_not_known_here_is_given_under_its_own_type(client: CodyClient, store: Redis) -> None:
    run = await OwnedRun.create(store)
    odd = [PendingEvent("from_the_future", TS, b'{"turn":3,"who":"me"}'), PendingEvent("warning", TS, b"{}")]
    done = await commit(store, run.run_id, fence=run.fence, first_seq=2, events=odd)
    run.last_seq = done.last_seq
    await run.complete()
    async with aclosing(client.stream(run.run_id)) as stream:
        found = [event async for _, event in stream]
    assert [event.type for event in found][1:3] == ["from_the_future", "warning"]
    assert found[1].body == Custom(turn=3, name="from_the_future", data={"turn": 3, "who": "me"})


async def test_from_an_id_and_only_new_ones(client: CodyClient, store: Redis, eventually: Wait) -> None:
    run = await OwnedRun.create(store)
    await run.add(5)
    async with aclosing(client.stream(run.run_id)) as stream:
        ids = [(await anext(stream))[0] for _ in range(3)]
        await eventually(watched_by(client, run.run_id, 1))
    await eventually(watched_by(client, run.run_id, 0))
    new = asyncio.create_task(sequence(client, run.run_id, "$"))
    await eventually(watched_by(client, run.run_id, 1))
    await run.complete()
    assert await sequence(client, run.run_id, ids[-1]) == [4, 5, 6, 7]
    assert await new == [7]


async def test_a_silent_connection_is_not_waited_for_without_end(server: CodyServer, store: Redis) -> None:
    run = await OwnedRun.create(store)
    lost = asyncio.Event()
    async with CodyClient(server.url, token=server.token) as client:
        http = client._http
        # The first answer must come in this time: who was never connected is told that there is no server.
        stream = follow(http, run.run_id, "0", silence_s=SILENCE_S, on_lost=lambda reason: lost.set())
        seen: list[int] = []
        async with asyncio.timeout(DEADLINE_S), aclosing(stream):
            async for _, event in stream:
                seen.append(event.seq)
                if event.seq == 1:
                    asyncio.get_running_loop().create_task(_complete_when(lost, run))
        assert seen == [1, 2]


async def _complete_when(ready: asyncio.Event, run: OwnedRun) -> None:
    await ready.wait()
    await run.complete()


def settings(state_dir: Path, **given: object) -> Settings:
    return load_settings(state_dir=state_dir, **{"port": 0, **given})


async def test_the_server_is_found_by_its_file_its_port_or_its_url(server: CodyServer, tmp_path: Path) -> None:
    assert await find_server(settings(server.state_dir)) == server.url
    assert await find_server(settings(tmp_path, port=server.port)) == server.url
    assert await find_server(settings(tmp_path, url=server.url + "/")) == server.url
    assert await find_server(settings(tmp_path)) is None


async def test_a_server_file_that_is_stale_or_no_file_is_passed_over(server: CodyServer, tmp_path: Path) -> None:
    for content in ('{"url": "http://127.0.0.1:1", "pid": 1}', "{}", "", '{"url": "nonsense", "pid": 1}', "\x00"):
        (tmp_path / "server.json").write_text(content)
        assert await find_server(settings(tmp_path, port=server.port)) == server.url


async def test_a_url_that_was_given_is_the_only_one(server: CodyServer) -> None:
    assert await find_server(settings(server.state_dir, url="http://127.0.0.1:1")) is None


async def test_another_program_on_the_port_is_not_taken_for_cody(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        port = other.sockets[0].getsockname()[1]
        assert await find_server(settings(tmp_path, port=port)) is None
    finally:
        other.close()
        await other.wait_closed()
