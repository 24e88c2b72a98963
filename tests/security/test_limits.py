"""How much one client may ask for, and how long it may take to ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from cody.settings import load_settings
from cody.tokens import TokenStore
from harness.service import RunService
from server.app import build_app
from server.connection import MAX_HEAD_BYTES, ServerConfig
from server.guards import Site
from server.http import HttpServer
from server.limits import Limits, TooManyRequests
from server.listening import bound_socket
from server.streams import OpenStreams
from tests.security.asking import START
from tests.server.cody_server import DEADLINE_S, CodyServer, OwnedRun

Eventually = Callable[..., Awaitable[None]]

HASTE_S = 0.3


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


def test_too_many_requests_are_429_and_say_when_to_come_back(server: CodyServer, client: httpx2.Client) -> None:
    token = client.post("/api/tokens", json={"name": "flood", "scope": "read"}).json()["token"]
    request = (
        f"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    answers = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        while b"HTTP/1.1 429 " not in answers:
            connection.sendall(request * 100)
            answers += connection.recv(1 << 20)
            assert answers.count(b"HTTP/1.1 404 ") < 100_000, "it never became too many"
    assert b"retry-after: " in answers
    assert client.get("/api/runs").status_code == 200, "another caller is not slowed down"


@asynccontextmanager
async def hasty_server(valkey_url: str, state_dir: Path) -> AsyncIterator[tuple[int, str]]:
    """One that waits HASTE_S for a request, in this process: 30 s would make the tests as slow. Its port and token."""
    settings = load_settings(state_dir=state_dir, redis_url=valkey_url)
    async with RunService.open(settings) as service:
        bound = bound_socket("127.0.0.1", 0)
        site = Site("127.0.0.1", bound.getsockname()[1])
        app = build_app(service, site, OpenStreams(service, keepalive_s=1), settings)
        config = ServerConfig(app, on_connections=lambda count: None, request_deadline_s=HASTE_S)
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
        slow_body = await trickled(port, f"POST {START} HTTP/1.1\r\n{auth}{body}".encode(), b" ")
        assert slow_body.startswith(b"HTTP/1.1 408 ")
        assert json.loads(slow_body.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
        slow_head = await trickled(port, f"GET /healthz HTTP/1.1\r\n{host}".encode(), b"X: y\r\n")
        assert slow_head.startswith(b"HTTP/1.1 408 ")
        # Who was refused at once, and goes on sending the body, is not listened to any longer either.
        refused = await trickled(port, f"POST {START} HTTP/1.1\r\n{host}{body}".encode(), b" ")
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert await trickled(port, b"", b"") == b""
        chunked = f"POST {START} HTTP/1.1\r\n{auth}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await trickled(port, chunked.encode(), b"1\r\n \r\n")).startswith(b"HTTP/1.1 408 ")


async def test_a_stream_and_a_long_answer_outlast_the_deadline(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    """Only the asking is bounded."""
    run = await OwnedRun.create(redis)
    async with hasty_server(valkey_url, tmp_path / "s") as (port, token):
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as http:
            async with http.stream("GET", f"/api/runs/{run.run_id}/stream") as answer:
                seen = b""
                async for part in answer.aiter_raw():
                    seen += part
                    if seen.count(b":keepalive") == 2 and run.last_seq == 1:
                        await run.add(1)
                        await run.complete()
            assert seen.endswith(b"data: [DONE]\n\n")


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
