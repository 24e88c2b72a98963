"""A projector as a process of its own, to be killed between commit and acknowledgement: REDIS_URL DATABASE_URL STATE_DIR."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from cody.pipeline.archive import Archive
from cody.pipeline.response_projector import ResponsePace, ResponseProjector
from cody.store.clients import connect
from cody.store.response_events import ResponseEvents
from cody.store.response_news import ResponseNewsReader


class StopsBeforeAck(ResponseEvents):
    async def ack(self, *ids: Any, **more: Any) -> None:
        print("committed", flush=True)
        await asyncio.Event().wait()


async def main(redis_url: str, database_url: str, state_dir: str) -> None:
    redis = connect(redis_url)
    archive = Archive(database_url, Path(state_dir))
    news = ResponseNewsReader(redis_url, redis)
    pace = ResponsePace(gather_s=0.0, block_ms=20, lease_ms=300)
    await ResponseProjector(StopsBeforeAck(redis), news, archive, pace=pace).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
