"""Events over HTTP: each once and in order, from where the reader wants, to the end; or 410."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

import httpx2
import psutil
import pytest
from redis.asyncio import Redis

from cody.store import events, keys
from tests.server.cody_server import DEADLINE_S, CodyServer, OwnedRun
from tests.server.conftest import Launch

Eventually = Callable[..., Awaitable[None]]

RETRY = b"retry: 2000\n\n"
DONE = b"data: [DONE]\n\n"


@pytest.fixture
async def run(store: Redis) -> AsyncIterator[OwnedRun]:
    """A run with one event so far (seq 1), which ends with the test."""
    made = await OwnedRun.create(store)
    yield made
    await made.complete()


def path(run: OwnedRun) -> str:
    return f"/api/runs/{run.run_id}/stream"


def seqs(raw: bytes) -> list[int]:
    """The sequence numbers of all events in the bytes of a stream."""
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n") if line.startswith(b"data: {")]
    return [found["seq"] for found in map(json.loads, lines) if "seq" in found]


def open_streams(client: httpx2.Client) -> int:
    (line,) = [one for one in client.get("/metrics").text.splitlines() if one.startswith("cody_open_streams ")]
    return int(float(line.split()[1]))


class Reader:
    """A stream that is read byte by byte, as they come."""

    def __init__(self, server: CodyServer, path: str, headers: dict[str, str] | None = None) -> None:
        self._client = server.client()
        request = self._client.build_request("GET", path, headers=headers)
        self.answer = self._client.send(request, stream=True)
        self._chunks = self.answer.iter_raw()
        self.raw = b""

    def until(self, marker: bytes) -> bytes:
        """Everything so far, once it has the marker, and the frame that the marker is in whole."""
        while b"\n\n" not in self.raw[self.raw.find(marker) :]:
            self.raw += next(self._chunks)
        return self.raw

    def to_the_end(self) -> bytes:
        self.raw += b"".join(self._chunks)
        return self.raw

    def close(self) -> None:
        self.answer.close()
        self._client.close()


@pytest.fixture
def read(server: CodyServer) -> Iterator[Callable[..., Reader]]:
    readers: list[Reader] = []

    def open_reader(path: str, **headers: str) -> Reader:
        readers.append(Reader(server, path, {name.replace("_", "-"): value for name, value in headers.items()}))
        return readers[-1]

    yield open_reader
    for one in readers:
        one.close()


async def test_a_stream_is_retry_then_frames_then_done(
    store: Redis, client: httpx2.Client, read: Callable[..., Reader]
) -> None:
    run = await OwnedRun.create(store)
    await run.add(2)
    await run.complete()
    reader = read(path(run))
    frames = b"".join(frame.sse for frame in await events.after(store, run.run_id, "0-0"))
    assert reader.to_the_end() == RETRY + frames + DONE
    headers = reader.answer.headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-content-type-options"] == "nosniff"
    with client.sse(path(run)) as source:
        found = list(source)
    assert [event.data for event in found if event.data][-1] == "[DONE]"
    assert [json.loads(event.data)["type"] for event in found if event.data.startswith("{")] == [
        "run_queued",
        "warning",
        "warning",
        "run_completed",
    ]


async def test_events_are_seen_as_they_are_added(run: OwnedRun, read: Callable[..., Reader]) -> None:
    reader = read(path(run))
    reader.until(b'"seq":1,')
    for seq in range(2, 6):
        await run.add(1)
        await asyncio.to_thread(reader.until, b'"seq":%d,' % seq)
    assert seqs(reader.raw) == [1, 2, 3, 4, 5]


async def test_a_reader_begins_where_it_says(run: OwnedRun, store: Redis, read: Callable[..., Reader]) -> None:
    await run.add(3)
    ids = [frame.id for frame in await events.after(store, run.run_id, "0-0")]
    second, last = read(f"{path(run)}?from={ids[1]}"), read(f"{path(run)}?from=$")
    by_header = read(f"{path(run)}?from=0", Last_Event_ID=ids[2])
    by_empty_header = read(f"{path(run)}?from={ids[2]}", Last_Event_ID="")
    for reader in (second, last, by_header, by_empty_header):
        reader.until(RETRY)
    await run.add(1)
    await asyncio.to_thread(second.until, b'"seq":5')
    assert seqs(second.raw) == [3, 4, 5]
    assert seqs(await asyncio.to_thread(last.until, b'"seq":5')) == [5]
    assert seqs(await asyncio.to_thread(by_header.until, b'"seq":5')) == [4, 5]
    assert seqs(await asyncio.to_thread(by_empty_header.until, b'"seq":5')) == [4, 5]


async def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(
    run: OwnedRun, read: Callable[..., Reader]
) -> None:
    seen: list[int] = []
    cursor = "0"
    for _ in range(5):
        reader = read(path(run), **({"Last_Event_ID": cursor} if cursor != "0" else {}))
        await run.add(20)
        raw = await asyncio.to_thread(reader.until, b'"seq":%d' % (run.last_seq - 5))
        reader.close()
        whole = raw[: raw.rindex(b"\n\n") + 2]
        seen += seqs(whole)
        cursor = [line for line in whole.decode().split("\n") if line.startswith("id: ")][-1].removeprefix("id: ")
    assert seen == list(range(1, seen[-1] + 1))
    assert seen[-1] >= run.last_seq - 5


async def test_a_run_that_has_ended_is_done_at_once(store: Redis, client: httpx2.Client) -> None:
    run = await OwnedRun.create(store)
    await run.complete()
    newest = await events.last(store, run.run_id)
    assert newest is not None
    for query in ("?from=$", f"?from={newest.id}"):
        assert client.get(path(run) + query).content == RETRY + DONE


@pytest.mark.parametrize("wrong", ["x", "-", "1-2-3", "-1", "%00", "9" * 30, "", "$$"])
async def test_what_is_no_event_id_is_400(run: OwnedRun, client: httpx2.Client, wrong: str) -> None:
    answer = client.get(f"{path(run)}?from={wrong}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["message"].isprintable()


async def test_a_parameter_is_checked_also_where_the_header_wins(run: OwnedRun, client: httpx2.Client) -> None:
    answer = client.get(f"{path(run)}?from=null", headers={"Last-Event-ID": "0"})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == "from"


async def test_a_cursor_older_than_what_is_kept_is_410_before_the_first_byte(
    run: OwnedRun, store: Redis, client: httpx2.Client
) -> None:
    await run.add(10)
    ids = [frame.id for frame in await events.after(store, run.run_id, "0-0")]
    await store.xtrim(keys.events(run.run_id), maxlen=3, approximate=False)
    answer = client.get(path(run), headers={"Last-Event-ID": ids[1]})
    assert answer.status_code == 410
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("stream_trimmed", {"earliestEventId": ids[-3]})


async def test_a_cursor_beyond_the_newest_event_is_410_too(run: OwnedRun, store: Redis, client: httpx2.Client) -> None:
    """Redis was set back to an older state: what comes now would not go on from what the reader has."""
    ids = [
        entry_id.decode()
        for entry_id, _ in cast("list[tuple[bytes, Any]]", await store.xrange(keys.events(run.run_id)))
    ]
    answer = client.get(path(run), params={"from": "9999999999999-0"})
    assert answer.status_code == 410
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("stream_trimmed", {"earliestEventId": ids[0]})


async def test_events_trimmed_under_a_reader_end_its_stream_with_an_error(
    run: OwnedRun, store: Redis, server: CodyServer, client: httpx2.Client, eventually: Eventually
) -> None:
    """The reader stalls with 40 MB before it, and what it has not read yet is trimmed."""
    await run.add(20_000, text_bytes=2_000)
    with Stalled(server, path(run), client) as reader:
        await eventually(reader.is_full, "nothing more is sent")
        await store.xtrim(keys.events(run.run_id), maxlen=5, approximate=False)
        raw = await asyncio.to_thread(reader.drain)
    found = seqs(raw)
    assert found == list(range(1, found[-1] + 1))
    assert found[-1] < run.last_seq - 5
    error = json.loads(raw.rsplit(b"event: error\ndata: ", 1)[1].split(b"\n\n")[0])["error"]
    assert error["code"] == "stream_trimmed"
    assert error["details"]["earliestEventId"].count("-") == 1
    assert raw.endswith(b"0\r\n\r\n")
    assert DONE not in raw


class Stalled:
    """A client that asks for a stream and then does not read."""

    def __init__(self, server: CodyServer, path: str, metrics: httpx2.Client) -> None:
        """`metrics`: another client, that asks how many events were sent. To nobody else anything is sent meanwhile."""
        self._metrics = metrics
        self._sent_to_others = self._sent_before = self._sent()
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\n{server.auth_line}"
        self._socket.sendall(f"{head}Connection: close\r\n\r\n".encode())

    def __enter__(self) -> Stalled:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def is_full(self) -> bool:
        """Something was sent, and since the last look nothing more."""
        before, self._sent_before = self._sent_before, self._sent()
        return self._sent_to_others < self._sent_before == before

    def _sent(self) -> float:
        lines = self._metrics.get("/metrics").text.splitlines()
        (line,) = [one for one in lines if one.startswith("cody_stream_events_sent_total ")]
        return float(line.split()[1])

    def drain(self) -> bytes:
        """Read to the end, without the chunks' lengths."""
        raw = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := self._socket.recv(1 << 20):
                raw += chunk
        return raw


