"""A real server process whose providers play on loopback, seen by a client and by its archive."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from cody.contracts.responses import Message, Response
from cody.contracts.submit import SubmitAnswer
from cody.pipeline.archive import Archive
from cody.pipeline.hydrator import Hydrator, hydrate
from tests.pipeline.wire_server import Reply, WireServer
from tests.ports import reserved_port
from tests.server.cody_server import CodyServer, launch

DEADLINE_S = 60
MODELS = {"openai": "gpt-5.5", "anthropic": "claude-opus-5"}
KEYS = {"OPENAI_API_KEY": "sk-openai-not-real", "ANTHROPIC_API_KEY": "sk-ant-not-real"}


@dataclass
class Served:
    """One server. `environment`: what it was started with, unless it is shared."""

    folder: Path
    server: CodyServer
    archive: Archive
    http: httpx2.AsyncClient
    environment: dict[str, Any] | None = None

    async def submit(self, provider_id: str = "openai", prompt: str | None = "Hello", **fields: Any) -> SubmitAnswer:
        body = {"prompt": prompt, "model": MODELS[provider_id], "providerId": provider_id, **fields}
        answer = await self.http.post("/api/v2/submit", json=body)
        assert answer.status_code == 202, answer.text
        return SubmitAnswer.model_validate_json(answer.content)

    async def answered(self, provider_id: str = "openai", prompt: str | None = "Hello", **fields: Any) -> Response:
        """Submit, and the answer when it has ended: what a client made of the stream is what the row says."""
        told = await self.submit(provider_id, prompt, **fields)
        return await self.ended(told.run_id)

    async def ended(self, response_id: str) -> Response:
        hydrator = Hydrator()
        async with asyncio.timeout(DEADLINE_S):
            hydrated = await hydrate(self.http, response_id, hydrator=hydrator)
            persisted = await self.persisted(response_id)
        assert hydrated == persisted
        assert hydrator.refused == []
        assert await self.read(response_id) == persisted
        return persisted

    async def persisted(self, response_id: str) -> Response:
        """The row when it is terminal."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                row = await self.archive.response(response_id)
                if row is not None and row.status in {"complete", "error", "aborted"}:
                    return Response.model_validate_json(row.response)
                await asyncio.sleep(0.02)

    async def read(self, response_id: str) -> Response:
        answer = await self.http.get(f"/api/v2/responses/{response_id}")
        assert answer.status_code == 200, answer.text
        return Response.model_validate_json(answer.content)

    async def restart(self) -> None:
        """Another server on the same state, once the one before is gone."""
        environment = self.environment
        assert environment is not None, "other tests use this server"
        await self.http.aclose()
        await asyncio.to_thread(self.server.discard)
        self.server = await asyncio.to_thread(lambda: launch(self.folder, **environment))
        assert self.server.url, self.server.stderr
        self.http = client(self.server)


def client(server: CodyServer) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, headers=server.auth, timeout=DEADLINE_S)


@asynccontextmanager
async def served(
    database_url: str | None = None,
    *,
    openai: WireServer | None = None,
    anthropic: WireServer | None = None,
    **environment: Any,
) -> AsyncIterator[Served]:
    """A server, ready; it ends with the block, and without being killed. `openai`, `anthropic`: its providers."""
    wanted: dict[str, Any] = {
        **KEYS,
        "OPENAI_BASE_URL": openai.url if openai else "http://127.0.0.1:9",
        "ANTHROPIC_BASE_URL": anthropic.url if anthropic else "http://127.0.0.1:9",
        "DATABASE_URL": database_url or "",
        **environment,
    }
    with tempfile.TemporaryDirectory(prefix="cody-v2-") as made:
        folder = Path(made)
        server = await asyncio.to_thread(lambda: launch(folder, **wanted))
        archive = Archive(database_url, server.state_dir)
        one = Served(folder, server, archive, client(server), wanted)
        try:
            assert server.url, server.stderr
            yield one
        finally:
            await one.http.aclose()
            await archive.aclose()
            await asyncio.to_thread(one.server.discard)


@dataclass
class SharedServer:
    """A server for tests that do nothing to it, one after the other; what its providers play is up to each of them.

    async with shared.wire("openai", sse("openai", "message")) as openai, shared.visited() as one:
        ...  one.answered("openai") ...
    """

    server: CodyServer
    database_url: str | None
    ports: dict[str, int]

    def wire(self, provider_id: str, *replies: Reply) -> WireServer:
        """The provider, while its context is open."""
        return WireServer(*replies, port=self.ports[provider_id])

    @asynccontextmanager
    async def visited(self) -> AsyncIterator[Served]:
        """The server as one test sees it, with a folder and connections of the test's own."""
        with tempfile.TemporaryDirectory(prefix="cody-v2-") as made:
            one = Served(
                Path(made), self.server, Archive(self.database_url, self.server.state_dir), client(self.server)
            )
            try:
                yield one
            finally:
                await one.http.aclose()
                await one.archive.aclose()


@contextmanager
def shared_server(database_url: str | None = None, **environment: str) -> Iterator[SharedServer]:
    """For a fixture with the scope of a module. The server ends with the block, and without being killed."""
    with (
        reserved_port() as openai,
        reserved_port() as anthropic,
        tempfile.TemporaryDirectory(prefix="cody-v2-") as folder,
    ):
        wanted: dict[str, Any] = {
            **KEYS,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{openai}",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{anthropic}",
            "DATABASE_URL": database_url or "",
            **environment,
        }
        server = launch(Path(folder), **wanted)
        try:
            assert server.url, server.stderr
            yield SharedServer(server, database_url, {"openai": openai, "anthropic": anthropic})
        finally:
            server.discard()


def kinds(response: Response) -> list[str]:
    """The items by type, those of the user marked."""
    return [item.type if item.origin != "user" else f"{item.type} of user" for item in response.output_items]


def texts(response: Response, where: Callable[[Message], bool] = lambda item: item.origin == "agent") -> list[str]:
    return [item.content for item in response.output_items if isinstance(item, Message) and where(item)]
