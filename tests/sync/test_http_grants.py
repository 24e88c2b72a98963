"""What takes long is counted for who asked for it, and ends with the token that it was asked for with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from cody.sync.adapters.memory import MemoryAdapter
from cody.sync.conformance.kit import Record
from cody.sync.contracts import Chunk
from cody.sync.engine import Engine
from cody.sync.policy import ManifestBuilder
from cody.tokens import TokenStore
from tests.conftest import Wait
from tests.sync.serving import Serving, served

LONG_BYTES = 24 << 20
"""More than a connection of this machine buffers."""
CHUNK_BYTES = 4 << 20
DEADLINE_S = 60.0


@asynccontextmanager
async def caller(serving: Serving, token: str) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=serving.url, timeout=DEADLINE_S, headers=headers) as client:
        yield client


def revoke(serving: Serving, name: str) -> None:
    """As the API does: in the file, and then in what is open."""
    TokenStore(serving.state_dir).revoke(name)
    serving.grants.check()


async def unworked_job(engine: Engine) -> str:
    """A job that nobody takes up."""
    record = Record("waiting")
    source = await engine.start("waiting")
    for chunk in record.chunks:
        await engine.append(source.source_id, chunk.index, chunk.payload, chunk.message_count, chunk.byte_size)
    return (await engine.seal(source.source_id, record.manifest, record.checksum)).job_id


async def test_a_record_on_its_way_is_cut_off_with_its_token_and_no_other_is(tmp_path: Path) -> None:
    async with MemoryAdapter() as engine, served(engine, tmp_path) as serving:
        source, builder = await engine.start("long"), ManifestBuilder()
        for index in range(LONG_BYTES // CHUNK_BYTES):
            chunk = Chunk(index=index, payload=b"x" * CHUNK_BYTES, message_count=1, byte_size=CHUNK_BYTES)
            await engine.append(source.source_id, index, chunk.payload, 1, CHUNK_BYTES)
            builder.add(chunk)
        job = await engine.seal(source.source_id, builder.manifest, builder.checksum)
        assert (await engine.wait_for_terminal(job.job_id, DEADLINE_S)).state == "succeeded"
        path = "/api/sync/record?conversationId=long"
        async with (
            caller(serving, serving.token_of("read")) as mine,
            caller(serving, serving.token) as theirs,
            mine.stream("GET", path) as cut,
            theirs.stream("GET", path) as kept,
        ):
            assert (cut.status_code, kept.status_code) == (200, 200)
            revoke(serving, "for-read")
            with pytest.raises(httpx2.TransportError):
                await cut.aread()
            assert len(await kept.aread()) == LONG_BYTES


async def test_a_wait_for_a_job_ends_with_its_token_and_no_other_does(tmp_path: Path, eventually: Wait) -> None:
    async with MemoryAdapter(workers=0) as engine, served(engine, tmp_path) as serving:
        path = f"/api/sync/jobs/{await unworked_job(engine)}?waitMs="
        async with caller(serving, serving.token_of("read")) as mine, caller(serving, serving.token) as theirs:
            cut = asyncio.create_task(mine.get(f"{path}20000"))
            kept = asyncio.create_task(theirs.get(f"{path}20000"))

            async def both_wait() -> bool:
                return len(serving.grants._open) == 2

            await eventually(both_wait, "both are waited for")
            revoke(serving, "for-read")
            assert (await cut).status_code == 401
            assert not kept.done()
            [name] = [credential.caller.name for credential in serving.grants._open]
            assert name != "for-read"
            kept.cancel()  # whoever goes away is not waited for

            async def none_waits() -> bool:
                return not serving.grants._open

            await eventually(none_waits, "the wait ended with its client")
            answer = (await theirs.get(f"{path}1")).json()
            assert answer["state"] not in ("succeeded", "failed", "cancelled")
            assert (await theirs.get("/api/sync/jobs/nothing?waitMs=1")).json()["error"]["code"] == "job_not_found"


async def test_waits_are_counted(tmp_path: Path, eventually: Wait) -> None:
    async with MemoryAdapter(workers=0) as engine, served(engine, tmp_path, long_answers=1) as serving:
        job_id = await unworked_job(engine)
        async with caller(serving, serving.token) as client:
            waiting = asyncio.create_task(client.get(f"/api/sync/jobs/{job_id}?waitMs=20000"))

            async def waits() -> bool:
                return len(serving.grants._open) == 1

            await eventually(waits, "it waits")
            assert (await client.get(f"/api/sync/jobs/{job_id}?waitMs=1")).status_code == 429
            assert (await client.get(f"/api/sync/jobs/{job_id}")).status_code == 200
            await engine.cancel(job_id)
            assert (await waiting).json()["state"] == "cancelled"
            assert (await client.get(f"/api/sync/jobs/{job_id}?waitMs=1")).status_code == 200
