"""Search and export over HTTP, and the trace of a request, all with a real server, a provider's wire and a collector."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cody.contracts.responses import Response
from tests.conftest import Wait
from tests.pipeline.collector import collecting
from tests.pipeline.wire_server import WireServer, sse
from tests.server.cody_server import CodyServer, launch

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
        (f"/api/runs/{uuid.uuid4()}/export", 404),
        (f"/api/runs/{uuid.uuid4()}/export?format=pdf", 400),
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
        assert httpx2.get(f"{server.url}{path}").status_code == 401


async def test_one_trace_runs_from_the_request_to_the_row(wire: WireServer, tmp_path: Path, eventually: Wait) -> None:
    trace_id = "ab" * 16
    with collecting() as collector:
        variables: dict[str, Any] = {**collector.environment, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": wire.url}
        server = await asyncio.to_thread(launch, tmp_path, **variables)
        try:
            async with connected(server) as http:
                response_id = await answered(http, eventually, "thread-1", traceparent=f"00-{trace_id}-{'cd' * 8}-01")
                stream = await http.get(f"/api/v2/stream/{response_id}")
        finally:
            await asyncio.to_thread(server.discard)
    mine = [span for span in collector.spans if span.trace_id == trace_id]
    names = {span.name for span in mine}
    assert {"POST /api/v2/submit", "model.answer", "response.project", "sql.write"} <= names
    request = next(span for span in mine if span.name == "POST /api/v2/submit")
    assert (request.service, request.parent) == ("cody-server", "cd" * 8)
    assert request.attributes["http.response.status_code"] == "202"
    projected = [span for span in mine if span.name == "response.project"]
    assert {span.parent for span in projected} == {request.span_id}
    assert {span.attributes["response.id"] for span in projected} == {response_id}
    writes = [span for span in mine if span.name == "sql.write"]
    assert {span.parent for span in writes} <= {span.span_id for span in projected}
    events: list[dict[str, Any]] = [
        json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")
    ]
    assert {event["trace_context"]["traceparent"].split("-")[1] for event in events} == {trace_id}
    assert "Say hello" not in repr(collector.spans)
    assert KEY not in repr(collector.spans)
