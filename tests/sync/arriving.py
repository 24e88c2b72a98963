"""Records as another Cody sends them, and the sync engine and the archive that they come to, on one database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cody.contracts.responses import Message, Response
from cody.contracts.run import RunSnapshot
from cody.contracts.run_config import RunConfig
from cody.pipeline.archive import Archive
from cody.pipeline.arrivals import Arrivals
from cody.pipeline.transfer import EventLine, RunHead, encoded
from cody.sync.adapters.sql import SqlAdapter
from cody.sync.chunking import chunk_lines
from cody.sync.contracts import JobSnapshot
from cody.sync.policy import ManifestBuilder
from tests.server.cody_server import TS

RUN_ID = "3f9a3f9a-0000-4000-8000-000000000001"
DEADLINE_S = 60.0


def answer(response_id: str, text: str) -> Response:
    return Response(
        id=response_id,
        turn_id=f"turn-{response_id}",
        thread_id="t",
        model_id="m",
        provider_id="p",
        created_at=1,
        updated_at=2,
        status="complete",
        output_items=(Message(id="i", content=text),),
    )


def snapshot(**fields: Any) -> RunSnapshot:
    values = {
        "run_id": RUN_ID,
        "status": "completed",
        "created_at": TS,
        "updated_at": TS,
        "epic_id": "e",
        "stream_key": "k",
        "working_dir": "/w",
        "agent": "codex",
        "config": RunConfig(working_dir="/w"),
        **fields,
    }
    return RunSnapshot(**values)


def event(seq: int, **fields: Any) -> EventLine:
    payload = json.dumps({"code": "c", "message": f"heron {seq}"})
    values = {"event_id": f"{seq}-0", "seq": seq, "type": "warning", "ts": TS, "payload": payload, **fields}
    return EventLine(**values)


def run_record(*lines: EventLine, **fields: Any) -> bytes:
    return b"".join(encoded(line) for line in (RunHead(run=snapshot(**fields)), *lines))


async def arrive(adapter: SqlAdapter, content: bytes, conversation_id: str = "sent") -> JobSnapshot:
    source = await adapter.start(conversation_id)
    built = ManifestBuilder()
    for chunk in built.through(chunk_lines([content], 4096)):
        await adapter.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    job = await adapter.seal(source.source_id, built.manifest, built.checksum)
    return await adapter.wait_for_terminal(job.job_id, DEADLINE_S)


@asynccontextmanager
async def taking_in(
    database_url: str, folder: Path, own: str = ""
) -> AsyncIterator[tuple[SqlAdapter, Archive, Arrivals]]:
    archive = Archive(database_url, folder)

    async def is_ours(run_id: str) -> bool:
        return run_id == own

    try:
        async with SqlAdapter(database_url) as adapter:
            yield adapter, archive, Arrivals(adapter, archive, is_ours)
    finally:
        await archive.aclose()
