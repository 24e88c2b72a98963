"""The files of runs on this host: prompts and raw output, kept for some weeks after the last one was written, then removed."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from redis.asyncio import Redis
from structlog import get_logger

from cody.errors import StoreUnavailable
from cody.store import runs
from cody.store.availability import store_calls

log = get_logger()

DAY_S = 86_400.0


async def keep_recent(redis: Redis, runs_dir: Path, keep_days: int) -> None:
    """Once a day, for ever: see `remove_old`."""
    while True:
        try:
            await remove_old(redis, runs_dir, keep_s=keep_days * DAY_S)
        except (StoreUnavailable, OSError) as error:
            log.warning("runs.files_not_looked_at", error=str(error))
        await asyncio.sleep(DAY_S)


async def remove_old(redis: Redis, runs_dir: Path, *, keep_s: float) -> list[str]:
    """Remove the folders of runs that have ended, and in which nothing was written for so long; their ids.

    Only files go: the run itself, its events and its transcript are in the archive. Raises StoreUnavailable.
    """
    old = await asyncio.to_thread(_old, runs_dir, time.time() - keep_s)
    if not old:
        return []
    with store_calls("look which runs go on"):
        active = await runs.active(redis)
    removed = [folder for folder in old if folder.name not in active]
    for folder in removed:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        log.info("run.files_removed", run_id=folder.name, keep_days=round(keep_s / DAY_S, 1))
    return [folder.name for folder in removed]


def _old(runs_dir: Path, before: float) -> list[Path]:
    found = []
    for folder in runs_dir.iterdir():
        if folder.is_symlink() or not folder.is_dir():
            continue
        newest = max((path.lstat().st_mtime for path in (folder, *folder.rglob("*"))), default=0.0)
        if newest < before:
            found.append(folder)
    return sorted(found)
