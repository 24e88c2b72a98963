"""Clients of the store: nothing is sent twice, no reply is mistaken, no cancellation lost; and what `check` tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from cody.errors import ConfigurationError, StoreUnavailable
from cody.store.connection import address, blocking_client, check, connect, open_store_server
from cody.store.embedded import EmbeddedServer, find_server_binary
from cody.store.server_facts import facts_from, require_supported

BINARY = find_server_binary(None)
DEADLINE_S = 60.0
STALL_S = 8.0
"""A deadline that is to be missed: a machine that is only slow does not."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(BINARY, tmp_path / "state", stop_deadline_s=DEADLINE_S)
    await server.start()
    yield server
    await server.stop()


@contextlib.asynccontextmanager
async def closing(client: Redis) -> AsyncIterator[Redis]:
    try:
        yield client
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def plain_server(*options: str) -> AsyncIterator[str]:
    """The URL of a server that someone else has configured, by the same program."""
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        path = f"{folder}/s"
        command = [str(BINARY.path), "--port", "0", "--unixsocket", path, "--dir", folder, *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                await until(lambda: accepts(path))
                yield f"unix://{path}"
            finally:
                process.kill()


async def accepts(path: str) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


async def until(predicate: Callable[[], Awaitable[bool]], deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not await predicate():
            await asyncio.sleep(0.01)


class TcpProxy:
    """A TCP door to a unix socket that can lose the reply of a command, or hang up."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._connections: set[asyncio.StreamWriter] = set()
        self.lose_reply_of: bytes | None = None
        self.url = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[TcpProxy]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
        try:
            yield self
        finally:
            listener.close()
            self.hang_up()
            await until(self._is_idle)

    def hang_up(self) -> None:
        for writer in self._connections:
            writer.close()

    async def is_hung_up(self) -> bool:
        """Whether that has come to who was connected, all of it in this process."""
        port = urlsplit(self.url).port
        return any(
            one.status == psutil.CONN_CLOSE_WAIT and one.raddr[1:] == (port,)
            for one in psutil.Process().net_connections("tcp")
        )

    async def _is_idle(self) -> bool:
        return not self._connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(self._upstream)
        try:
            while command := await reader.read(65536):
                upstream_writer.write(command)
                reply = await upstream_reader.read(65536)
                if self.lose_reply_of is not None and self.lose_reply_of in command:
                    break
                writer.write(reply)
        finally:
            self._connections.discard(writer)
            writer.close()
            upstream_writer.close()


@pytest.fixture
async def proxy(server: EmbeddedServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(server.socket_path).open() as proxy:
        yield proxy


async def blocked_clients(observer: Redis) -> int:
    return int((await observer.info("clients"))["blocked_clients"])


async def test_bytes_go_in_and_out(server: EmbeddedServer) -> None:
    async with closing(connect(server.url)) as client:
        await client.set("key", b"\x00\xff")
        assert await client.get("key") == b"\x00\xff"


async def test_a_value_of_another_kind_is_refused_and_nothing_is_sent(server: EmbeddedServer) -> None:
    async with closing(connect(server.url)) as client:
        for value in (None, {"a": 1}, ["x"]):
            with pytest.raises(redis_errors.DataError, match="can't keep"):
                await client.set("k", value)  # type: ignore[arg-type]
        assert await client.get("k") is None
        assert await client.config_get("maxmemory") == {"maxmemory": "0"}


async def test_a_command_whose_reply_is_lost_is_not_sent_again(server: EmbeddedServer, proxy: TcpProxy) -> None:
    proxy.lose_reply_of = b"XADD"
    async with closing(connect(proxy.url)) as client:
        with pytest.raises(redis_errors.ConnectionError):
            await client.xadd("stream", {"n": "1"})
    async with closing(connect(server.url)) as client:
        assert await client.xlen("stream") == 1


@pytest.mark.parametrize("door", [connect, blocking_client])
async def test_a_cancelled_blocking_read_never_answers_for_the_next_command(
    server: EmbeddedServer, door: Callable[[str], Redis]
) -> None:
    async with closing(door(server.url)) as client, closing(connect(server.url)) as observer:

        async def is_blocked() -> bool:
            return await blocked_clients(observer) == 1

        async def is_free() -> bool:
            return await blocked_clients(observer) == 0

        async def read() -> None:
            await client.xread({"stream": "$"}, block=0)

        reading = asyncio.create_task(read())
        await until(is_blocked)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await observer.xadd("stream", {"for": "the cancelled reader"})
        assert await client.echo("mine") == b"mine"
        await until(is_free)


@pytest.mark.parametrize("door", [connect, blocking_client])
async def test_a_cancellation_is_felt_at_every_step_of_a_command(
    server: EmbeddedServer, door: Callable[[str], Redis]
) -> None:
    async with closing(door(server.url)) as client:

        async def work() -> None:
            while True:
                await client.echo("x")

        for steps in range(60):
            working = asyncio.create_task(work())
            for _ in range(steps):
                await asyncio.sleep(0)
            working.cancel()
            done, _ = await asyncio.wait({working}, timeout=30)
            was_felt = working in done
            working.cancel()
            await asyncio.wait({working})
            assert was_felt, f"the cancellation after {steps} steps was swallowed"


async def test_replies_are_never_mixed_up_under_cancellations(server: EmbeddedServer) -> None:
    async with closing(connect(server.url, max_connections=4, command_deadline_s=DEADLINE_S)) as client:

        async def ask(number: int) -> bool:
            return bool(await client.echo(str(number)) == str(number).encode())

        asked = [asyncio.create_task(ask(number)) for number in range(2000)]
        for count, task in enumerate(asked):
            if count % 3 == 0:
                task.cancel()
            await asyncio.sleep(0)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {answer for answer in answers if not isinstance(answer, asyncio.CancelledError)} == {True}
        assert await ask(-1)


async def test_a_stalled_server_is_noticed_and_its_late_reply_is_dropped(server: EmbeddedServer) -> None:
    async with closing(connect(server.url, command_deadline_s=STALL_S)) as client:
        await client.ping()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(redis_errors.TimeoutError):
                    await client.echo("late")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert await client.echo("mine") == b"mine"


async def test_a_send_into_a_stalled_server_has_a_deadline(server: EmbeddedServer) -> None:
    async with closing(connect(server.url, command_deadline_s=0.2)) as client:
        # The kernel takes the connection: a server that stands still has to do nothing for it.
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(redis_errors.TimeoutError):
                    await client.set("big", b"x" * 20_000_000)
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_a_blocking_read_lasts_longer_than_the_default_timeout_of_the_library(server: EmbeddedServer) -> None:
    async with closing(blocking_client(server.url)) as client:
        asked_at = time.monotonic()
        assert not await client.xread({"stream": "$"}, block=5300)
        assert time.monotonic() - asked_at > 5


async def test_a_blocking_read_can_tell_a_stall_from_a_quiet_stream(server: EmbeddedServer) -> None:
    async with closing(blocking_client(server.url, reply_deadline_s=STALL_S)) as client:
        assert not await client.xread({"stream": "$"}, block=100)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(redis_errors.TimeoutError):
                    await client.xread({"stream": "$"}, block=100)
        finally:
            os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("door", [connect, blocking_client])
async def test_a_connection_that_the_server_closed_is_not_used_again(
    server: EmbeddedServer, proxy: TcpProxy, door: Callable[[str], Redis]
) -> None:
    async with closing(door(proxy.url)) as client, closing(connect(server.url)) as other:
        await client.ping()
        proxy.hang_up()
        await until(proxy.is_hung_up)
        for _ in range(3):
            await other.ping()
        assert await client.echo("mine") == b"mine"


@pytest.mark.parametrize("door", [connect, blocking_client])
async def test_after_a_restart_of_the_server_the_same_client_goes_on(
    server: EmbeddedServer, door: Callable[[str], Redis]
) -> None:
    async with closing(door(server.url)) as client:
        await client.set("key", "kept")
        await server.stop()
        with pytest.raises(redis_errors.ConnectionError):
            await client.get("key")
        await server.start()
        assert await client.get("key") == b"kept"


async def test_a_burst_waits_for_connections_instead_of_opening_more(server: EmbeddedServer) -> None:
    async with closing(connect(server.url, max_connections=2, command_deadline_s=DEADLINE_S)) as client:
        replies = await asyncio.gather(*(client.echo(str(number)) for number in range(100)))
        assert replies == [str(number).encode() for number in range(100)]
        assert len(await client.client_list()) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:7000/3", "redis://host:7000/3"),
        ("rediss://:secret@host", "rediss://host:6379/0"),
        ("redis://:secret@[::1]:7000", "redis://[::1]:7000/0"),
        ("unix://user@/a%20b/s?password=secret&db=2", "unix:///a%20b/s?db=2"),
        ("rediss://host?ssl_cert_reqs=none", "rediss://host:6379/0"),
    ],
)
async def test_the_address_of_a_client_hides_the_credentials(url: str, shown: str) -> None:
    async with closing(connect(url)) as client:
        assert address(client) == shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:secret@host", "not understood"),
        ("redis://:sec#ret@host:x", "not understood"),
        ("redis://:secret@host:notaport", "not understood"),
        ("redis://:secret@host?db=secret", "not understood"),
        ("", "not understood"),
        ("unix://", "names no socket"),
        ("redis://:secret@host?socket_timeout=1&retry_on_timeout=true", r"\(retry_on_timeout, socket_timeout\)"),
    ],
)
def test_a_wrong_url_is_refused_without_showing_it(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        connect(url)
    assert "sec" not in caught.value.message.replace("REDIS_URL", "")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_facts_of_the_embedded_server(server: EmbeddedServer) -> None:
    async with closing(connect(server.url)) as client:
        facts = await check(client)
    assert (facts.version, facts.flavour) == (BINARY.version, BINARY.flavour)
    assert (facts.aof_enabled, facts.appendfsync, facts.rdb_save) == (True, "everysec", False)
    assert facts.degraded is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--appendonly", "no", "--save", ""], "no persistence"),
        (["--appendonly", "no", "--save", "3600 1"], "snapshots only"),
        (["--appendonly", "yes", "--appendfsync", "no"], "leaves fsync to the system"),
        (["--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "evicts keys"),
    ],
)
async def test_a_server_that_may_lose_runs_is_degraded(options: list[str], said: str) -> None:
    async with plain_server(*options) as url, closing(connect(url)) as client:
        facts = await check(client)
        assert facts.degraded is not None
        assert said in facts.degraded
        assert facts.aof_enabled is (options[1] == "yes")


async def test_a_server_that_forbids_config_still_tells_about_its_persistence() -> None:
    options = ["--appendonly", "no", "--save", "", "--rename-command", "CONFIG", ""]
    async with plain_server(*options) as url, closing(connect(url)) as client:
        facts = await check(client)
    assert (facts.appendfsync, facts.rdb_save) == (None, None)
    assert facts.degraded is not None
    assert "no persistence" in facts.degraded


@pytest.mark.parametrize("given", ["?password=wrong-secret", ""])
async def test_refused_credentials_are_told_without_showing_them(given: str) -> None:
    async with plain_server("--requirepass", "right-secret") as url, closing(connect(url + given)) as client:
        with pytest.raises(StoreUnavailable, match="refuses the credentials") as caught:
            await check(client)
    assert url in caught.value.message
    assert "secret" not in caught.value.message


async def test_the_password_of_the_url_is_used() -> None:
    async with (
        plain_server("--requirepass", "p@ss/w rd") as url,
        closing(connect(f"{url}?password=p%40ss%2Fw+rd")) as client,
    ):
        assert (await check(client)).flavour == BINARY.flavour


async def test_a_server_that_is_not_there_is_told_with_its_address(tmp_path: Path) -> None:
    async with closing(connect(f"unix://:hidden@{tmp_path}/none?password=hidden")) as client:
        with pytest.raises(StoreUnavailable, match="correct REDIS_URL") as caught:
            await check(client)
    assert f"unix://{tmp_path}/none" in caught.value.message
    assert "hidden" not in caught.value.message
    assert caught.value.code == "service_unavailable"


@pytest.mark.parametrize(
    ("info", "version", "flavour"),
    [
        ({"redis_version": "6.2.14"}, "6.2.14", "redis"),
        ({"redis_version": "7.2.4", "valkey_version": "8.1.0"}, "8.1.0", "valkey"),
        ({}, "unknown", "redis"),
    ],
)
def test_which_version_is_told(info: dict[str, str], version: str, flavour: str) -> None:
    facts = facts_from(info, None)
    assert (facts.version, facts.flavour) == (version, flavour)


@pytest.mark.parametrize(("version", "enough"), [("7.0.15", True), ("9.1.2", True), ("6.2.14", False), ("?", False)])
def test_a_server_older_than_7_0_is_refused(version: str, enough: bool) -> None:
    facts = facts_from({"redis_version": version}, None)
    if enough:
        require_supported("redis://host:6379/0", facts)
        return
    with pytest.raises(StoreUnavailable, match=f"redis://host:6379/0 is redis {re.escape(version)}: Cody needs 7.0"):
        require_supported("redis://host:6379/0", facts)


async def test_a_given_url_is_used_and_no_server_is_started(server: EmbeddedServer, tmp_path: Path) -> None:
    store = await open_store_server(
        redis_url=server.url, redis_server=None, embedded=True, state_dir=tmp_path / "unused"
    )
    assert store is not None
    assert (store.url, store.embedded, store.facts.version) == (server.url, None, BINARY.version)
    await store.aclose()
    assert not (tmp_path / "unused").exists()
    async with closing(connect(server.url)) as client:
        assert await client.ping()


async def test_a_given_url_that_is_unreachable_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:1/0"):
        await open_store_server(
            redis_url="redis://:secret@127.0.0.1:1", redis_server=None, embedded=True, state_dir=tmp_path / "unused"
        )
    assert not (tmp_path / "unused").exists()


async def test_without_a_url_a_server_of_our_own_is_started_and_ended(tmp_path: Path) -> None:
    store = await open_store_server(redis_url=None, redis_server=None, embedded=True, state_dir=tmp_path)
    assert store is not None
    assert store.embedded is not None
    pid = store.embedded.pid
    async with closing(connect(store.url)) as client:
        assert (await client.info("server"))["process_id"] == pid
    assert store.facts.degraded is None
    await store.aclose()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_named_server_program_is_used_or_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CODY_REDIS_SERVER"):
        await open_store_server(
            redis_url=None, redis_server=str(tmp_path / "none"), embedded=True, state_dir=tmp_path / "state"
        )
    named = tmp_path / "named-server"
    named.symlink_to(BINARY.path)
    store = await open_store_server(
        redis_url=None, redis_server=str(named), embedded=True, state_dir=tmp_path / "state"
    )
    assert store is not None
    assert store.embedded is not None
    try:
        assert store.embedded.binary.path == named
    finally:
        await store.aclose()


async def test_with_the_embedded_server_off_and_no_url_there_is_no_store(tmp_path: Path) -> None:
    assert await open_store_server(redis_url=None, redis_server=None, embedded=False, state_dir=tmp_path / "s") is None
    assert not (tmp_path / "s").exists()
