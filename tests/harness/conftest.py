"""A service on the suite's Valkey, a workspace with an epic, and small agents that are real programs."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from cody.contracts.run import RunSnapshot, StartRunRequest
from cody.settings import Settings, load_settings
from harness.service import RunService

Event = dict[str, Any]


@dataclass
class Workspace:
    """A repository with an epic, and an agent in it that is a Python program."""

    path: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def epic(self) -> Path:
        return self.path / ".cody-harness" / "current-epic"

    def agent(self, code: str, program: Path | None = None) -> list[str]:
        """The command of an agent that runs this code; `sys, os, json, time, subprocess`, TURN, EPIC and STOP are there.

        `program`: the file of an earlier one, which it takes the place of.
        """
        head = """
            import sys, os, json, time, subprocess, signal
            from pathlib import Path
            PROMPT = sys.stdin.read()
            TURN = int(os.environ["CODY_TURN"])
            EPIC, STOP = Path(os.environ["CODY_EPIC_DIR"]), Path(os.environ["CODY_STOP_FILE"])
            def say(**event): print(json.dumps({"__cody_event__": event}), flush=True)
        """
        program = program or self.path.parent / f"agent-{next(self._numbers)}.py"
        program.write_text(textwrap.dedent(head) + textwrap.dedent(code), encoding="utf-8")
        return [sys.executable, str(program)]

    def request(self, code: str, **config: Any) -> StartRunRequest:
        return StartRunRequest.model_validate(
            {
                "epicId": "current-epic",
                "config": {
                    "workingDir": str(self.path),
                    "agent": "command",
                    "command": self.agent(code),
                    "loopDelaySec": 0,
                    **config,
                },
            }
        )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "repo")
    made.epic.mkdir(parents=True)
    (made.epic / "codys-log.md").write_text("# Log\n", encoding="utf-8")
    (made.epic.parent / "decision-log.md").write_text("# Decisions\n", encoding="utf-8")
    return made


@dataclass
class Watched:
    """A run and all its events so far, read as a client reads them."""

    service: RunService
    run_id: str
    events: list[Event] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def listen(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        cursor = await self.service.open_stream(self.run_id, "0")
        async for batch in self.service.follow(self.run_id, cursor):
            self.events += [json.loads(frame.data) for frame in batch]
            self._news.set()

    async def until(self, seen: Callable[[list[Event]], object] | str, deadline_s: float = 60) -> None:
        """Wait for an event of this type, or until a predicate over all events holds."""
        wanted: Callable[[list[Event]], object] = (
            seen if callable(seen) else lambda events: any(e["type"] == seen for e in events)
        )
        try:
            async with asyncio.timeout(deadline_s):
                while not wanted(self.events):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{seen} was not seen within {deadline_s} s; seen: {self.events[-20:]}") from None

    async def end(self, deadline_s: float = 60) -> RunSnapshot:
        """Wait for the run's end; its snapshot."""
        assert self._task is not None
        async with asyncio.timeout(deadline_s):
            await self._task
        self.check()
        return await self.service.records.snapshot(self.run_id)

    def check(self) -> None:
        """What holds for every run: contiguous numbers, complete envelopes."""
        assert [event["seq"] for event in self.events] == list(range(1, len(self.events) + 1))
        assert all(event["runId"] == self.run_id and event["ts"].endswith("Z") for event in self.events)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


Start = Callable[[StartRunRequest], Awaitable[Watched]]
Serve = Callable[..., Any]


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    """Leases outlast a stall of the machine, which would end agents. Who waits for one to run out sets another TTL."""
    return load_settings(state_dir=tmp_path / "state", redis_url=valkey_url, grace_s=1.0, lock_ttl_ms=30_000)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[RunService]:
    """A service that is shut down in order."""
    async with RunService.open(settings) as service:
        yield service
        await service.shutdown()


@pytest.fixture
async def service(settings: Settings, redis: Redis) -> AsyncIterator[RunService]:
    async with serving(settings) as opened:
        yield opened


@pytest.fixture
async def start(service: RunService) -> AsyncIterator[Start]:
    """Start a run and watch it."""
    watched: list[Watched] = []

    async def begin(request: StartRunRequest) -> Watched:
        one = Watched(service, (await service.start(request)).run_id)
        one.listen()
        watched.append(one)
        return one

    yield begin
    for one in watched:
        await one.close()
