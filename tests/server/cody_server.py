"""A real server process, and runs in its Redis whose worker is the test."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from cody.contracts.run_config import RunConfig
from cody.pipeline.archive import Archive
from cody.pipeline.archive.engine import DEFAULT_FILE
from cody.store import keys, runs
from cody.store.clients import connect
from cody.store.events import Answer, PendingEvent, commit

REPOSITORY = Path(__file__).resolve().parents[2]
TS = "2026-01-01T00:00:00.000Z"
DEADLINE_S = 30
LEASE_MS = 600_000
PATIENT: dict[str, Any] = {"CODY_LOCK_TTL_MS": "30000"}
"""For servers whose agents are not meant to lose their lease: by default one that stands still for 4 s may end a turn."""


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without what would steer a server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODY_") and name != "REDIS_URL"}
    return {**kept, **extra}


@dataclass
class CodyServer:
    """`python -m server`, ready (or ended, when it could not start)."""

    state_dir: Path
    process: subprocess.Popen[str]
    log: Path
    url: str

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def stderr(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def redis(self) -> Redis:
        """A client of the server's own Valkey."""
        return connect(f"unix://{self.state_dir}/redis/redis.sock")

    @property
    def token(self) -> str:
        """The local token, as the CLI reads it."""
        return (self.state_dir / "token").read_text(encoding="ascii").strip()

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def auth_line(self) -> str:
        """The local token as a line of a raw request."""
        return f"Authorization: Bearer {self.token}\r\n"

    def client(self, **options: Any) -> httpx2.Client:
        """Every request carries the local token, unless a test says otherwise."""
        headers = {**self.auth, **options.pop("headers", {})}
        return httpx2.Client(base_url=self.url, timeout=DEADLINE_S, headers=headers, **options)

    def raw(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send exactly these bytes on a connection of their own; the answer up to its end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR) if b"connection: close" not in request.lower() else None
            answer = b""
            while chunk := connection.recv(65_536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split(" ")[1]), headers, body

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        return self.process.wait(DEADLINE_S)

    def discard(self) -> None:
        """Nothing of it is left; fails when it had to be killed."""
        if self.process.stdout is not None:
            self.process.stdout.close()
        try:
            self.end()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end in {DEADLINE_S} s:\n{self.stderr}") from None


def launch(
    folder: Path,
    *flags: str,
    state: str = "state",
    port: int | None = 0,
    stdout: int = subprocess.PIPE,
    workspace_root: str | None = tempfile.gettempdir(),
    has_archive: bool = True,
    **environment: str,
) -> CodyServer:
    """Start a server; returns when it said its URL, or ended without one (`url` is empty then).

    `has_archive`: its folder has an empty archive already; else it has no folder, as at the very first start.
    """
    state_dir = folder / state
    if has_archive and not state_dir.exists() and state_dir.parent.is_dir() and not environment.get("DATABASE_URL"):
        _give_archive(state_dir)
    descriptor, log = tempfile.mkstemp(prefix="stderr-", dir=folder)
    port_flag = [] if port is None else ["--port", str(port)]
    # Where the tests have their repositories; without it a server works only where it was started.
    roots = [] if workspace_root is None else ["--workspace-root", workspace_root]
    with open(descriptor, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "--state-dir", str(state_dir), *roots, *port_flag, *flags],
            cwd=REPOSITORY,
            # Should the test process be killed, the server goes too, a while later.
            env=clean_environment(**{"CODY_IDLE_EXIT_SEC": "300", **environment}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=errors,
            text=True,
        )
    said = process.stdout.readline().strip() if process.stdout is not None else ""
    return CodyServer(state_dir, process, Path(log), said)


def _give_archive(state_dir: Path) -> None:
    """The empty archive that a first start makes: to make it anew costs each server a fifth of its start."""
    state_dir.mkdir(mode=0o700)
    file = state_dir / DEFAULT_FILE
    file.touch(mode=0o600)
    file.write_bytes(_empty_archive())


@functools.cache
def _empty_archive() -> bytes:
    with tempfile.TemporaryDirectory(prefix="cody-archive-") as folder:
        file = Path(folder) / DEFAULT_FILE

        async def make() -> None:
            archive = Archive(None, Path(folder))
            await archive.open()
            await archive.aclose()

        # In a thread: the caller may be on an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, make()).result()
        assert not file.with_name(f"{DEFAULT_FILE}-wal").exists(), "not all of it is in the file"
        return file.read_bytes()


@contextmanager
def running_server(name: str, **environment: Any) -> Iterator[CodyServer]:
    """A server in a folder of its own, until the block ends. `name`: what the folder is called by."""
    with tempfile.TemporaryDirectory(prefix=f"cody-{name}-") as folder:
        started = launch(Path(folder), **environment)
        try:
            assert started.url, started.stderr
            yield started
        finally:
            started.discard()


@dataclass
class OwnedRun:
    """A run that no server works on, because the test holds its lease: its events are what the test commits."""

    redis: Redis
    run_id: str
    fence: int
    last_seq: int = field(default=1)

    @classmethod
    async def create(cls, redis: Redis) -> OwnedRun:
        run_id = str(uuid.uuid4())
        config = RunConfig(working_dir="/nowhere", agent="command", command=["true"])
        worker_id = str(uuid.uuid4())
        # Before there is the run: one that is free for a moment may be taken by a server that looks for such runs just then.
        await redis.set(keys.lock(run_id), worker_id, px=LEASE_MS)
        await runs.create(redis, run_id, epic_id="current-epic", config=config, now_ms=1_750_000_000_000)
        fence = int(await redis.hincrby(keys.meta(run_id), "fence", 1))
        await redis.hset(keys.meta(run_id), mapping={"workerId": worker_id, "host": "test"})
        return cls(redis, run_id, fence)

    async def add(self, count: int, *, text_bytes: int = 1) -> None:
        """So many warnings, each with its number in `message`, in batches."""
        while count > 0:
            some = min(count, 500)
            numbers = range(self.last_seq + 1, self.last_seq + 1 + some)
            filler = "x" * text_bytes
            payloads = [json.dumps({"code": filler, "message": str(number)}).encode() for number in numbers]
            await self._commit([PendingEvent("warning", TS, payload) for payload in payloads])
            count -= some

    async def complete(self) -> None:
        """The last event."""
        ended = {"status": "completed", "workerStatus": "completed", "finishedAt": TS}
        await self._commit([PendingEvent("run_completed", TS, b'{"source":"stop_file"}')], meta=ended, end_ttl_s=3600)

    async def _commit(
        self, events: list[PendingEvent], meta: Mapping[str, str | int] | None = None, end_ttl_s: int | None = None
    ) -> None:
        done = await commit(
            self.redis,
            self.run_id,
            fence=self.fence,
            first_seq=self.last_seq + 1,
            events=events,
            meta=meta,
            end_ttl_s=end_ttl_s,
        )
        assert done.answer is Answer.OK, done
        self.last_seq = done.last_seq
