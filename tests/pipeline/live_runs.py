"""Runs in a real Redis, written as a worker writes them, and the question whether the archive equals them."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from cody.contracts.run import RunSnapshot, TurnRecord, TurnStatus
from cody.contracts.run_config import RunConfig
from cody.contracts.run_events import (
    LogUpdated,
    RunCompleted,
    RunEventBody,
    SubprocessOutput,
    TurnItem,
    WarningRaised,
    payload_json,
)
from cody.pipeline.archive import Archive
from cody.pipeline.projecting import Pace
from cody.pipeline.run_projector import RunProjector
from cody.store import events, leases, runs
from cody.store.archive_news import ArchiveNews
from cody.store.archive_source import ArchiveSource
from cody.store.events import Answer, Frame, PendingEvent
from cody.store.leases import Claim
from cody.wall_clock import now_ms, now_text

FAST = Pace(gather_s=0.0, block_ms=50, claim_every_s=0.1, claim_idle_ms=300)
"""Claims soon: what Redis sends to a projector that is just being cancelled belongs to the next one."""


@dataclass
class LiveRun:
    """A run that this process owns."""

    redis: Redis
    run_id: str
    fence: int
    last_seq: int = 1

    async def emit(self, *bodies: RunEventBody, **more: Any) -> None:
        """One commit of these events; `more` goes to `commit`."""
        ts = now_text()
        answer = await events.commit(
            self.redis,
            self.run_id,
            fence=self.fence,
            first_seq=self.last_seq + 1,
            events=[PendingEvent(body.type, ts, payload_json(body)) for body in bodies],
            **{**more, "meta": {"updatedAt": ts, **more.get("meta", {})}},
        )
        assert answer.answer is Answer.OK
        self.last_seq += len(bodies)

    async def emit_many(self, count: int) -> None:
        for start in range(0, count, 1000):
            await self.emit(*(warning(number) for number in range(start, min(start + 1000, count))))

    async def turn(self, number: int, status: TurnStatus = "running", **fields: Any) -> None:
        record = TurnRecord(
            run_id=self.run_id,
            turn=number,
            status=status,
            started_at="2026-01-01T00:00:00.000Z",
            response_id=f"response-{number}",
            **fields,
        )
        meta = {"currentTurn": number}
        await self.emit(turn=(number, record.model_dump_json(by_alias=True).encode()), meta=meta)

    async def complete(self, *, end_ttl_s: int = 0) -> None:
        await self.emit(
            RunCompleted(source="stop_file"),
            meta={"status": "completed", "finishedAt": now_text()},
            end_ttl_s=end_ttl_s,
        )


async def live_run(redis: Redis, *, epic_id: str = "epic", created_ms: int | None = None) -> LiveRun:
    """A new run, owned."""
    run_id = str(uuid.uuid4())
    config = RunConfig(working_dir="/repo", max_turns=7)
    await runs.create(redis, run_id, epic_id=epic_id, config=config, now_ms=created_ms or now_ms())
    claim = await leases.acquire(redis, run_id, worker_id=str(uuid.uuid4()), host="here", ttl_ms=60_000)
    assert isinstance(claim, Claim)
    return LiveRun(redis, run_id, claim.fence)


def warning(number: int) -> WarningRaised:
    return WarningRaised(turn=number % 3 or None, code="number", message=str(number))


def said(text: str, turn: int = 1) -> TurnItem:
    content: list[Any] = [{"type": "output_text", "text": text}]
    return TurnItem(turn=turn, item={"type": "message", "id": "m", "role": "assistant", "content": content})


def called(command: str, turn: int = 1) -> TurnItem:
    arguments = json.dumps({"cmd": command})
    item: dict[str, Any] = {"type": "function_call", "id": "c", "name": "exec_command", "arguments": arguments}
    return TurnItem(turn=turn, item=item)


def answered(output: str, turn: int = 1) -> TurnItem:
    return TurnItem(turn=turn, item={"type": "function_call_output", "id": "o", "call_id": "c", "output": output})


def printed(text: str, turn: int = 1) -> SubprocessOutput:
    return SubprocessOutput(turn=turn, stream="stdout", text=text)


def logged(tail: str, turn: int = 1) -> LogUpdated:
    return LogUpdated(turn=turn, log="codys-log.md", path="x/codys-log.md", appended_bytes=len(tail), tail=tail)


@asynccontextmanager
async def projector(
    url: str, redis: Redis, archive: Archive, *, pace: Pace = FAST, run_ttl_s: int = 1_000
) -> AsyncIterator[RunProjector]:
    """A projector that is not running yet."""
    news = ArchiveNews(url, redis)
    try:
        yield RunProjector(news, ArchiveSource(redis), archive, run_ttl_s=run_ttl_s, pace=pace)
    finally:
        await news.aclose()


@asynccontextmanager
async def running(*projectors: RunProjector) -> AsyncIterator[None]:
    """These projectors at work; they must still be when the block ends."""
    tasks = [asyncio.create_task(one.run()) for one in projectors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def until_still(one: RunProjector) -> None:
    """Run the projector until it has acknowledged all news."""
    async with running(one), asyncio.timeout(90):
        while (await one.lag()).pending:
            await asyncio.sleep(0.01)


async def all_frames(archive: Archive, run_id: str) -> list[Frame]:
    frames: list[Frame] = []
    while found := await archive.events_after(run_id, frames[-1].seq if frames else 0):
        frames += found
    return frames


async def redis_frames(redis: Redis, run_id: str) -> list[Frame]:
    frames: list[Frame] = []
    while found := await events.after(redis, run_id, frames[-1].id if frames else "0-0"):
        frames += found
    return frames


def as_archived(run: RunSnapshot) -> RunSnapshot:
    """Without what holds only while a run runs."""
    return run.model_copy(update={"pid": None, "subscribers": 0, "queue_place": None})


async def is_archived(redis: Redis, archive: Archive, run_id: str) -> bool:
    """Whether the archive has the run's last event and its present state."""
    head = (await archive.heads([run_id])).get(run_id)
    fields = await runs.fields(redis, run_id)
    return head is not None and (str(head.last_seq), head.updated_at) == (fields["lastSeq"], fields["updatedAt"])


async def assert_equal(redis: Redis, archive: Archive, run_id: str) -> None:
    """The archive equals Redis: every frame byte for byte, every turn, the whole snapshot."""
    assert await all_frames(archive, run_id) == await redis_frames(redis, run_id)
    assert await archive.turn_records(run_id) == await runs.turn_records(redis, run_id)
    assert await archive.snapshot(run_id) == as_archived(await runs.snapshot(redis, run_id, now_ms=0))
