"""How much one client may ask for, and how long it may take to ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from cody.settings import load_settings
from cody.tokens import TokenStore
from harness.service import RunService
from server.app import build_app, parts_of
from server.connection import MAX_HEAD_BYTES, ServerConfig
from server.grants import Grants
from server.http import HttpServer
from server.limits import LONG_ANSWERS, STREAMS, Counts, Limits, TooManyRequests
from server.listening import OPEN_FILES, allow_many_open_files, bound_socket, connections_at_most
from server.site import Site
from server.streams import OpenStreams
from tests.security.asking import START, long_file
from tests.security.conftest import make_workspace
from tests.server.cody_server import DEADLINE_S, CodyServer, OwnedRun

Eventually = Callable[..., Awaitable[None]]

HASTE_S = 5.0
"""Long enough that a busy machine has read what was sent at once; all requests below wait for it at the same time."""
KEEPALIVE_S = 3.0


def test_one_caller_is_slowed_down_and_others_are_not() -> None:
    now = 0.0
    limits = Limits(per_second=10, burst=3, clock=lambda: now)
    for _ in range(3):
        limits.admit("busy")
    with pytest.raises(TooManyRequests) as caught:
        limits.admit("busy")
    assert caught.value.headers == {"Retry-After": "1"}
    limits.admit("quiet")
    now = 0.1
    limits.admit("busy")
    with pytest.raises(TooManyRequests):
        limits.admit("busy")
    now = 1_000.0
    for _ in range(3):
        limits.admit("busy")
    with pytest.raises(TooManyRequests):
        limits.admit("busy")


def test_streams_are_counted_while_they_are_open() -> None:
    limits = Limits(streams=2)
    first, second = limits.open_stream("a"), limits.open_stream("a")
    with pytest.raises(TooManyRequests):
        limits.open_stream("a")
    limits.open_stream("b")
    first()
    limits.open_stream("a")
    second()


@asynccontextmanager
async def hasty_server(
    valkey_url: str,
    state_dir: Path,
    *,
    max_connections: int = 100,
    limits: Limits | None = None,
    answers: int = LONG_ANSWERS,
) -> AsyncIterator[tuple[int, str]]:
    """One that waits HASTE_S for a request, in this process: 30 s would make the tests as slow. Its port and token."""
    settings = load_settings(state_dir=state_dir, redis_url=valkey_url)
    async with RunService.open(settings) as service:
        bound = bound_socket("127.0.0.1", 0)
        site = Site("127.0.0.1", bound.getsockname()[1])
        streams = OpenStreams(service, keepalive_s=KEEPALIVE_S)
        parts = parts_of(service, site, streams, settings)
        grants = Grants(parts.tokens, parts.sessions, answers=answers)
        parts = replace(parts, limits=limits or Limits(), grants=grants)
        app = build_app(service, site, streams, settings, parts)
        config = ServerConfig(
            app, on_connections=lambda count: None, request_deadline_s=HASTE_S, max_connections=max_connections
        )
        config.timeout_keep_alive = DEADLINE_S  # a connection that waits between two requests stays open
        server = HttpServer(config)
        task = asyncio.create_task(server.serve(sockets=[bound]))
        await server.ready.wait()
        token = TokenStore(state_dir).local_value()
        assert token is not None
        try:
            yield site.port, token
        finally:
            server.leave()
            await server.cut_connections(after_s=0)
            await task


def connected(port: int, headers: dict[str, str]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=DEADLINE_S)


async def test_too_many_requests_are_429_and_say_when_to_come_back(
    valkey_url: str, redis: Redis, tmp_path: Path
) -> None:
    few = Limits(per_second=0.01, burst=3, streams=2)
    async with hasty_server(valkey_url, tmp_path / "s", limits=few) as (port, _):
        tokens = TokenStore(tmp_path / "s")

        async def asks(name: str) -> list[httpx2.Response]:
            bearer = {"Authorization": f"Bearer {tokens.create(name, 'read')}"}
            async with connected(port, bearer) as http:
                return [await http.get("/api/runs") for _ in range(4)]

        *answered, refused = await asks("busy")
        assert [one.status_code for one in answered] == [200] * 3
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
        assert 70 <= int(refused.headers["retry-after"]) <= 100
        assert [one.status_code for one in await asks("another")] == [200] * 3 + [429]


async def test_a_stream_too_many_is_429_and_one_that_ended_counts_no_more(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    run = await OwnedRun.create(redis)
    path = f"/api/runs/{run.run_id}/stream"
    async with (
        hasty_server(valkey_url, tmp_path / "s", limits=Limits(streams=1)) as (port, token),
        connected(port, {"Authorization": f"Bearer {token}"}) as http,
    ):

        async def status() -> int:
            async with http.stream("GET", path) as answer:
                return answer.status_code

        async with http.stream("GET", path) as first:
            assert first.status_code == 200
            assert await status() == 429
            assert (await http.get("/api/runs")).status_code == 200

        async def has_room() -> bool:
            return await status() == 200

        await eventually(has_room)


def test_what_each_caller_has_open_is_counted() -> None:
    counts = Counts(2, "files")
    first, second = counts.open("a"), counts.open("a")
    with pytest.raises(TooManyRequests, match="a has 2 files open") as caught:
        counts.open("a")
    assert caught.value.headers == {"Retry-After": "10"}
    counts.open("b")
    first()
    second()
    counts.open("a")


@pytest.mark.parametrize("what", ["output", "prompt", "export"])
async def test_a_file_too_many_is_429_and_one_that_was_sent_counts_no_more(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually, what: str
) -> None:
    state_dir = tmp_path / "s"
    async with hasty_server(valkey_url, state_dir, answers=1) as (port, token):
        other = {"Authorization": f"Bearer {TokenStore(state_dir).create('other', 'read')}"}
        async with connected(port, {"Authorization": f"Bearer {token}"}) as http:
            path = await long_file(http, redis, state_dir, make_workspace(tmp_path / "repo"), eventually, what)
            async with http.stream("GET", path) as first:
                assert first.status_code == 200
                refused = await http.get(path)
                assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
                assert refused.headers["retry-after"] == "10"
                assert (await http.get("/api/runs")).status_code == 200
                async with http.stream("GET", path, headers=other) as theirs:
                    assert theirs.status_code == 200

            async def has_room() -> bool:
                async with http.stream("GET", path) as answer:
                    return answer.status_code == 200

            await eventually(has_room)


async def trickled(port: int, begin: bytes, drop: bytes) -> bytes:
    """Send the beginning of a request, then more of it again and again; all that came until the connection was closed."""
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setblocking(False)
        answer = asyncio.create_task(_all_that_comes(connection))
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(connection, begin)
            async with asyncio.timeout(DEADLINE_S):
                while not answer.done():
                    await loop.sock_sendall(connection, drop)
                    await asyncio.wait({answer}, timeout=0.02)
        return await answer


async def _all_that_comes(connection: socket.socket) -> bytes:
    """Up to the close, or the reset: what is sent to a closed connection is answered by one, behind the answer."""
    came = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await asyncio.get_running_loop().sock_recv(connection, 65_536):
            came += chunk
    return came


async def test_a_request_that_trickles_is_cut_off(valkey_url: str, redis: Redis, tmp_path: Path) -> None:
    async with hasty_server(valkey_url, tmp_path / "s") as (port, token):
        host = f"Host: 127.0.0.1:{port}\r\n"
        auth = f"{host}Authorization: Bearer {token}\r\n"
        body = "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        chunked = f"POST {START} HTTP/1.1\r\n{auth}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        slow_body, slow_head, slow_chunks, refused, silent = await asyncio.gather(
            trickled(port, f"POST {START} HTTP/1.1\r\n{auth}{body}".encode(), b" "),
            trickled(port, f"GET /healthz HTTP/1.1\r\n{host}".encode(), b"X: y\r\n"),
            trickled(port, chunked.encode(), b"1\r\n \r\n"),
            # Who was refused at once, and goes on sending the body, is not listened to any longer either.
            trickled(port, f"POST {START} HTTP/1.1\r\n{host}{body}".encode(), b" "),
            trickled(port, b"", b""),
        )
        assert slow_body.startswith(b"HTTP/1.1 408 ")
        assert json.loads(slow_body.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
        assert slow_head.startswith(b"HTTP/1.1 408 ")
        assert slow_chunks.startswith(b"HTTP/1.1 408 ")
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert silent == b""


async def test_a_stream_and_a_long_answer_outlast_the_deadline(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    """Only the asking is bounded."""
    run = await OwnedRun.create(redis)
    assert 2 * KEEPALIVE_S > HASTE_S
    async with (
        hasty_server(valkey_url, tmp_path / "s") as (port, token),
        connected(port, {"Authorization": f"Bearer {token}"}) as http,
        http.stream("GET", f"/api/runs/{run.run_id}/stream") as answer,
    ):
        seen = b""
        async for part in answer.aiter_raw():
            seen += part
            if seen.count(b":keepalive") >= 2 and run.last_seq == 1:
                await run.add(1)
                await run.complete()
        assert seen.endswith(b"data: [DONE]\n\n")


async def closed(writer: asyncio.StreamWriter) -> None:
    """Also one that was reset, as is who has sent something when it is turned away."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_strangers_do_not_take_the_open_files_that_runs_need(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    async with (
        hasty_server(valkey_url, tmp_path / "s", max_connections=3) as (port, _),
        contextlib.AsyncExitStack() as held,
    ):
        request = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()

        async def answer() -> bytes:
            """Of a connection that stays open; empty when it was closed at once."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            held.push_async_callback(closed, writer)
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                return await reader.read(100)
            return b""

        for _ in range(3):
            assert (await answer()).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):
            assert await answer() == b""

        async def there_is_room() -> bool:
            return (await answer()).startswith(b"HTTP/1.1 200 ")

        await held.aclose()
        await eventually(there_is_room)


def test_some_open_files_are_always_kept_back() -> None:
    assert connections_at_most(OPEN_FILES) > 2 * STREAMS
    for limit in (64, 1_024, OPEN_FILES):
        assert limit // 4 <= connections_at_most(limit) < limit
    assert allow_many_open_files() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize("count", [1, 1_000])
def test_huge_headers_are_refused(server: CodyServer, count: int) -> None:
    line = b"X-Filler: " + b"x" * (8 * MAX_HEAD_BYTES // count) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        answer = b""
        try:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n" + line * count)
            answer = connection.recv(65_536)
        except ConnectionError:  # it closed while we sent
            return
    assert answer.startswith(b"HTTP/1.1 431 ")
