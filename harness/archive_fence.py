"""The archive's memory of a run's fences: tells a Redis that went back in time from one that did not.

A Redis that was set back to an older state hands out fences that were used before. The archive has seen the highest; a
claim below it, or a stream that ends before what is archived, must not be worked on. The archive is asked, not needed:
while it is away runs go on, and the log says that nobody checked.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from structlog import get_logger

from cody.errors import CodyError
from cody.pipeline.pipeline import Pipeline

if TYPE_CHECKING:
    from cody.pipeline.archive import FenceVerdict

log = get_logger()

DEADLINE_S = 2.0
LEASE_SHARE = 2 / 15
"""So long, or so much of a lease, may it take: a slow database must not cost a run its owner."""


class StoreWentBack(CodyError):
    """Redis has an older state of the run than the archive: to go on would write a second history."""

    code = "store_went_back"


CheckFence = Callable[[str, int, int], Awaitable[None]]
"""(run id, fence of the claim, last number in Redis); raises StoreWentBack."""


def fence_of(pipeline: Pipeline, lease_s: float) -> CheckFence:
    """The check against this pipeline's archive."""
    deadline_s = max(DEADLINE_S, lease_s * LEASE_SHARE)

    async def check(run_id: str, fence: int, last_seq: int) -> None:
        asking = asyncio.create_task(_ask(pipeline, run_id, fence, last_seq), name=f"fence {run_id}")
        try:
            async with asyncio.timeout(deadline_s):
                verdict = await asyncio.shield(asking)
        except (CodyError, TimeoutError) as error:
            asking.add_done_callback(_heard)
            log.warning("run.fence_not_checked", run_id=run_id, fence=fence, error=str(error) or "too slow")
            return
        if verdict is not None:
            raise StoreWentBack(f"run {run_id} is not worked on: {verdict}")

    return check


async def _ask(pipeline: Pipeline, run_id: str, fence: int, last_seq: int) -> str | None:
    archive = await pipeline.archive()
    verdict: FenceVerdict = await archive.raise_fence(run_id, fence, claim_id=str(uuid.uuid4()), last_seq=last_seq)
    # Here, not above: whoever has the archive has paid for SQLAlchemy already.
    from cody.pipeline.archive import FenceRegressed

    if not isinstance(verdict, FenceRegressed):
        return None
    return (
        f"Redis went back in time. It gives fence {fence} and ends at event {last_seq}, where the archive has seen "
        f"fence {verdict.stored_fence} and event {verdict.stored_seq}. Restore a newer state of Redis; what the archive "
        "has of the run stays readable"
    )


def _heard(task: asyncio.Task[str | None]) -> None:
    """An answer that came too late, whatever it was."""
    if not task.cancelled():
        task.exception()
