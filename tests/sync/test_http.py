"""The HTTP adapter against the real server: every promise of the kit over the wire, and a network that breaks."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from cody.sync import conformance
from cody.sync.adapters.http import AccessDenied, HttpAdapter
from cody.sync.adapters.memory import MemoryAdapter
from cody.sync.adapters.sql import SqlAdapter
from cody.sync.conformance.kit import Record
from cody.sync.contracts import JobSnapshot
from cody.sync.errors import SyncError
from cody.sync.wire import MAX_CHUNK_BYTES
from cody.sync.worker import Bench
from cody.tokens import TokenStore
from server.sync import SyncEndpoints
from tests.conftest import Wait
from tests.pipeline.postgres_server import PostgresServer
from tests.ports import reserved_port
from tests.proxy import Proxy
from tests.sync.serving import Serving, served, served_table

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


class Overheard(HttpAdapter):
    """The adapter, with the bench of the server behind it: faults are injected there, and show here."""

    def __init__(self, serving: Serving, bench: Bench) -> None:
        super().__init__(serving.url, token=serving.token)
        self.bench = bench


async def sent(adapter: HttpAdapter, record: Record, conversation_id: str) -> JobSnapshot:
    source = await adapter.start(conversation_id)
    for chunk in record.chunks:
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    return await adapter.seal(source.source_id, record.manifest, record.checksum)


async def payload_of(adapter: HttpAdapter, conversation_id: str) -> bytes:
    return b"".join([piece async for piece in adapter.read(conversation_id)])


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    async with SqlAdapter(f"sqlite:///{tmp_path}/sync.sqlite3") as engine, served(engine, tmp_path) as one:
        yield one


@pytest.fixture
def port() -> Iterator[int]:
    """For servers that come and go at one address."""
    with reserved_port() as one:
        yield one


@pytest.fixture
async def adapter(serving: Serving) -> AsyncIterator[HttpAdapter]:
    async with HttpAdapter(serving.url, token=serving.token) as one:
        yield one


@pytest.mark.timeout(300)
async def test_it_keeps_every_promise_over_the_wire(tmp_path: Path) -> None:
    """One server, and behind it a new engine for each scenario; the one over SQL is proved elsewhere."""
    engines: list[MemoryAdapter] = []

    async def newest() -> MemoryAdapter:
        return engines[-1]

    async with served_table(SyncEndpoints(newest).table(), tmp_path) as one:

        @asynccontextmanager
        async def made() -> AsyncIterator[Overheard]:
            async with MemoryAdapter() as engine, Overheard(one, engine.bench) as adapter:
                engines.append(engine)
                yield adapter

        report = await conformance.run_async(made, call_timeout_s=30, deadline_s=280)
    assert report.passed, report
    assert not report.not_exercised


async def test_answers_that_are_lost_add_nothing_twice(serving: Serving) -> None:
    record = Record("lost", chunks=8)
    async with Proxy(serving.url) as proxy:
        url = f"http://127.0.0.1:{urlsplit(proxy.url).port}"
        # The server takes requests in its own name only: the proxy's port is not part of it.
        async with through(url, serving) as adapter:
            for step in range(3):
                proxy.drop_replies = 1
                job = await sent(adapter, record, "lost")
                assert proxy.dropped == step + 1
                end = await adapter.wait_for_terminal(job.job_id, DEADLINE_S)
                assert (end.state, end.processed_message_count) == ("succeeded", record.manifest.message_count)
                assert await payload_of(adapter, "lost") == record.payload


async def test_a_network_that_is_cut_in_the_midst_is_waited_for(serving: Serving) -> None:
    record = Record("cut", chunks=30)
    lost: list[str | None] = []
    async with Proxy(serving.url) as proxy:
        url = f"http://127.0.0.1:{urlsplit(proxy.url).port}"

        def on_lost(reason: str | None) -> None:
            lost.append(reason)
            proxy.refuse = False

        async with through(url, serving, on_lost=on_lost) as adapter:
            source = await adapter.start("cut")
            for chunk in record.chunks:
                if chunk.index in (5, 17):
                    proxy.cut()
                if chunk.index == 11:
                    proxy.refuse = True
                    proxy.cut()
                assert await adapter.append(
                    source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size
                )
            job = await adapter.seal(source.source_id, record.manifest, record.checksum)
            assert (await adapter.wait_for_terminal(job.job_id, DEADLINE_S)).state == "succeeded"
            assert await payload_of(adapter, "cut") == record.payload
    assert any(lost)
    assert lost[-1] is None


def through(url: str, serving: Serving, **options: object) -> HttpAdapter:
    """An adapter that goes by another address and names the server's own, as one behind a tunnel does."""
    made = HttpAdapter(url, token=serving.token, **options)  # type: ignore[arg-type]  # handed on as they are
    made._http.headers["Host"] = urlsplit(serving.url).netloc
    return made


