"""Faults for a storage: hold it, fail it, kill its worker, let it lie. Put in front of a real one by the kit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from cody.sync.contracts import Chunk
from cody.sync.storage import ConversationRow, JobRow, SourceRow, Storage, Write

Step = Literal["claim", "apply", "verify", "publish"]
"""Of a worker: looks for a job; commits a chunk with its cursor; reads the target back; commits the end in success."""

Distortion = Callable[[Chunk], Sequence[Chunk]]
"""What a lying backend shows in place of a chunk."""


class WorkerKilled(BaseException):
    """Ends a worker where it stands, as kill -9 would: no Exception, so that nothing tidies up after it."""


@dataclass(slots=True)
class Gate:
    """A step that does not get on until it is opened."""

    skip: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        """Let everybody through."""
        self.opened.set()

    async def passage(self) -> None:
        """Wait until it is open."""
        if self.skip > 0:
            self.skip -= 1
            return
        self.reached.set()
        await self.opened.wait()


@dataclass(slots=True)
class _Fault:
    times: int
    after: bool
    kill: bool = False
    spaced: bool = False
    struck: bool = False


class FaultyStorage:
    """A Storage that hands everything on to `inner`, with the faults that were asked for."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self._gates: dict[Step, Gate] = {}
        self._faults: dict[Step, _Fault] = {}
        self.killed = asyncio.Event()
        self.distortion: Distortion | None = None

    def hold(self, step: Step, skip: int = 0) -> Gate:
        """Hold this step, after it was let through `skip` times; the gate opens it."""
        gate = self._gates[step] = Gate(skip)
        return gate

    def fail(self, step: Step, times: int, *, after: bool = False, spaced: bool = False) -> None:
        """Fail this step so many times with a ConnectionError, in a row or every other time.

        `after`: it is done, and only its answer is lost.
        """
        self._faults[step] = _Fault(times, after, spaced=spaced)

    def kill(self, step: Step, *, after: bool = False) -> None:
        """Kill the worker once at this step: before anything is done, or after everything is; sets `killed`."""
        self._faults[step] = _Fault(1, after, kill=True)

    async def conversation(self, conversation_id: str) -> ConversationRow | None:
        """See Storage."""
        return await self._inner.conversation(conversation_id)

    async def source(self, source_id: str) -> SourceRow | None:
        """See Storage."""
        return await self._inner.source(source_id)

    async def job(self, job_id: str) -> JobRow | None:
        """See Storage."""
        return await self._inner.job(job_id)

    async def jobs(self, conversation_id: str) -> Sequence[JobRow]:
        """See Storage."""
        return await self._inner.jobs(conversation_id)

    async def next_job(self) -> JobRow | None:
        """See Storage."""
        await self._before("claim")
        return await self._inner.next_job()

    async def chunk(self, source_id: str, index: int) -> Chunk | None:
        """See Storage."""
        return await self._inner.chunk(source_id, index)

    async def stale(self, before: datetime, limit: int) -> Sequence[SourceRow]:
        """See Storage."""
        return await self._inner.stale(before, limit)

    async def record(self, job_id: str) -> AsyncIterator[Chunk]:
        """See Storage; shows what `distortion` makes of each chunk."""
        await self._before("verify")
        async for chunk in self._inner.record(job_id):
            for shown in (chunk,) if self.distortion is None else self.distortion(chunk):
                yield shown

    async def commit(self, write: Write) -> bool:
        """See Storage."""
        step = _step_of(write)
        if step is None:
            return await self._inner.commit(write)
        await self._before(step)
        stored = await self._inner.commit(write)
        self._strike(step, after=True)
        return stored

    async def _before(self, step: Step) -> None:
        if step in self._gates:
            await self._gates[step].passage()
        self._strike(step, after=False)

    def _strike(self, step: Step, *, after: bool) -> None:
        fault = self._faults.get(step)
        if fault is None or fault.after is not after or fault.times == 0:
            return
        if fault.spaced and fault.struck:
            fault.struck = False
            return
        fault.times, fault.struck = fault.times - 1, True
        if fault.kill:
            self.killed.set()
            raise WorkerKilled(step)
        raise ConnectionError(f"injected: the backend went away at {step}")


def _step_of(write: Write) -> Step | None:
    if write.applied is not None:
        return "apply"
    if write.conversation is not None and write.jobs and write.jobs[0].state == "succeeded":
        return "publish"
    return None
