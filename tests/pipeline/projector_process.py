"""A projector as a process of its own, to be killed: REDIS_URL DATABASE_URL STATE_DIR [--stop-before-ack] [--max-file BYTES].

With --stop-before-ack it says `committed` when the first batch is in the database, and goes no further.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
from collections.abc import Sequence
from pathlib import Path

from cody.pipeline.archive import Archive
from cody.pipeline.projecting import Pace
from cody.pipeline.run_projector import RunProjector
from cody.store.archive_news import ArchiveNews
from cody.store.archive_source import ArchiveSource
from cody.store.clients import connect

PACE = Pace(gather_s=0.0, block_ms=50, claim_every_s=0.0, claim_idle_ms=0)


class StopsBeforeAck(ArchiveNews):
    async def ack(self, ids: Sequence[str]) -> None:
        print("committed", flush=True)
        await asyncio.Event().wait()


async def main(arguments: argparse.Namespace) -> None:
    redis = connect(arguments.redis_url)
    archive = Archive(arguments.database_url, arguments.state_dir)
    await archive.open()
    if arguments.max_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.max_file, resource.RLIM_INFINITY))
    kind = StopsBeforeAck if arguments.stop_before_ack else ArchiveNews
    news = kind(arguments.redis_url, redis)
    projector = RunProjector(news, ArchiveSource(redis), archive, run_ttl_s=1_000, pace=PACE)
    print("ready", flush=True)
    await projector.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("redis_url")
    parser.add_argument("database_url")
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--stop-before-ack", action="store_true")
    parser.add_argument("--max-file", type=int)
    asyncio.run(main(parser.parse_args()))