async def test_subscribers_are_counted_while_they_are_there(
    run: OwnedRun, client: httpx2.Client, read: Callable[..., Reader], eventually: Eventually
) -> None:
    def subscribers() -> int:
        return int(client.get(f"/api/runs/{run.run_id}").json()["subscribers"])

    assert subscribers() == 0
    first, second = read(path(run)), read(path(run))
    await eventually(lambda: subscribers() == 2 == open_streams(client))
    first.close()
    await eventually(lambda: subscribers() == 1)
    second.close()
    await eventually(lambda: subscribers() == 0 == open_streams(client))


async def test_head_tells_the_headers_and_opens_nothing(run: OwnedRun, client: httpx2.Client) -> None:
    answer = client.head(path(run))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/event-stream"
    assert open_streams(client) == 0


async def test_a_reader_that_pipelined_another_request_is_noticed_when_it_goes(
    run: OwnedRun, server: CodyServer, client: httpx2.Client, eventually: Eventually
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        host = f"Host: localhost:{server.port}\r\n{server.auth_line}\r\n"
        connection.sendall(f"GET {path(run)} HTTP/1.1\r\n{host}GET /healthz HTTP/1.1\r\n{host}".encode())
        await eventually(lambda: open_streams(client) == 1)
    await run.add(1)  # its reading is paused: only a write shows that it is gone
    await run.add(1)
    await eventually(lambda: open_streams(client) == 0)


async def test_many_readers_each_get_everything(run: OwnedRun, server: CodyServer) -> None:
    async def read_all(client: httpx2.AsyncClient) -> list[int]:
        raw = b""
        async with client.stream("GET", path(run)) as answer:
            async for chunk in answer.aiter_raw():
                raw += chunk
                if b'"seq":2001,' in raw and raw.endswith(b"\n\n"):  # its frame has come whole
                    return seqs(raw)
        raise AssertionError("the stream ended early")

    limits = httpx2.Limits(max_connections=60)
    async with httpx2.AsyncClient(
        base_url=server.url, timeout=DEADLINE_S, limits=limits, headers=server.auth
    ) as client:
        reading = [asyncio.create_task(read_all(client)) for _ in range(50)]
        await run.add(2_000)
        for found in await asyncio.gather(*reading):
            assert found[:2001] == list(range(1, 2002))


async def test_keepalives_go_on_while_redis_is_stopped_and_then_nothing_is_missing(
    launched: Launch, read: Any, eventually: Eventually
) -> None:
    server = launched(CODY_SSE_KEEPALIVE_SEC="0.1")
    store = server.redis()
    try:
        run = await OwnedRun.create(store)
        await run.add(5)
        reader = Reader(server, path(run))
        await asyncio.to_thread(reader.until, b'"seq":6')
        (valkey,) = [
            child for child in psutil.Process(server.process.pid).children(recursive=True) if "valkey" in child.name()
        ]
        valkey.send_signal(signal.SIGSTOP)
        try:
            for _ in range(5):
                before = len(reader.raw)
                await asyncio.to_thread(reader.until, reader.raw + b":keepalive\n\n")
                assert reader.raw[before:].replace(b":keepalive\n\n", b"") == b""
        finally:
            valkey.send_signal(signal.SIGCONT)
        await run.add(5)
        await asyncio.to_thread(reader.until, b'"seq":11')
        assert seqs(reader.raw) == list(range(1, 12))
        await run.complete()
        assert (await asyncio.to_thread(reader.to_the_end)).endswith(DONE)
        reader.close()
    finally:
        await store.aclose()


async def test_an_unknown_run_has_no_stream(client: httpx2.Client) -> None:
    answer = client.get(f"/api/runs/{uuid.uuid4()}/stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
