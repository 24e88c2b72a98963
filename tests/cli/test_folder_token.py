"""Who stays connected sends the folder's token to the folder's server alone, also after that one was killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cody.client import CodyClient, FolderToken, ServerUnreachable, credential_for
from cody.client.pipeline import PipelineClient
from cody.settings import load_settings
from tests.cli.test_discovery import impostor
from tests.ports import reserved_port
from tests.server.cody_server import DEADLINE_S, CodyServer, OwnedRun, launch

GIVE_UP_S = 0.5


@pytest.fixture
def port() -> Iterator[int]:
    """Nobody takes it but the test, also while the server is away."""
    with reserved_port() as reserved:
        yield reserved


async def test_who_takes_the_port_while_a_run_is_watched_gets_no_token(tmp_path: Path, port: int) -> None:
    first = launch(tmp_path, port=port)
    second: CodyServer | None = None
    try:
        settings = load_settings(state_dir=first.state_dir, port=first.port)
        run = await OwnedRun.create(first.redis())
        credential = credential_for(settings, first.url)
        assert isinstance(credential, FolderToken)
        async with CodyClient(first.url, token=credential) as client:
            stream = client.stream(run.run_id, give_up_after_s=GIVE_UP_S)
            async with asyncio.timeout(DEADLINE_S), aclosing(stream):
                assert (await anext(stream))[1].type == "run_queued"
                await run.redis.aclose()
                first.end(signal.SIGKILL)
                with impostor(port) as other:
                    with pytest.raises(ServerUnreachable, match="is not this folder's server"):
                        await anext(stream)
                    with pytest.raises(ServerUnreachable, match="is not this folder's server"):
                        await client.control(run.run_id, "pause")
                    assert {path.partition("?")[0] for path, _ in other.sent} == {"/healthz"}
                    assert [token for _, token in other.sent if token] == []
            second = await asyncio.to_thread(launch, tmp_path, port=port)
            assert second.url == first.url, second.stderr
            assert (await client.snapshot(run.run_id)).run_id == run.run_id
    finally:
        first.discard()
        if second is not None:
            second.discard()


async def test_who_takes_the_port_while_an_answer_is_awaited_gets_no_token(tmp_path: Path, port: int) -> None:
    server = launch(tmp_path, port=port)
    try:
        credential = credential_for(load_settings(state_dir=server.state_dir, port=server.port), server.url)
        async with PipelineClient(server.url, token=credential) as client:
            await client.runs()
            server.end(signal.SIGKILL)
            with impostor(port) as other:
                with pytest.raises(ServerUnreachable, match="is not this folder's server"):
                    await client.runs()  # its connection broke, and nobody was told
                with pytest.raises(ServerUnreachable, match="is not this folder's server"):
                    await client.search("anything")
                assert [token for _, token in other.sent if token] == []
    finally:
        server.discard()


async def test_a_token_that_was_given_goes_wherever_the_url_leads(tmp_path: Path) -> None:
    with impostor() as other:
        given = load_settings(state_dir=tmp_path, url=other.url, token="cody_a-token-that-was-given")
        async with CodyClient(other.url, token=credential_for(given, other.url)) as client:
            await client.runs()
        assert [token for _, token in other.sent] == ["Bearer cody_a-token-that-was-given"]
