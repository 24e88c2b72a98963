"""The stage of a fault: a real Valkey that loses nothing, hosts on machines of their own, a front that hands runs out and
reads them, and an agent that keeps its own record."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from cody.contracts.run import RunSnapshot, StartRunRequest
from cody.settings import load_settings
from cody.store import events, keys
from cody.store.clients import connect
from cody.store.embedded import EmbeddedServer
from cody.store.server_binary import find_server_binary
from harness.service import RunService
from tests.faults import evidence
from tests.faults.evidence import Event
from tests.faults.machines import Machine, marked, parent
from tests.proxy import Proxy

AGENT = Path(__file__).with_name("oracle_agent.py")
MARK_MS = 20
"""Between two marks of the agent, at least."""


@dataclass(slots=True)
class Leases:
    """How long leases are. A machine that is busy for a while must lose none but by the fault; the report has shorter ones."""

    short_ms: int = 10_000
    """Where the fault outlasts the lease."""
    long_ms: int = 15_000
    """Where it does not."""


leases = Leases()


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one try of one fault came to."""

    orphans: int = 0
    lost: int = 0
    duplicated: int = 0
    gaps: int = 0
    overlap_ms: float = 0.0
    takeover_ms: float | None = None
    """From the fault to the first line of the next agent; None where no other agent follows."""

    @property
    def clean(self) -> bool:
        return not (self.orphans or self.lost or self.duplicated or self.gaps) and self.overlap_ms <= 0


@dataclass
class Watched:
    """A run as its readers see it."""

    service: RunService
    run_id: str
    evidence: Path
    done: Path
    events: list[Event] = field(default_factory=list)
    failure: Exception | None = None
    _task: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            cursor = await self.service.open_stream(self.run_id, "0")
            async for batch in self.service.follow(self.run_id, cursor):
                self.events += [json.loads(frame.data) for frame in batch]
                self._news.set()
        except Exception as error:
            self.failure = error
        self._news.set()

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    async def until(self, seen: Callable[[], object], what: str, deadline_s: float = 60) -> None:
        """Wait until this holds for what was read so far."""
        try:
            async with asyncio.timeout(deadline_s):
                while not seen():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: not within {deadline_s} s; last: {self.events[-12:]}") from None

    async def marks_of(self, fence: int, count: int = 10) -> None:
        """The agent under this fence has been heard so often."""
        await self.until(
            lambda: sum(mark[0] == fence for mark in evidence.marks(self.events)) >= count, f"marks of fence {fence}"
        )

    async def more(self, count: int) -> None:
        """So many events beyond those seen so far."""
        before = len(self.events)
        await self.until(lambda: len(self.events) >= before + count, f"{count} more events")

    async def end(self, deadline_s: float = 60) -> RunSnapshot:
        """Let the agent finish, wait for the run's end."""
        self.done.touch()
        assert self._task is not None
        try:
            async with asyncio.timeout(deadline_s):
                await asyncio.shield(self._task)
        except TimeoutError:
            raise AssertionError(f"run {self.run_id} did not end; last: {self.events[-12:]}") from None
        return await self.service.records.snapshot(self.run_id)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@dataclass
