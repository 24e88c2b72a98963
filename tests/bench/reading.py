"""Goals 8 and 11: a late reader, a long listing."""

from __future__ import annotations

import re
import time
import uuid

from cody.contracts.run_config import RunConfig
from cody.store import keys, runs
from cody.store.events import commit
from harness.tail_pages import PAGE_KEPT_S
from tests.bench.client import Client, received
from tests.bench.figures import Figure, median, quantile
from tests.bench.lines import socket_path
from tests.bench.raw_redis import entries_per_s
from tests.bench.stand import Stand, stand
from tests.server.cody_server import OwnedRun

EVENTS = 50_000
"""What Redis keeps of a run."""
ROUNDS = 5
LISTED = 10_000
PAGES = 300
_SEQ = re.compile(rb'"seq":(\d+)')


async def replay(made: Stand) -> list[Figure]:
    """Goal 8: no gap, no duplicate."""
    run = await OwnedRun.create(made.redis)
    await run.add(EVENTS - 2, text_bytes=150)
    await run.complete()
    floor: list[float] = []
    ours: list[float] = []
    with made.server(concurrency=0) as server:
        for _ in range(ROUNDS):
            per_s, kept = entries_per_s(socket_path(made), keys.events(run.run_id))
            floor.append(per_s)
            began = time.perf_counter()
            pieces = [data for _, data in received(server, run.run_id)]
            ours.append(kept / (time.perf_counter() - began))
            time.sleep(2 * PAGE_KEPT_S)  # the next reader gets no page that this one's has left
            text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", b"".join(pieces))
            seqs = [int(found) for found in _SEQ.findall(text)]
            assert seqs == list(range(seqs[0], run.last_seq + 1)), "a gap or a duplicate"
            assert len(seqs) == kept
    what = f"late reader, {EVENTS:,} events, against hiredis XRANGE 1000"
    return [Figure(8, what, median(ours), "events/s", 0.35, median(floor), at_least=True)]


async def listing(made: Stand) -> list[Figure]:
    """Goal 11."""
    config = RunConfig(working_dir="/r", agent="command", command=["true"])
    for number in range(LISTED):
        run_id, now_ms = str(uuid.uuid4()), 1_700_000_000_000 + number
        await runs.create(made.redis, run_id, epic_id="e", config=config, now_ms=now_ms)
        # Ended, as nearly all of so many are: the server has nothing to do but to list them.
        await commit(made.redis, run_id, fence=0, first_seq=2, meta={"status": "failed"}, end_ttl_s=3_600)
    with made.server(concurrency=0, projector=False) as server:
        client = Client(server)
        client.call("GET", "/api/runs?limit=100")

        took: list[float] = []
        path = "/api/runs?limit=100"
        for _ in range(PAGES):
            began = time.perf_counter()
            page = client.call("GET", path)
            took.append((time.perf_counter() - began) * 1_000)
            path = f"/api/runs?limit=100&cursor={page['nextCursor']}" if page["nextCursor"] else "/api/runs?limit=100"
        client.close()
    return [Figure(11, "a page of 100 out of 10,000 runs, p99", quantile(took, 0.99), "ms", 15)]


async def measure(*, quick: bool) -> list[Figure]:
    """Goals 8 and 11."""
    async with stand() as made:
        figures = await replay(made)
    async with stand() as made:
        return figures + await listing(made)
