"""What nobody needs any more is dropped: sources that were never sealed, and jobs that ended long ago."""

from __future__ import annotations

from datetime import timedelta

from cody.sync.storage import Write
from cody.sync.worker import Bench

AT_ONCE = 100


async def prune(bench: Bench) -> int:
    """Drop what is older than the policy keeps; the number of sources. See Engine.prune."""
    count = 0
    while True:
        before = bench.clock.now() - timedelta(seconds=bench.policy.keep_s)
        found = await bench.storage.stale(before, AT_ONCE)
        # One at a time: each may be a gigabyte, and other writers wait meanwhile.
        dropped = [source for source in found if await bench.storage.commit(Write(dropped=(source,)))]
        count += len(dropped)
        if len(found) < AT_ONCE or not dropped:  # not one: all of them were written to just now
            return count