class Stage:
    """All of it; made by `stage()`."""

    folder: Path
    server: EmbeddedServer
    redis: Redis
    front: RunService
    rng: random.Random
    ttl_ms: int
    url: str
    """Where all of them find Redis, if they are not told another way."""
    machines: list[Machine] = field(default_factory=list)
    runs: list[Watched] = field(default_factory=list)

    async def machine(self, name: str, **options: Any) -> Machine:
        """A worker on a machine of its own."""
        url = options.pop("redis_url", self.url)
        made = await Machine.start(name, self.folder, redis_url=url, ttl_ms=self.ttl_ms, **options)
        self.machines.append(made)
        return made

    async def run(
        self, command: list[str] | None = None, *, service: RunService | None = None, **config: Any
    ) -> Watched:
        """A run with the oracle for an agent, or another program; handed out by the front, or another service."""
        service = service or self.front
        number = len(self.runs)
        repository = self.folder / f"repo{number}"
        epic = repository / ".cody-harness" / "current-epic"
        epic.mkdir(parents=True)
        (epic / "codys-log.md").write_text("# Log\n", encoding="utf-8")
        record, done = self.folder / f"evidence{number}.jsonl", self.folder / f"done{number}"
        request = StartRunRequest.model_validate(
            {
                "epicId": "current-epic",
                "config": {
                    "workingDir": str(repository),
                    "agent": "command",
                    "command": command or [sys.executable, "-I", "-S", str(AGENT), str(record), str(done)],
                    "loopDelaySec": 0,
                    **config,
                },
            }
        )
        run = Watched(service, (await service.start(request)).run_id, record, done)
        run.listen()
        self.runs.append(run)
        return run

    async def owner(self, run: Watched) -> Machine:
        """The machine that works on this run, told by the worker that wrote the run's last start."""
        names = {machine.name: machine for machine in self.machines}
        for pid in marked(run.run_id):
            for machine in names.values():
                if _is_below(pid, machine.pid):
                    return machine
        raise AssertionError(f"no machine works on run {run.run_id}")

    async def jitter(self, at_most_s: float = 0.4) -> None:
        """The moment of the fault differs from try to try."""
        await asyncio.sleep(self.rng.uniform(0, at_most_s))

    async def is_free(self, run: Watched) -> bool:
        """Nobody holds the run's lease."""
        return not await self.redis.exists(keys.lock(run.run_id))

    async def died_in_time(self, run: Watched, fault_ns: int) -> None:
        """Wait for the end of the agent, which must come first, and of its lease, of which nobody can be asked."""
        await until(lambda: not marked(run.run_id), "the agent is ended")
        (life,) = evidence.lifetimes(run.evidence)
        over_ns = fault_ns + self.ttl_ms * evidence.NS_PER_MS
        assert life.last_ns < over_ns, "the agent outlived its lease"
        # A Redis that is back before that still knows whose the run is, and nothing would have to be taken up.
        await until(lambda: boottime_ns() > over_ns, "the lease is over")

    async def renewals(self, run: Watched, count: int) -> None:
        """The run's lease was renewed so often."""
        before_ms, seen = await self.redis.pttl(keys.lock(run.run_id)), 0

        async def renewed() -> bool:
            nonlocal before_ms, seen
            left_ms = await self.redis.pttl(keys.lock(run.run_id))
            seen += left_ms > before_ms
            before_ms = left_ms
            return seen >= count

        await until(renewed, f"{count} renewals")

    def marks_in_lease(self, share: float = 1.0) -> int:
        """An agent that has been heard so often has worked for a lease, or this share of it."""
        return round(self.ttl_ms * share / MARK_MS)

    async def end_machines(self) -> None:
        """Stop every worker now, in order."""
        machines, self.machines = self.machines, []
        await asyncio.gather(*(machine.end() for machine in machines))

    async def stream(self, run: Watched) -> list[Event]:
        """All events that Redis has for this run."""
        found: list[Event] = []
        cursor = "0-0"
        while batch := await events.after(self.redis, run.run_id, cursor):
            cursor = batch[-1].id
            found += [json.loads(frame.data) for frame in batch]
        return found

    async def measure(self, run: Watched, fault_ns: int) -> Measured:
        """Judge a run that has ended. What a reader saw must be in the stream; what the reader saw, it saw once."""
        kept = await self.stream(run)
        lives = evidence.lifetimes(run.evidence)
        later = [life.begin_ns for life in lives if life.begin_ns > fault_ns]
        seen = evidence.marks(run.events)
        return Measured(
            orphans=len(await settled_orphans(run.run_id)),
            lost=evidence.lost(seen, evidence.marks(kept)) + evidence.lost(evidence.marks(kept), seen),
            duplicated=max(evidence.doubled(evidence.marks(kept)), evidence.doubled(seen)),
            gaps=max(evidence.gaps(kept), evidence.gaps(run.events)),
            overlap_ms=max(0.0, evidence.overlap_ms(lives)),
            takeover_ms=(min(later) - fault_ns) / evidence.NS_PER_MS if later else None,
        )


async def settled_orphans(run_id: str) -> list[int]:
    """What of the run still lives after its end; a guard gets a while to end by itself."""
    for _ in range(400):
        if not marked(run_id):
            return []
        await asyncio.sleep(0.05)
    return marked(run_id)


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        pid = parent(pid)
    return pid == ancestor


async def until(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]], what: str, deadline_s: float = 60
) -> None:
    """Wait until it is true."""
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
        raise AssertionError(f"{what}: not within {deadline_s} s") from None


@asynccontextmanager
async def stage(seed: int, *, ttl_ms: int | None = None, door: Proxy | None = None) -> AsyncIterator[Stage]:
    """A stage that is cleared afterwards, whatever became of it. With a door all find Redis behind it, wherever it leads."""
    ttl_ms = leases.short_ms if ttl_ms is None else ttl_ms
    async with AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="cody-fault-", ignore_cleanup_errors=True))
        )
        server = EmbeddedServer(find_server_binary(None), folder, appendfsync="always")
        await server.start()
        stack.push_async_callback(server.stop)
        if door is not None:
            door.lead_to(server.url)
        url = server.url if door is None else door.url
        redis = connect(url, command_deadline_s=30)
        stack.push_async_callback(redis.aclose)
        settings = load_settings(
            state_dir=folder / "front", redis_url=url, concurrency=0, lock_ttl_ms=ttl_ms, grace_s=0.3
        )
        front = await stack.enter_async_context(RunService.open(settings))
        made = Stage(folder, server, redis, front, random.Random(seed), ttl_ms, url)
        stack.push_async_callback(_clear, made)
        yield made


async def _clear(made: Stage) -> None:
    for run in made.runs:
        await run.close()
    await asyncio.gather(*(machine.end() for machine in made.machines))
    for run in made.runs:
        for pid in marked(run.run_id):
            os.kill(pid, 9)
