"""A client that does not read costs a bounded amount of memory, for a bounded time, and nobody else notices.

The server runs in this process, because the real deadline of 30 s would make the test as slow as its subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx2
from redis.asyncio import Redis

from cody.settings import load_settings
from cody.tokens import TokenStore
from harness.service import RunService
from harness.tail_pages import PART_BYTES
from server.app import build_app
from server.connection import HttpConnection, ServerConfig
from server.http import HttpServer
from server.listening import bound_socket
from server.site import Site
from server.streams import OpenStreams
from tests.server.cody_server import DEADLINE_S, OwnedRun

Eventually = Callable[..., Awaitable[None]]

EVENTS = 20_000
EVENT_BYTES = 1_000
TRANSPORT_BYTES = 64 << 10
"""When a transport says that it is full."""


@dataclass(frozen=True)
class Running:
    site: Site
    streams: OpenStreams
    token: str
    server: HttpServer

    def connections(self) -> list[HttpConnection]:
        return [cast("HttpConnection", one) for one in self.server.server_state.connections]

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def serving(
    valkey_url: str, state_dir: Path, *, send_deadline_s: float, keepalive_s: float = 0.2
) -> AsyncIterator[Running]:
    settings = load_settings(state_dir=state_dir, redis_url=valkey_url, idle_exit_s=None)
    async with RunService.open(settings) as service:
        bound = bound_socket("127.0.0.1", 0)
        site = Site("127.0.0.1", bound.getsockname()[1])
        streams = OpenStreams(service, keepalive_s=keepalive_s, send_deadline_s=send_deadline_s)
        app = build_app(service, site, streams, settings)
        server = HttpServer(ServerConfig(app, on_connections=lambda count: None))
        task = asyncio.create_task(server.serve(sockets=[bound]))
        await server.ready.wait()
        try:
            token = TokenStore(state_dir).local_value()
            assert token is not None
            yield Running(site, streams, token, server)
        finally:
            server.leave()
            await streams.end_all(grace_s=0)
            await server.cut_connections(after_s=0)
            await task


def stalled_client(running: Running, run: OwnedRun, begin: str = "0") -> socket.socket:
    """Asks for the stream, and reads nothing of it."""
    connection = socket.create_connection(("127.0.0.1", running.site.port), timeout=DEADLINE_S)
    head = f"GET /api/runs/{run.run_id}/stream?from={begin} HTTP/1.1\r\nHost: localhost:{running.site.port}\r\n"
    connection.sendall(f"{head}Authorization: Bearer {running.token}\r\n\r\n".encode())
    return connection


async def test_who_does_not_read_is_cut_off_and_others_get_everything(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(EVENTS, text_bytes=EVENT_BYTES)
    async with serving(valkey_url, tmp_path, send_deadline_s=0.5) as running:
        with stalled_client(running, run):
            await eventually(lambda: running.streams.cut_off == 1)
            await eventually(lambda: running.streams.count == 0)
            # What the kernel took, and no more: the rest was never read from Redis for this client.
            assert running.streams.events_sent < EVENTS
            before = running.streams.events_sent
            running.streams.send_deadline_s = DEADLINE_S  # for one who reads, however slow this machine is
            await run.complete()
            async with httpx2.AsyncClient(
                base_url=running.site.url, timeout=DEADLINE_S, headers=running.auth
            ) as client:
                answer = await client.get(f"/api/runs/{run.run_id}/stream")
            assert answer.content.endswith(b"data: [DONE]\n\n")
            assert answer.content.count(b'"type":"warning"') == EVENTS
            assert running.streams.events_sent - before == EVENTS + 2


async def test_a_process_that_stood_still_counts_who_was_cut_off_once(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    """Then the deadline of the stream and the keepalive behind it come in the same moment, and both find it overdue."""
    run = await OwnedRun.create(redis)
    await run.add(EVENTS, text_bytes=EVENT_BYTES)
    async with serving(valkey_url, tmp_path, send_deadline_s=2, keepalive_s=3) as running:
        with stalled_client(running, run):
            seen = -1

            def is_full() -> bool:
                nonlocal seen
                before, seen = seen, running.streams.events_sent
                return 0 < seen == before and all(one.is_stuck for one in running.connections())

            await eventually(is_full)
            time.sleep(4)
            await eventually(lambda: running.streams.count == 0)
            assert running.streams.cut_off == 1


async def test_a_reader_that_was_cut_off_can_go_on_where_it_was(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(EVENTS, text_bytes=EVENT_BYTES)
    async with serving(valkey_url, tmp_path, send_deadline_s=0.5) as running:
        with stalled_client(running, run) as connection:
            await eventually(lambda: running.streams.cut_off == 1)
            raw = await asyncio.to_thread(_what_came, connection)
        whole = raw[: raw.rindex(b"\n\n")]
        cursor = whole[whole.rindex(b"id: ") :].split(b"\n")[0].removeprefix(b"id: ").decode()
        running.streams.send_deadline_s = DEADLINE_S
        await run.complete()
        async with httpx2.AsyncClient(base_url=running.site.url, timeout=DEADLINE_S, headers=running.auth) as client:
            answer = await client.get(f"/api/runs/{run.run_id}/stream", headers={"Last-Event-ID": cursor})
    assert whole.count(b'"seq":') + answer.content.count(b'"seq":') == EVENTS + 2


def _what_came(connection: socket.socket) -> bytes:
    """Up to the reset; without the lines that carry the chunks' lengths."""
    raw = b""
    try:
        while chunk := connection.recv(1 << 20):
            raw += chunk
    except ConnectionResetError:
        pass
    return raw


async def test_one_that_reads_in_the_end_is_not_cut_off(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    run = await OwnedRun.create(redis)
    await run.add(EVENTS, text_bytes=EVENT_BYTES)
    await run.complete()
    async with serving(valkey_url, tmp_path, send_deadline_s=DEADLINE_S) as running:
        with stalled_client(running, run) as connection:
            seen = -1

            def is_full() -> bool:
                nonlocal seen
                before, seen = seen, running.streams.events_sent
                return 0 < seen == before

            await eventually(is_full)
            assert running.streams.events_sent < EVENTS
            raw = await asyncio.to_thread(_until_done, connection)
        assert raw.count(b'"type":"warning"') == EVENTS
        assert running.streams.cut_off == 0


def _until_done(connection: socket.socket) -> bytes:
    raw = b""
    while b"[DONE]" not in raw[-100:]:
        raw += connection.recv(1 << 20)
    return raw


async def test_what_waits_for_clients_that_do_not_read_is_bounded(
    valkey_url: str, redis: Redis, tmp_path: Path, eventually: Eventually
) -> None:
    """Those that catch up as well as those that were at the run's end when it went on."""
    run = await OwnedRun.create(redis)
    await run.add(EVENTS // 2, text_bytes=EVENT_BYTES)
    async with serving(valkey_url, tmp_path, send_deadline_s=DEADLINE_S) as running:
        with contextlib.ExitStack() as stack:
            for number in range(20):
                stack.enter_context(stalled_client(running, run, "$" if number % 2 else "0"))
            await eventually(lambda: running.streams.count == 20)
            await run.add(EVENTS // 2, text_bytes=EVENT_BYTES)

            def all_wait() -> bool:
                return all(one.is_stuck for one in running.connections())

            await eventually(all_wait)
            for one in running.connections():
                waiting = one.transport.get_write_buffer_size()
                assert 0 < waiting <= TRANSPORT_BYTES + PART_BYTES + 2 * EVENT_BYTES, waiting
        await run.complete()
