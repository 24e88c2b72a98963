"""The sync engine of this server: opened when somebody syncs, or at the start when there may be work left over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from structlog import get_logger

from cody.errors import CodyError, NotFound
from cody.pipeline.background import keep_going
from cody.settings import Settings
from cody.sync.errors import SyncError
from cody.sync.policy import KEEP_S, Policy
from cody.sync.wire import MAX_CHUNK_BYTES
from harness.service import RunService

if TYPE_CHECKING:
    from cody.pipeline.archive import Archive
    from cody.sync.adapters.sql import SqlAdapter

log = get_logger()

DEFAULT_FILE = "sync.sqlite3"
PRUNE_EVERY_S = 3600.0


class SyncHost:
    """Use it as an async context. SQLAlchemy, which takes 0.4 s to import, is loaded by the first who needs it."""

    def __init__(
        self,
        database_url: str | None,
        state_dir: Path,
        archive: Callable[[], Awaitable[Archive]],
        is_ours: Callable[[str], Awaitable[bool]],
        *,
        keep_s: float = KEEP_S,
        prune_every_s: float = PRUNE_EVERY_S,
    ) -> None:
        """`archive` takes in what arrives; `is_ours`: whether a run is this server's own. `keep_s`: see Policy."""
        self._file = state_dir / DEFAULT_FILE
        self._is_own_file = database_url is None
        self._url = database_url or f"sqlite:///{self._file}"
        self._archive = archive
        self._is_ours = is_ours
        self._policy = Policy(max_chunk_bytes=MAX_CHUNK_BYTES, keep_s=keep_s)
        self._prune_every_s = prune_every_s
        self._adapter: SqlAdapter | None = None
        self._opening = asyncio.Lock()
        self._opened = asyncio.Event()

    @classmethod
    def of(cls, service: RunService, settings: Settings) -> Self:
        """The host of this server: on the archive's database, and what arrives goes into its archive."""

        async def is_ours(run_id: str) -> bool:
            try:
                await service.records.snapshot(run_id)
            except NotFound:
                return False
            return True

        return cls(
            *(settings.database_url, settings.state_dir, lambda: service.pipeline.archive(), is_ours),
            keep_s=settings.sync_keep_s,
        )

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(keep_going(name, work), name=name)
            for name, work in {"sync-arrivals": self._take_in, "sync-retention": self._prune}.items()
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        if self._adapter is not None:
            await self._adapter.aclose()

    async def engine(self) -> SqlAdapter:
        """The engine, its workers at work."""
        async with self._opening:
            if self._adapter is None:
                # Here, not above: most servers are never synced with, and start faster without.
                from cody.sync.adapters.sql import SqlAdapter

                adapter = SqlAdapter(self._url, policy=self._policy)
                self._adapter = await adapter.__aenter__()
                self._opened.set()
                log.info("sync.opened")
            return self._adapter

    async def _take_in(self) -> None:
        if not self._is_own_file or self._file.exists():
            await self.engine()
        await self._opened.wait()

        from cody.pipeline.arrivals import LOOK_EVERY_S, Arrivals

        while True:
            try:
                archive = await self._archive()
                break
            except CodyError as error:
                log.warning("arrivals.waiting", error=error.message)
                await asyncio.sleep(LOOK_EVERY_S)
        await Arrivals(await self.engine(), archive, self._is_ours).run()

    async def _prune(self) -> None:
        """Drop what was abandoned, for as long as somebody syncs here; a database that is away is asked again later."""
        await self._opened.wait()
        while True:
            try:
                count = await (await self.engine()).prune()
                if count:
                    log.info("sync.pruned", sources=count)
            except SyncError as error:
                log.warning("sync.not_pruned", error=error.message)
            await asyncio.sleep(self._prune_every_s)
