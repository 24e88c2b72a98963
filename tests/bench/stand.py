"""What a measurement stands on: a Valkey of its own, a real server process on it, readers in a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.asyncio import Redis

from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.server_binary import find_server_binary
from tests.server.cody_server import REPOSITORY, CodyServer, launch

REST_S, REST_DEADLINE_S, RESTING = 1.0, 15.0, 0.02


@dataclass(frozen=True)
class Stand:
    """A folder, a Valkey, a client of it."""

    folder: Path
    valkey: EmbeddedServer
    redis: Redis

    @contextmanager
    def server(self, *, concurrency: int = 8, projector: bool = True) -> Iterator[CodyServer]:
        """A server process on this Valkey; without keepalives, which would be counted as events."""
        made = launch(
            self.folder,
            REDIS_URL=self.valkey.url,
            CODY_SSE_KEEPALIVE_SEC="600",
            CODY_CONCURRENCY=str(concurrency),
            CODY_PROJECTOR=str(projector),
        )
        try:
            assert made.url, made.stderr
            _await_rest(made.process.pid)
            yield made
        finally:
            made.discard()


@asynccontextmanager
async def stand() -> AsyncIterator[Stand]:
    """One that is cleared afterwards."""
    with tempfile.TemporaryDirectory(prefix="cody-bench-") as folder:
        valkey = EmbeddedServer(find_server_binary(None), Path(folder))
        await valkey.start()
        redis = connect(valkey.url)
        try:
            yield Stand(Path(folder), valkey, redis)
        finally:
            await redis.aclose()
            await valkey.stop()


class Child:
    """A helper process that answers a line with a line."""

    def __init__(self, module: str, *words: object, first: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{module}", *map(str, words)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if first:
            self.say(first)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the helper process ended"
        return line

    async def ask(self, line: str) -> str:
        self.say(line)
        return await asyncio.to_thread(self.hear)

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@contextmanager
def child(module: str, *words: object, first: str = "") -> Iterator[Child]:
    made = Child(module, *words, first=first)
    try:
        yield made
    finally:
        made.end()


@asynccontextmanager
async def readers(port: int, count: int, request: str) -> AsyncIterator[Child]:
    """So many readers, all with the head of their answer."""
    with child("sinks", port, count, first=json.dumps(request)) as made:
        assert await asyncio.to_thread(made.hear) == "open"
        yield made


def stream_request(server: CodyServer, run_id: str, start: str = "0") -> str:
    """The bytes that ask for a run's events."""
    host = f"Host: localhost:{server.port}\r\n{server.auth_line}"
    return f"GET /api/runs/{run_id}/stream?from={start} HTTP/1.1\r\n{host}\r\n"


def _await_rest(pid: int) -> None:
    """What a server loads and looks after when it starts is done."""
    end_s = time.monotonic() + REST_DEADLINE_S
    before = cpu_s(pid)
    while time.monotonic() < end_s:
        time.sleep(REST_S)
        now = cpu_s(pid)
        if now - before < REST_S * RESTING:
            return
        before = now


def cpu_s(pid: int) -> float:
    """The time that this process' threads have used, to the nanosecond; psutil counts hundredths of a second."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def rss_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
