"""What every test may use: a real Valkey of the suite's own, and a guard that looks at the keys a test left."""

from __future__ import annotations

import asyncio
import gc
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from cody.store import keys
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.server_binary import find_server_binary

Wait = Callable[..., Awaitable[None]]
NO_TTL = -1
"""What Redis answers for a key that is kept for ever; one that has just expired has no such answer."""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Begun in the background by a shell: every process that a test starts would be deaf to Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What an example takes says nothing about what is tested: the machine may stand still in the midst of it.
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: going through it again holds up a test for most of a second."""
    gc.collect()
    gc.freeze()


REPLY_DEADLINE_S = 60.0
"""Of the tests' own commands: as long as nothing else is to be proved, a stalled machine is waited for."""


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One server for the whole session; tests that harm a server start their own."""
    with (
        tempfile.TemporaryDirectory(prefix="cody-suite-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        server = EmbeddedServer(find_server_binary(None), Path(folder))
        runner.run(server.start())
        try:
            yield server.url
        finally:
            runner.run(server.stop())


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client of an empty database; afterwards every key must be one that is declared, and bounded as declared."""
    client = connect(valkey_url, command_deadline_s=REPLY_DEADLINE_S)
    await client.flushdb()
    try:
        yield client
        await check_keys(client)
    finally:
        await client.aclose()


async def check_keys(client: Redis) -> None:
    """Fails for a key nobody declared, one without its TTL, or one above its bound."""
    for raw in cast("list[bytes]", await client.keys("*")):
        key = raw.decode()
        if keys.is_dockets(key):
            continue
        rule = keys.rule_for(key)
        assert rule is not None, f"key {key} is not declared in cody/store/keys.py"
        kind = cast("bytes", await client.type(key)).decode()
        if kind == "none":
            continue  # it has expired since it was listed
        assert kind == rule.type, f"{key} is a {kind}"
        if rule.always_ttl:
            assert await client.ttl(key) != NO_TTL, f"{key} has no TTL"
        parts = key.split(":")
        if len(parts) == 5 and parts[2] == "run" and rule.type != "string":
            status = await client.hget(keys.meta(parts[3]), "status")
            if status in {b"completed", b"failed", b"cancelled"} and parts[3] not in await unarchived(client):
                # Asked for last: an archive that is at work sets it before it is through with the news.
                assert await client.ttl(key) != NO_TTL, f"{key} of an ended run has no TTL"
        if rule.max_entries is not None:
            sizes = {"stream": client.xlen, "hash": client.hlen, "zset": client.zcard}
            assert await sizes[rule.type](key) <= rule.max_entries, f"{key} is above its bound"


async def unarchived(client: Redis) -> set[str]:
    """Runs with news that the archive has not got yet: it sets the TTL."""
    news = cast("list[tuple[bytes, dict[bytes, bytes]]]", await client.xrange(keys.ARCHIVE_NEWS))
    return {fields[b"runId"].decode() for _, fields in news}


@pytest.fixture
def eventually() -> Wait:
    """`await eventually(predicate)`: wait until it is true; a hang fails with what was waited for."""

    async def wait(predicate: Callable[[], object], what: str = "", deadline_s: float = 60.0) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    answer = predicate()
                    if isinstance(answer, Awaitable):
                        answer = await answer
                    if answer:
                        return
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"did not happen within {deadline_s} s: {what or predicate}") from None

    return wait
