"""The archive and the two projectors that keep it up to date, working while its context is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cody.pipeline.archive import Archive
from cody.pipeline.background import cancelled, keep_going
from cody.pipeline.response_projector import ResponseProjector
from cody.pipeline.run_projector import RunProjector
from cody.settings import Settings
from cody.store.archive_news import ArchiveNews
from cody.store.archive_source import ArchiveSource
from cody.store.clients import connect
from cody.store.response_events import ResponseEvents
from cody.store.response_news import ResponseNewsReader


@dataclass(frozen=True, slots=True)
class Projection:
    """What a process has that keeps the archive up to date."""

    archive: Archive
    runs: RunProjector
    responses: ResponseProjector

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, redis_url: str) -> AsyncIterator[Projection]:
        """Projecting in the background, unless the settings say that another process does. Raises ConfigurationError."""
        archive = Archive(settings.database_url, settings.state_dir)
        redis = connect(redis_url)
        run_news, response_news = ArchiveNews(redis_url, redis), ResponseNewsReader(redis_url, redis)
        runs = RunProjector(run_news, ArchiveSource(redis), archive, run_ttl_s=settings.run_ttl_s)
        responses = ResponseProjector(ResponseEvents(redis), response_news, archive)
        work = {"runs": runs.run, "responses": responses.run} if settings.projector else {}
        tasks = [asyncio.create_task(keep_going(name, one), name=f"project {name}") for name, one in work.items()]
        try:
            yield cls(archive, runs, responses)
        finally:
            await cancelled(*tasks)
            await run_news.aclose()
            await response_news.aclose()
            await redis.aclose()
            await archive.aclose()
