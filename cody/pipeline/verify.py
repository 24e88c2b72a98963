"""verify_pipeline: one answer sent the whole way, from a provider's wire over Redis into SQL, and looked at there."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cody.contracts.responses import Response
from cody.contracts.stream_events import read_stream_event
from cody.contracts.submit import SubmitRequest
from cody.errors import CodyError, InvalidRequest
from cody.pipeline.pipeline import Pipeline
from cody.pipeline.tracing import span
from cody.pipeline.wire_replay import MODELS, replaying
from cody.settings import Settings
from cody.store.clients import connect
from cody.store.connection import open_store_server
from cody.store.response_removal import remove_response

PROMPT = "Say that the pipeline works, in one short sentence."
LOOK_EVERY_S = 0.05
MAX_EVENTS = 10_000


class NotVerified(CodyError):
    """The answer's row did not come to a terminal status in time."""

    code: ClassVar[str] = "not_verified"


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it; `response` is the row of the archive. `redis` and `archive` say where it was."""

    response: Response
    trace_id: str
    events: tuple[str, ...]
    """Types, in order."""
    replayed: bool
    redis: str
    archive: str


async def verify_pipeline(
    settings: Settings, provider_id: str, model: str | None, *, timeout_s: float, replay: bool | None = None
) -> Verified:
    """Publish one answer, wait until its row has a terminal status, clean up.

    `replay`: play a recorded answer on loopback; None = where there is no key for the provider. On the Redis and the
    database of the settings; without REDIS_URL on some of its own, that are gone afterwards. Raises NotVerified.
    """
    if provider_id not in MODELS:
        raise InvalidRequest(f"no provider {provider_id!r} (known: {', '.join(MODELS)})", details={"field": "provider"})
    replayed = not _key(settings, provider_id) if replay is None else replay
    async with contextlib.AsyncExitStack() as stack:
        if replayed:
            url = await stack.enter_async_context(replaying(provider_id))
            settings = settings.model_copy(
                update={f"{provider_id}_api_key": "replayed-no-key", f"{provider_id}_base_url": url, "models": ()}
            )
        settings, redis_url = await stack.enter_async_context(_stores(settings))
        pipeline = await stack.enter_async_context(Pipeline.open(settings, redis_url))
        request = SubmitRequest(prompt=PROMPT, model=model or MODELS[provider_id], provider_id=provider_id)
        with span("verify", provider=provider_id):
            answer = await pipeline.submit(request)
        try:
            response = await _terminal(pipeline, answer.run_id, timeout_s)
            entries = await pipeline.store.read(answer.run_id, count=MAX_EVENTS)
            events = [read_stream_event(entry.event) for entry in entries]
        finally:
            await _clean_up(pipeline, redis_url, answer.run_id, answer.thread_id)
        return Verified(
            response=response,
            trace_id=events[0].trace_context.traceparent.split("-")[1],
            events=tuple(event.type for event in events),
            replayed=replayed,
            redis="a server of its own" if redis_url != settings.redis_url else "REDIS_URL",
            archive=(await pipeline.archive()).address,
        )


def _key(settings: Settings, provider_id: str) -> str | None:
    return {"openai": settings.openai_api_key, "anthropic": settings.anthropic_api_key}[provider_id]


@contextlib.asynccontextmanager
async def _stores(settings: Settings) -> AsyncIterator[tuple[Settings, str]]:
    """The settings' Redis; or a server, with a database beside it, in a folder that is removed: the state folder's own
    belongs to the server that runs there."""
    if settings.redis_url is not None:
        yield settings, settings.redis_url
        return
    with tempfile.TemporaryDirectory(prefix="cody-verify-") as folder:
        own = settings.model_copy(update={"state_dir": Path(folder)})
        server = await open_store_server(
            redis_url=None, redis_server=settings.redis_server, embedded=True, state_dir=own.state_dir
        )
        assert server is not None
        try:
            yield own, server.url
        finally:
            await server.aclose()


async def _terminal(pipeline: Pipeline, response_id: str, timeout_s: float) -> Response:
    """The Response, once its row says that it has ended: a row that is only there proves nothing."""
    archive = await pipeline.archive()
    status = "missing"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                row = await archive.response(response_id)
                if row is not None:
                    status = row.status
                    response = Response.model_validate_json(row.response)
                    if response.is_terminal:
                        return response
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise NotVerified(
            f"response {response_id}: its row is {status} after {timeout_s:g} s; is a projector running "
            "(CODY_PROJECTOR=1, or `cody projector`), and does it write to this database?"
        ) from None


async def _clean_up(pipeline: Pipeline, redis_url: str, response_id: str, thread_id: str) -> None:
    with contextlib.suppress(CodyError):
        await pipeline.abort(
            response_id, "the verification is over"
        )  # a Conflict where it has ended, as it should have
    redis = connect(redis_url)
    try:
        await remove_response(redis, response_id, thread_id)
        await (await pipeline.archive()).remove_response(response_id)
    finally:
        await redis.aclose()