async def test_a_server_that_stays_away_is_told_as_the_backend(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    async with HttpAdapter(url, token="cody_" + "x" * 40, give_up_after_s=0.3) as adapter:
        with pytest.raises(SyncError) as told:
            await adapter.start("nobody")
    assert told.value.code == "backend_unavailable"
    assert told.value.retryable
    assert url in told.value.message


async def test_a_server_that_is_killed_and_comes_back_has_all_that_it_acknowledged(tmp_path: Path, port: int) -> None:
    record = Record("killed", chunks=20)
    database = f"sqlite:///{tmp_path}/sync.sqlite3"
    first, url = await server_process(database, tmp_path, port)
    second = None
    try:
        token = TokenStore(tmp_path).local_value()
        async with HttpAdapter(url, token=token) as adapter:
            source = await adapter.start("killed")
            for chunk in record.chunks:
                if chunk.index == 10:
                    first.kill()
                    await first.wait()
                    second, _ = await server_process(database, tmp_path, port)
                await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
            job = await adapter.seal(source.source_id, record.manifest, record.checksum)
            assert (await adapter.wait_for_terminal(job.job_id, DEADLINE_S)).state == "succeeded"
            assert await payload_of(adapter, "killed") == record.payload
    finally:
        for process in filter(None, (first, second)):
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def server_process(database: str, state_dir: Path, port: int) -> tuple[asyncio.subprocess.Process, str]:
    """A server in a process of its own, ready, and its URL."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.sync.serving", database, str(state_dir), str(port)],
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    while line := (await asyncio.wait_for(process.stdout.readline(), DEADLINE_S)).decode().strip():
        if line.startswith("http://"):
            return process, line
    raise AssertionError("the server did not start")


async def test_a_database_that_is_away_is_waited_for(
    own_postgres: PostgresServer, tmp_path: Path, eventually: Wait
) -> None:
    lost: list[str | None] = []
    async with (
        SqlAdapter(own_postgres.url) as engine,
        served(engine, tmp_path) as serving,
        HttpAdapter(serving.url, token=serving.token, on_lost=lost.append) as adapter,
    ):
        source = await adapter.start("away")
        await own_postgres.stop()
        appending = asyncio.create_task(adapter.append(source.source_id, 0, b"x", 1, 1))
        await eventually(lambda: lost, "the client notices")
        await own_postgres.start()
        assert await asyncio.wait_for(appending, DEADLINE_S)


async def test_who_may_only_read_sends_nothing(serving: Serving, adapter: HttpAdapter) -> None:
    record = Record("scopes")
    job = await sent(adapter, record, "scopes")
    await adapter.wait_for_terminal(job.job_id, DEADLINE_S)
    async with HttpAdapter(serving.url, token=serving.token_of("read")) as reader:
        assert (await reader.get(job.job_id)).state == "succeeded"
        assert await payload_of(reader, "scopes") == record.payload
        for call in (
            reader.start("scopes"),
            reader.append("some-source", 0, b"x", 1, 1),
            reader.seal("some-source", record.manifest, record.checksum),
            reader.cancel(job.job_id),
        ):
            with pytest.raises(AccessDenied, match="scope control") as told:
                await call
            assert not told.value.retryable
    async with HttpAdapter(serving.url, token="cody_" + "x" * 40) as stranger:
        with pytest.raises(AccessDenied):
            await stranger.list("scopes")
    assert [one.job_id for one in await adapter.list("scopes")] == [job.job_id]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"\x00\x01", {"content-type": "application/octet-stream"}, 415),
        (b"{}", {"content-type": "application/json", "content-encoding": "gzip"}, 415),
        (b"not json", {"content-type": "application/json"}, 400),
        (b"{}", {"content-type": "application/json"}, 400),
        (json.dumps({"index": 0, "payload": "*", "messageCount": 0, "byteSize": 0}).encode(), {}, 400),
        (json.dumps({"index": 0, "payload": "\u00e9", "messageCount": 0, "byteSize": 0}).encode(), {}, 400),
        (json.dumps({"index": 2**70, "payload": "", "messageCount": 0, "byteSize": 0}).encode(), {}, 400),
        (json.dumps({"index": 0, "payload": "", "messageCount": 0, "byteSize": 0, "more": 1}).encode(), {}, 400),
        (b'{"payload": "' + b"A" * (1 << 20) + b'"}', {}, 413),
    ],
)
async def test_bodies_that_are_none_are_refused(
    serving: Serving, body: bytes, headers: dict[str, str], status: int
) -> None:
    all_headers = {"content-type": "application/json", "Authorization": f"Bearer {serving.token}", **headers}
    async with httpx2.AsyncClient(base_url=serving.url) as http:
        answer = await http.post("/api/sync/sources/nobody/chunks", content=body, headers=all_headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) >= {"code", "message"}


async def test_the_largest_chunk_fits_and_what_is_larger_says_so(adapter: HttpAdapter) -> None:
    source = await adapter.start("large")
    payload = bytes(range(256)) * (MAX_CHUNK_BYTES // 256)
    assert await adapter.append(source.source_id, 0, payload, 1, len(payload))
    with pytest.raises(SyncError) as told:
        await adapter.append(source.source_id, 1, payload * 2, 1, 2 * len(payload))
    assert told.value.code == "source_invalid"


async def test_a_manifest_that_is_none_fails_the_source(adapter: HttpAdapter) -> None:
    source = await adapter.start("manifest")
    await adapter.append(source.source_id, 0, b"x", 1, 1)
    nonsense = {"totalChunks": "one", "messageCount": None}
    for manifest in (nonsense, Record("m", chunks=1).manifest):
        with pytest.raises(SyncError) as told:
            await adapter.seal(source.source_id, manifest, "0" * 64)
        assert told.value.code == "manifest_invalid"


async def test_on_the_wire_names_are_in_camel_case(serving: Serving, adapter: HttpAdapter) -> None:
    job = await sent(adapter, Record("camel"), "camel")
    await adapter.wait_for_terminal(job.job_id, DEADLINE_S)
    headers = {"Authorization": f"Bearer {serving.token}"}
    async with httpx2.AsyncClient(base_url=serving.url, headers=headers) as http:
        answer = (await http.get(f"/api/sync/jobs/{job.job_id}")).json()
        missing = await http.get("/api/sync/jobs/none")
        nobody = await http.get("/api/sync/jobs")
    assert answer["jobId"] == job.job_id
    assert {"processedChunkIndex", "lastCursor", "sourceState", "lastError", "completedAt"} <= set(answer)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "job_not_found")
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (400, "invalid_request")


async def test_what_answers_and_is_no_cody_is_told(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, HttpAdapter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as adapter:
        with pytest.raises(SyncError, match="not the sync API"):
            await adapter.get("job")


GARBLED = b"HTTP/1.1 %s\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@asynccontextmanager
async def answering(content: bytes | None) -> AsyncIterator[str]:
    """The URL of a server that answers every request with this; None: never, though it takes them."""

    handlers: list[asyncio.Task[object] | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if content is None:
                await reader.read()
            else:
                writer.write(content)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*(one for one in handlers if one is not None))


async def test_an_answer_that_can_not_be_decoded_is_told_as_the_backend() -> None:
    async with (
        answering(GARBLED % b"200 OK") as url,
        answering(GARBLED % b"404 Not Found") as missing,
        HttpAdapter(url, give_up_after_s=0.1) as adapter,
        HttpAdapter(missing, give_up_after_s=0.1) as other,
    ):
        for call in (adapter.get("job"), adapter.start("c"), payload_of(other, "c")):
            with pytest.raises(SyncError) as told:
                await call
            assert told.value.code == "backend_unavailable"
            assert "no Cody server answers" in told.value.message


async def test_a_server_that_is_away_until_the_deadline_is_a_timeout(tmp_path: Path, port: int) -> None:
    lost: list[str | None] = []
    database = f"sqlite:///{tmp_path}/sync.sqlite3"
    async with SqlAdapter(database, workers=0) as engine:
        async with served(engine, tmp_path, port) as serving:
            adapter = HttpAdapter(serving.url, token=serving.token, on_lost=lost.append)
            job = await sent(adapter, Record("deadline"), "deadline")
            for timeout in (-1, 0, 0.1):
                with pytest.raises(SyncError, match="is still queued") as told:
                    await adapter.wait_for_terminal(job.job_id, timeout)
                assert told.value.code == "timeout"
        # It is asked for two minutes else; the test's own time limit is shorter than that.
        with pytest.raises(SyncError) as told:
            await adapter.wait_for_terminal(job.job_id, 0.5)
        assert told.value.code == "timeout"
        assert serving.url in told.value.message
        assert lost
        assert None not in lost
        async with served(engine, tmp_path, port):
            assert (await adapter.get(job.job_id)).state == "queued"
        assert lost[-1] is None, "that it answers again is not told, as another call had lost it"
    impatient = HttpAdapter(serving.url, give_up_after_s=0.1)
    with pytest.raises(SyncError) as told:
        await impatient.wait_for_terminal(job.job_id, DEADLINE_S)
    assert told.value.code == "backend_unavailable"
    await impatient.aclose()
    await adapter.aclose()


async def test_a_server_that_takes_the_request_and_never_answers_is_a_timeout() -> None:
    async with answering(None) as url, HttpAdapter(url) as adapter:
        with pytest.raises(SyncError) as told:
            await adapter.wait_for_terminal("job", 0.1)
    assert told.value.code == "timeout"
    assert url in told.value.message


@pytest.mark.parametrize("given", ["", ".", "..", "\ud800", "a\nb", "x" * 600, "no/such", "%2e"])
async def test_what_can_be_no_id_is_not_found(adapter: HttpAdapter, given: str) -> None:
    manifest = Record("m").manifest
    missing = {
        "job_not_found": (adapter.get(given), adapter.cancel(given), adapter.wait_for_terminal(given, 0)),
        "source_not_found": (
            adapter.append(given, 0, b"x", 1, 1),
            adapter.seal(given, manifest, "0" * 64),
            payload_of(adapter, given),
        ),
    }
    for code, calls in missing.items():
        for call in calls:
            with pytest.raises(SyncError) as told:
                await call
            assert told.value.code == code
    assert await adapter.list(given) == []
