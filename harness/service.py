"""Runs of this process: started, found, steered, watched, and brought to an orderly stop."""

from __future__ import annotations

import asyncio
import shutil
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis
from structlog import get_logger

from cody.contracts.epic_log import EpicLog, LogName
from cody.contracts.health import Health, WorkerHealth
from cody.contracts.run import (
    ControlAction,
    ControlAnswer,
    PreviewAnswer,
    PromptAnswer,
    StartRunAnswer,
    StartRunRequest,
)
from cody.errors import CodyError, InvalidRequest, NotFound, StoreUnavailable
from cody.pipeline.pipeline import Pipeline
from cody.redaction import Redactor, secrets_of
from cody.settings import Settings, process_secrets
from cody.store import control, leases, meta, runs, subscribers
from cody.store.availability import store_calls
from cody.store.connection import ServerFacts, StoreServer, check, connect, open_store_server
from cody.store.events import Frame
from cody.wall_clock import now_ms, now_text
from harness.archived_events import Archived, ArchivedEvents
from harness.crew import Crew, keep_going
from harness.epic_log import read_log
from harness.health import archive_health, redis_health, weaknesses
from harness.permission import located, visible
from harness.preview import prompt_of
from harness.run_records import RunRecords
from harness.store_server import kept_running
from harness.sweep import become_subreaper
from harness.tail import Cursor, TailHub
from harness.tools.runner import tool_runner

log = get_logger()

