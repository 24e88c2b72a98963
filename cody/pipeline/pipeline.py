"""The event pipeline of a process: answers asked for and published, projected into the archive, and read back.

The archive's libraries cost 0.4 s to import, so they are loaded beside the start of the process, not before it.
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, cast

from structlog import get_logger

from cody.contracts.responses import Response, run_of_turn
from cody.contracts.stream_events import (
    MalformedEvent,
    ResponseStart,
    TurnAbortedByUser,
    read_stream_event,
    stream_event_json,
)
from cody.contracts.submit import AbortAnswer, SubmitAnswer, SubmitRequest, ThreadAnswer, ThreadPage
from cody.errors import ConfigurationError, Conflict, NotFound, StoreUnavailable, StreamTrimmed
from cody.pipeline.background import cancelled, keep_going
from cody.pipeline.providers.tool_loop import OpenToolbox
from cody.pipeline.publisher import Publisher, Reaper
from cody.pipeline.response_tail import ResponseTail
from cody.pipeline.stamping import Stamper
from cody.pipeline.submit import Submissions
from cody.pipeline.trace_context import trace_of
from cody.redaction import Redactor
from cody.settings import Settings, process_secrets
from cody.store import keys
from cody.store.archive_news import Lag
from cody.store.clients import connect
from cody.store.response_events import Ending, ResponseEvents
from cody.store.response_news import ResponseLag
from cody.wall_clock import now_ms

if TYPE_CHECKING:
    from cody.pipeline.archive import Archive
    from cody.pipeline.projection import Projection

log = get_logger()


class Pipeline:
    """All that a process does with Responses. Made by `open`."""

    def __init__(
        self, settings: Settings, redis_url: str, store: ResponseEvents, open_toolbox: OpenToolbox | None
    ) -> None:
        self.store = store
        redactor = Redactor(process_secrets(settings))
        self.publisher = Publisher(store, redactor=redactor)
        self.submissions = Submissions(settings, self.publisher, self.archive, open_toolbox, redactor)
        self.tail = ResponseTail.on(redis_url, store)
        self._settings = settings
        self._redis_url = redis_url
        self._projection: asyncio.Future[Projection] = asyncio.get_running_loop().create_future()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, redis_url: str, *, open_toolbox: OpenToolbox | None = None
    ) -> AsyncIterator[Pipeline]:
        """The pipeline on this Redis and the archive that the settings name; `open_toolbox` carries out tools.

        Raises ConfigurationError for a DATABASE_URL that can't be used.
        """
        redis = connect(redis_url)
        pipeline = cls(settings, redis_url, ResponseEvents(redis), open_toolbox)
        work = {
            "response leases": pipeline.publisher.run,
            "response reaper": Reaper(pipeline.store).run,
            "response tail": pipeline.tail.run,
        }
        async with AsyncExitStack() as stack:
            stack.push_async_callback(redis.aclose)
            stack.push_async_callback(cancelled, asyncio.create_task(pipeline._project(), name="projection"))
            if settings.database_url is not None:
                # One that was named is checked before anything relies on it; the file in the state folder is ours.
                await pipeline._loaded()
            tasks = [asyncio.create_task(keep_going(name, one), name=name) for name, one in work.items()]
            stack.push_async_callback(cancelled, *tasks)
            stack.push_async_callback(pipeline.publisher.aclose)
            stack.push_async_callback(pipeline.submissions.aclose)
            yield pipeline

    async def archive(self) -> Archive:
        """The archive, once it is loaded. Raises StoreUnavailable when it can't be used at all."""
        try:
            return (await self._loaded()).archive
        except ConfigurationError as error:
            raise StoreUnavailable(f"there is no archive: {error.message}") from error

    async def run_lag(self) -> Lag:
        """How much of the runs is not projected yet. Raises StoreUnavailable."""
        return await (await self._loaded()).runs.lag()

    async def lag(self) -> ResponseLag:
        """How much of the responses is not projected yet. Raises StoreUnavailable."""
        return await (await self._loaded()).responses.lag()

    async def _loaded(self) -> Projection:
        return await asyncio.shield(self._projection)

    async def _project(self) -> None:
        try:
            module = await asyncio.to_thread(importlib.import_module, "cody.pipeline.projection")
            opened = cast("type[Projection]", module.Projection).open(self._settings, self._redis_url)
            async with opened as projection:
                self._projection.set_result(projection)
                await asyncio.Event().wait()
        except Exception as error:
            log.error("projection.not_opened", error=str(error)[:500])
            if not self._projection.done():
                self._projection.set_exception(error)
                # Known here; without someone who asks, the loop would complain at the end.
                self._projection.exception()

    async def submit(self, request: SubmitRequest, *, traceparent: str | None = None) -> SubmitAnswer:
        """Begin an answer in the background. Raises InvalidRequest, Forbidden, StoreUnavailable."""
        return await self.submissions.submit(request, traceparent=traceparent)

    async def response(self, response_id: str) -> Response:
        """A Response as the archive has it, or as a queued one until the archive does. Raises NotFound."""
        row = await (await self.archive()).response(response_id)
        if row is not None:
            return Response.model_validate_json(row.response)
        start = await self._opening(response_id)
        if start is None:
            raise _no_response(response_id)
        fields = dict(start)
        return Response(id=fields.pop("response_id"), status="queued", updated_at=start.created_at, **fields)

    async def thread(self, thread_id: str) -> ThreadAnswer:
        """The Responses of a thread, oldest first. Raises NotFound."""
        rows = await (await self.archive()).responses_of_thread(thread_id)
        found = {row.response_id: Response.model_validate_json(row.response) for row in rows}
        for response_id in await self.store.thread(thread_id):
            if response_id not in found and await self._opening(response_id) is not None:
                found[response_id] = await self.response(response_id)
        if not found:
            raise NotFound(f"no thread {thread_id[:200]!r}")
        return ThreadAnswer(thread_id=thread_id, responses=list(found.values()))

    async def threads(self, *, limit: int, cursor: str | None) -> ThreadPage:
        """One page of the threads in the archive. Raises InvalidRequest for a cursor of no listing."""
        return await (await self.archive()).threads(limit=limit, cursor=cursor)

    async def abort(self, response_id: str, reason: str) -> AbortAnswer:
        """End an answer, whichever process makes it. Raises NotFound, Conflict when it has ended or is a run's turn."""
        turn_id = await self._turn_of(response_id)
        run_id = run_of_turn(turn_id)
        if run_id is not None:
            raise Conflict(f"response {response_id} is a turn of run {run_id}: cancel that run")
        stamper = Stamper(response_id, now_ms, uuid.uuid4, trace_of())
        event = stamper.stamp(TurnAbortedByUser(turn_id=turn_id, reason=reason))
        if await self.store.end(response_id, stream_event_json(event), only_if_abandoned=False) is not Ending.OK:
            raise Conflict(f"response {response_id} has ended")
        publication = self.publisher.find(response_id)
        if publication is not None:
            publication.take_away("aborted by the user")
        log.info("response.aborted", response_id=response_id)
        return AbortAnswer(run_id=response_id)

    async def trimmed(self, response_id: str) -> StreamTrimmed | None:
        """What to tell a reader of a stream that Redis has let go of; None when there never was such a Response."""
        if await (await self.archive()).response(response_id) is None:
            return None
        return StreamTrimmed(
            f"the events of response {response_id} are no longer kept: read /api/v2/responses/{response_id}",
            earliest_event_id="0",
        )

    async def _turn_of(self, response_id: str) -> str:
        start = await self._opening(response_id)
        if start is not None:
            return start.turn_id
        row = await (await self.archive()).response(response_id)
        if row is None:
            raise _no_response(response_id)
        return row.turn_id

    async def _opening(self, response_id: str) -> ResponseStart | None:
        """What the response's stream begins with; None when it is gone, or its beginning was trimmed."""
        if not keys.is_run_id(response_id):
            return None
        for entry in await self.store.read(response_id, count=1):
            try:
                payload = read_stream_event(entry.event).payload
            except MalformedEvent:
                return None
            return payload if isinstance(payload, ResponseStart) else None
        return None


def _no_response(response_id: str) -> NotFound:
    return NotFound(f"no response {response_id[:200]!r}")
