"""Search and export over HTTP, with a real server and a provider's wire."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from cody.contracts.responses import Response
from tests.conftest import Wait
from tests.pipeline.wire_server import WireServer, sse
from tests.server.cody_server import DEADLINE_S, CodyServer, launch

KEY = "sk-test-0123456789"


@pytest.fixture
async def wire() -> AsyncIterator[WireServer]:
    async with WireServer(sse("openai", "message"), sse("openai", "second_turn")) as one:
        yield one


@pytest.fixture
async def asking(wire: WireServer, tmp_path: Path) -> AsyncIterator[CodyServer]:
    """A server whose OpenAI is the wire."""
    started = await asyncio.to_thread(launch, tmp_path, OPENAI_API_KEY=KEY, OPENAI_BASE_URL=wire.url)
    try:
        assert started.url, started.stderr
        yield started
    finally:
        await asyncio.to_thread(started.discard)


async def answered(http: httpx2.AsyncClient, eventually: Wait, thread_id: str, **headers: str) -> str:
    """The id of a Response that the archive has whole."""
    asked = {"prompt": "Say hello", "model": "gpt-5.5", "providerId": "openai", "threadId": thread_id}
    begun = await http.post("/api/v2/submit", json=asked, headers=headers)
    assert begun.status_code == 202, begun.text
    response_id = str(begun.json()["runId"])

    async def is_complete() -> bool:
        return bool((await http.get(f"/api/v2/responses/{response_id}")).json()["status"] == "complete")

    await eventually(is_complete)
    return response_id


def connected(server: CodyServer) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, headers=server.auth, timeout=30)


async def test_what_was_answered_is_found_and_exported(asking: CodyServer, eventually: Wait) -> None:
    async with connected(asking) as http:
        response_id = await answered(http, eventually, "thread-1")
        found = (await http.get("/api/search", params={"q": "hello"})).json()
        assert [hit["responseId"] for hit in found["hits"]] == [response_id] * len(found["hits"])
        assert {hit["kind"] for hit in found["hits"]} == {"message"}
        exported = await http.get("/api/v2/threads/thread-1/export")
        assert exported.headers["content-type"].startswith("application/jsonl")
        assert exported.headers["content-disposition"] == 'attachment; filename="thread-thread-1.jsonl"'
        head, line = [json.loads(text) for text in exported.text.splitlines()]
        assert head == {"kind": "thread", "threadId": "thread-1", "responses": 1}
        persisted = (await http.get(f"/api/v2/responses/{response_id}")).json()
        assert (
            Response.model_validate_json(json.dumps(line["response"])).model_dump(exclude_none=True, mode="json")
            == persisted
        )
        text = (await http.get("/api/v2/threads/thread-1/export", params={"format": "md"})).text
        assert text.startswith("# Thread thread-1\n")
        assert "> Say hello" in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/search", 400),
        ("/api/search?q=", 400),
        ("/api/search?q=a&limit=0", 400),
        ("/api/search?q=a&cursor=x", 400),
        ("/api/search?q=a&runId=1", 400),
        ("/api/search?q=a&nosuch=1", 400),
        ("/api/search?q=%22", 200),
        ("/api/runs/427808e7-d0aa-4e78-b8cf-7020995dab3b/export", 404),
        ("/api/runs/427808e7-d0aa-4e78-b8cf-7020995dab3b/export?format=pdf", 400),
        ("/api/v2/threads/nothing/export", 404),
        ("/api/v2/threads/%2e%2e%2f/export", 404),
    ],
)
def test_what_can_not_be_answered_is_refused(client: httpx2.Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    if status >= 400:
        assert answer.json()["error"]["code"] in {"invalid_request", "not_found"}


def test_nobody_reads_without_a_token(server: CodyServer) -> None:
    for path in ("/api/search?q=a", f"/api/runs/{uuid.uuid4()}/export", "/api/v2/threads/x/export"):
        assert httpx2.get(f"{server.url}{path}", timeout=DEADLINE_S).status_code == 401