NO_STORE = (
    "there is no Redis: CODY_EMBEDDED_REDIS is off and REDIS_URL is not set. "
    "Set REDIS_URL, or let Cody start a server of its own"
)
LOW_DISK_BYTES = 200 << 20
SUBSCRIBER_TTL_KEEPALIVES = 3


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether runs can be started, each check in plain words, and what works but is weaker than it should be."""

    ready: bool
    checks: dict[str, str]
    degraded: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Open:
    """What there is when there is a store."""

    redis: Redis
    facts: ServerFacts
    crew: Crew
    tails: TailHub
    pipeline: Pipeline
    records: RunRecords


class RunService:
    """All that the API, and tests, do with runs. Made by `open`."""

    def __init__(self, settings: Settings, parts: _Open | None) -> None:
        self._settings = settings
        self._parts = parts

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[RunService]:
        """The service on its store; runs that have no owner are taken up. Raises StoreUnavailable, ConfigurationError."""
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.runs_dir.mkdir(mode=0o700, exist_ok=True)
        become_subreaper()
        server = await open_store_server(
            redis_url=settings.redis_url,
            redis_server=settings.redis_server,
            embedded=settings.embedded_redis,
            state_dir=settings.state_dir,
        )
        if server is None:
            log.warning("store.off", reason=NO_STORE)
            yield cls(settings, None)
            return
        try:
            async with kept_running(server), _parts(settings, server) as parts:
                yield cls(settings, parts)
        finally:
            await server.aclose()

    @property
    def available(self) -> bool:
        """False: there is no store, and every call about runs raises StoreUnavailable."""
        return self._parts is not None

    @property
    def active_runs(self) -> int:
        """Runs that this process works on, those that are paused included."""
        return len(self._parts.crew.workers) if self._parts else 0

    @property
    def busy_with(self) -> int:
        """What this process must not go away from: runs, those included that it is taking up, and answers it asks for."""
        return self._parts.crew.owned + self._parts.pipeline.submissions.count if self._parts else 0

    @property
    def pipeline(self) -> Pipeline:
        """Responses and the archive; raises StoreUnavailable when there is no store."""
        return self._store.pipeline

    @property
    def _store(self) -> _Open:
        if self._parts is None:
            raise StoreUnavailable(NO_STORE)
        return self._parts

    async def start(self, request: StartRunRequest, *, idempotency_key: str | None = None) -> StartRunAnswer:
        """Record a run and have it worked on in the background; raises InvalidRequest, Forbidden, StoreUnavailable.

        The same key with the same request gives the same run, within a day; with another request it raises Conflict.
        """
        store = self._store
        await asyncio.to_thread(located, request.config, request.epic_id, self._settings)
        with store_calls("start a run"):
            run_id = await runs.create(
                store.redis,
                str(uuid.uuid4()),
                epic_id=request.epic_id,
                config=request.config,
                now_ms=now_ms(),
                idempotency_key=idempotency_key,
                sealer=store.crew.sealer,
                is_archived=self._is_archived,
            )
        # Asked for again, it may be in the archive only.
        snapshot = await store.records.snapshot(run_id)
        log.info("run.queued", run_id=run_id, epic_id=request.epic_id, agent=request.config.agent)
        if snapshot.status == "queued":
            try:
                await store.crew.submit(run_id)
            except StoreUnavailable as error:
                # It is recorded: the next scan of any host finds it, and an error would have the client start another.
                log.warning("run.not_submitted", run_id=run_id, error=error.message)
        return StartRunAnswer(run_id=run_id, stream_key=snapshot.stream_key, meta=snapshot)

    async def _is_archived(self, run_id: str) -> bool:
        return run_id in await (await self._store.pipeline.archive()).heads([run_id])

    async def control(self, run_id: str, action: ControlAction, reason: str | None) -> ControlAnswer:
        """Accept a control message; raises NotFound, Conflict."""
        with store_calls(f"{action} run {run_id}"):
            status = await control.request(self._store.redis, run_id, action, reason=reason, now=now_text())
        if action == "cancel":
            # A run that waits for a host needs none to be cancelled.
            self._store.crew.take(run_id)
        return ControlAnswer(run_id=run_id, status=status)

    @property
    def records(self) -> RunRecords:
        """Runs and turns, read; raises StoreUnavailable when there is no store."""
        return self._store.records

    async def output_file(self, run_id: str, number: int) -> Path:
        """The raw output of a turn on this host; raises NotFound."""
        return await self._turn_file(run_id, number, "output.log", "output")

    async def prompt_file(self, run_id: str, number: int) -> Path:
        """The prompt that a turn got, on this host; raises NotFound."""
        return await self._turn_file(run_id, number, "prompt.md", "prompt")

    async def _turn_file(self, run_id: str, number: int, name: str, what: str) -> Path:
        record = await self.records.turn(run_id, number)
        path = self._store.crew.turn_dir(run_id, record.turn) / name
        if not path.is_file():
            raise NotFound(f"the {what} of turn {number} of run {run_id} is not on this host ({socket.gethostname()})")
        return path

    async def epic_log(self, run_id: str, name: LogName) -> EpicLog:
        """A log of the run's epic as it is now, without secrets; raises NotFound, Forbidden outside of this host's roots."""
        with store_calls(f"read run {run_id}"):
            kept = await runs.fields(self._store.redis, run_id)
        stored = meta.config_of(run_id, kept)
        redactor = self._store.crew.redactor(stored)

        def read() -> EpicLog:
            try:
                # Another host may have accepted the run: its folder's name means something else here.
                where = visible(stored, kept["epicId"], self._settings)
            except InvalidRequest as error:
                raise NotFound(f"the logs of run {run_id} are not on this host: {error.message}") from None
            return read_log(run_id, where, name, redactor)

        return await asyncio.to_thread(read)

    async def prompt(self, run_id: str) -> PromptAnswer:
        """The prompt that the next turn would get; raises NotFound, InvalidRequest when the epic is gone, and Forbidden."""
        found = await self.records.snapshot(run_id)
        with store_calls(f"read run {run_id}"):
            stored = meta.config_of(run_id, await runs.fields(self._store.redis, run_id))
        # Interrupted turns count as none: those that ended are what maxTurns is compared with.
        turn = found.stats.turns + 1
        redactor = self._store.crew.redactor(stored)

        def assembled() -> PreviewAnswer:
            where = visible(stored, found.epic_id, self._settings)
            return prompt_of(where, stored.max_turns, run_id, turn, redactor)

        made = await asyncio.to_thread(assembled)
        return PromptAnswer(run_id=run_id, prompt=made.prompt, sha256=made.sha256, bytes=made.bytes)

    async def preview(self, request: StartRunRequest) -> PreviewAnswer:
        """The prompt that such a run would begin with; starts nothing. Raises what `start` raises for the request."""

        def assembled() -> PreviewAnswer:
            where = located(request.config, request.epic_id, self._settings)
            secrets = Redactor([*process_secrets(self._settings), *secrets_of(request.config.env)])
            return prompt_of(where, request.config.max_turns, None, 1, secrets)

        return await asyncio.to_thread(assembled)

    async def open_stream(self, run_id: str, start: str) -> Cursor | Archived:
        """Where a reader begins, in Redis or in the archive; raises NotFound, InvalidRequest, StreamTrimmed."""
        store = self._store
        archived = ArchivedEvents(store.redis, store.pipeline)
        with store_calls(f"read the events of run {run_id}"):
            try:
                cursor = await store.tails.open(run_id, start)
            except NotFound:
                return await archived.open(run_id, start)
            return (await archived.whole(run_id) if cursor.ended and start == "0" else None) or cursor

    def follow(self, run_id: str, cursor: Cursor | Archived) -> AsyncIterator[list[Frame]]:
        """Events after the cursor as they come, to the run's end; raises StreamTrimmed."""
        if isinstance(cursor, Archived):
            return ArchivedEvents(self._store.redis, self._store.pipeline).follow(run_id, cursor)
        return self._store.tails.follow(run_id, cursor)

    async def touch_subscriber(self, run_id: str, client_id: str) -> None:
        """The client is watching; to be repeated at each keepalive."""
        ttl_ms = int(self._settings.sse_keepalive_s * 1000 * SUBSCRIBER_TTL_KEEPALIVES)
        with store_calls("count a subscriber"):
            await subscribers.touch(self._store.redis, run_id, client_id, now_ms=now_ms(), ttl_ms=ttl_ms)

    async def remove_subscriber(self, run_id: str, client_id: str) -> None:
        """The client went."""
        with store_calls("forget a subscriber"):
            await subscribers.remove(self._store.redis, run_id, client_id)

    async def readiness(self) -> Readiness:
        """Whether runs can be started now, and what is weaker than it should be."""
        checks: dict[str, str] = {}
        degraded: list[str] = []
        ready = True
        if self._parts is None:
            checks["redis"], ready = NO_STORE, False
        else:
            try:
                with store_calls("ask Redis how it is"):
                    facts = await check(self._parts.redis)
                checks["redis"] = f"ok ({facts.flavour} {facts.version})"
                if facts.degraded:
                    degraded.append(facts.degraded)
            except CodyError as error:
                checks["redis"], ready = error.message, False
            degraded += [f"run {run_id} was halted: {reason}" for run_id, reason in self._parts.crew.halted.items()]
            archive = await archive_health(self._parts.pipeline, projects=self._settings.projector)
            checks["sql"] = archive.state
            degraded += weaknesses(archive)
        free = shutil.disk_usage(self._settings.state_dir).free
        checks["disk"] = f"ok ({free / (1 << 30):.1f} GiB free)"
        if free < LOW_DISK_BYTES:
            checks["disk"] = f"only {free >> 20} MiB are free for {self._settings.state_dir}"
            ready = False
        return Readiness(ready, checks, degraded)

    async def health(self) -> Health:
        """Who works on what, on all hosts, and how the parts do that all rests on; raises StoreUnavailable."""
        store = self._store
        with store_calls("look who works"):
            found = await leases.owners(store.redis, ttl_ms=self._settings.lock_ttl_ms)
            queued = await runs.queued(store.redis)
        redis = await redis_health(store.redis)
        archive = await archive_health(store.pipeline, projects=self._settings.projector)
        workers = [
            WorkerHealth(worker_id=one.worker_id, host=one.host, runs=list(one.run_ids), lease_age_ms=one.lease_age_ms)
            for one in found
        ]
        return Health(workers=workers, queued=queued, redis=redis, archive=archive)

    async def shutdown(self) -> None:
        """End every agent within the grace and leave each run to be taken up again, or cancel it, as the settings say."""
        if self._parts is not None:
            await self._parts.crew.dismiss(self._settings.on_shutdown)


@asynccontextmanager
async def _parts(settings: Settings, server: StoreServer) -> AsyncIterator[_Open]:
    redis = connect(server.url)
    tails = TailHub(server.url, redis)
    tailing = asyncio.create_task(keep_going("tails", tails.run), name="tails")
    try:
        async with (
            Pipeline.open(settings, server.url, open_toolbox=tool_runner) as pipeline,
            Crew.open(server.url, redis, settings, pipeline) as crew,
        ):
            yield _Open(redis, server.facts, crew, tails, pipeline, RunRecords(redis, pipeline))
    finally:
        tailing.cancel()
        await asyncio.gather(tailing, return_exceptions=True)
        await redis.aclose()
